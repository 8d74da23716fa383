package evidence

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/plugin/condition"
)

// statusPage is how many keys are asked for at once.
const statusPage = 1000

// status is the engine's answer at status, plugin/path_status.go.
type status struct {
	Version string `json:"version"`
	Active  bool   `json:"active"`
	Fence   struct {
		Closed bool   `json:"closed"`
		Reason string `json:"reason"`
	} `json:"fence"`
	Clock struct {
		State string `json:"state"`
	} `json:"clock"`
	KeyCount     int `json:"key_count"`
	DueRotations int `json:"due_rotations"`
	OpenIntents  int `json:"open_intents"`
	Webhooks     map[string]struct {
		LastError string `json:"last_error"`
	} `json:"webhooks"`
	Counters
	ByProvider map[string]struct {
		Conditions map[string]int `json:"conditions"`
		Next       time.Time      `json:"next_rotation_time"`
		Oldest     time.Time      `json:"oldest_rotation_time"`
	} `json:"by_provider"`
	Days map[string]int `json:"rotations_by_day"`
	Soon []struct {
		Name string `json:"name"`
		keyState
	} `json:"next_rotations"`
	Keys map[string]keyState `json:"keys"`
	Next string              `json:"next"`
}

type keyState struct {
	Provider          string    `json:"provider"`
	Version           int       `json:"version"`
	LastRotated       time.Time `json:"last_rotated_time"`
	NextRotation      time.Time `json:"next_rotation_time"`
	Condition         string    `json:"condition"`
	RotationFailure   *failure  `json:"rotation_failure"`
	RevocationFailure *failure  `json:"revocation_failure"`
	Uncertain         *struct {
		Reason string `json:"reason"`
	} `json:"uncertain"`
}

type failure struct {
	Operation string    `json:"operation"`
	Message   string    `json:"message"`
	Retry     time.Time `json:"retry_time"`
}

// maxPages bounds how much is read about keys that need somebody.
const maxPages = 5

// ReadKeys reads the engine's status at a mount: it keeps counts, and names the keys
// that need somebody and those that rotate next, so this is one request however many
// there are.
func ReadKeys(ctx context.Context, c *vaultapi.Client, mount string) (Keys, error) {
	var out Keys
	keys := map[string]keyState{}
	query := map[string][]string{"limit": {strconv.Itoa(statusPage)}}
	for range maxPages {
		var s status
		if err := read(ctx, c, mount+"/status", query, &s); err != nil {
			return Keys{}, err
		}
		for _, next := range s.Soon {
			if _, have := keys[next.Name]; !have {
				keys[next.Name] = next.keyState
			}
		}
		maps.Copy(keys, s.Keys)
		out = s.summary()
		if s.Next == "" {
			break
		}
		// It goes forward, or there are keys that nobody is told of: a page that
		// names an earlier one would go round for ever.
		if after := query["after"]; after != nil && s.Next <= after[0] {
			return Keys{}, fmt.Errorf("read %s/status: after %q it goes on with %q", mount, after[0], s.Next)
		}
		query["after"] = []string{s.Next}
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		out.Keys = append(out.Keys, keys[name].key(name))
	}
	return out, nil
}

func (s *status) summary() Keys {
	out := Keys{
		Version: s.Version, Active: s.Active, Clock: s.Clock.State, Count: s.KeyCount,
		DueRotations: s.DueRotations, OpenIntents: s.OpenIntents, Counters: s.Counters,
		Providers: map[string]ProviderKeys{}, Days: s.Days,
	}
	if s.Fence.Closed {
		out.Fence = s.Fence.Reason
	}
	for name, h := range s.Webhooks {
		if out.Webhooks == nil {
			out.Webhooks = map[string]string{}
		}
		out.Webhooks[name] = h.LastError
	}
	for name, p := range s.ByProvider {
		out.Providers[name] = ProviderKeys{p.Conditions, p.Next, p.Oldest}
	}
	return out
}

func (s keyState) key(name string) Key {
	k := Key{Name: name, Provider: s.Provider, Version: s.Version, LastRotation: s.LastRotated, NextRotation: s.NextRotation, Condition: s.Condition}
	switch {
	case s.Uncertain != nil:
		k.Failure = s.Uncertain.Reason
	case s.RotationFailure != nil:
		k.Failure, k.Retry = s.RotationFailure.Message, s.RotationFailure.Retry
	case s.RevocationFailure != nil:
		k.Failure, k.Retry = s.RevocationFailure.Message, s.RevocationFailure.Retry
	}
	return k
}

// NextRotations are the named keys that have a next rotation up to a time, soonest
// first.
func (k Keys) NextRotations(until time.Time) []Key {
	var out []Key
	for _, key := range k.Keys {
		if !key.NextRotation.IsZero() && !key.NextRotation.After(until) {
			out = append(out, key)
		}
	}
	slices.SortStableFunc(out, func(a, b Key) int { return a.NextRotation.Compare(b.NextRotation) })
	return out
}

// NeedSomebody are the keys that a person should look at.
func (k Keys) NeedSomebody() []Key {
	var out []Key
	for _, key := range k.Keys {
		if key.State().Severity > condition.Well {
			out = append(out, key)
		}
	}
	return out
}
