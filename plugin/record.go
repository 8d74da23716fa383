package apikeys

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// keyRecord is all that the engine knows of one key: its definition, its
// versions and their values. It is stored as one entry. Once published in the
// cache it never changes; a mutation works on a clone.
type keyRecord struct {
	Name    string    `json:"name"`
	UID     string    `json:"uid"` // 12 characters; part of the names at the provider
	Created time.Time `json:"created"`
	Def     keyDef    `json:"def"`

	Life lifecycle.Key `json:"life"`
	// Values of the versions that are alive, by version number.
	Values map[int]map[string]string `json:"values,omitempty"`
	// Hashes stand in place of the values of old versions where Def.HashOld.
	Hashes map[int][]byte `json:"hashes,omitempty"`
	// Uses is what the provider said of the last use of replaced versions.
	Uses map[int]*useRecord `json:"uses,omitempty"`
	// HashKey keys Hashes.
	HashKey []byte `json:"hash_key,omitempty"`

	LastRotation time.Time `json:"last_rotation,omitzero"`
	// ScheduleFrom is what the next rotation is counted from: the last
	// rotation or, where a window was missed, the time that was noticed.
	ScheduleFrom time.Time `json:"schedule_from,omitzero"`
	// Requested is when a rotation asked for by hand may start; zero: none is.
	Requested time.Time `json:"requested,omitzero"`

	// Reminded is when somebody was last told that the key must be replaced by hand.
	Reminded time.Time `json:"reminded,omitzero"`

	MintFailure   *failure   `json:"mint_failure,omitempty"`
	RevokeFailure *failure   `json:"revoke_failure,omitempty"`
	Uncertain     *uncertain `json:"uncertain,omitempty"`
	Deleting      *deletion  `json:"deleting,omitempty"`
}

// keyDef is what an operator writes to keys/NAME. Zero values mean the mount's
// default.
type keyDef struct {
	Provider         string            `json:"provider"`
	Parameters       map[string]any    `json:"parameters,omitempty"`
	RotationPeriod   time.Duration     `json:"rotation_period,omitempty"`
	RotationSchedule string            `json:"rotation_schedule,omitempty"`
	TimeZone         string            `json:"time_zone,omitempty"`
	RotationWindow   time.Duration     `json:"rotation_window,omitempty"`
	GracePeriod      time.Duration     `json:"grace_period,omitempty"`
	MaxVersions      int               `json:"max_versions,omitempty"`
	Disabled         bool              `json:"disable_automated_rotation,omitempty"`
	HashOld          bool              `json:"hash_old_versions,omitempty"`
	SpreadGroup      string            `json:"spread_group,omitempty"`
	SpreadDistance   time.Duration     `json:"spread_distance,omitempty"`
	Metadata         map[string]string `json:"custom_metadata,omitempty"`
}

// failure is why the last try did not succeed, and when the next one starts.
type failure struct {
	Op      string    `json:"op"`
	Kind    string    `json:"kind"`
	Message string    `json:"message"` // never holds a secret
	Count   int       `json:"count"`   // in a row
	At      time.Time `json:"at"`
	RetryAt time.Time `json:"retry_at"`
}

// uncertain is a mint of which nobody can tell whether it took effect.
type uncertain struct {
	Name    string    `json:"name"` // at the provider
	Version int       `json:"version"`
	Since   time.Time `json:"since"`
	Message string    `json:"message"`
}

// deletion is a key whose definition is gone while its versions live on.
type deletion struct {
	At time.Time `json:"at"`
}

func (r *keyRecord) clone() *keyRecord {
	c := *r
	c.Life = r.Life.Clone()
	c.Values = maps.Clone(r.Values)
	c.Hashes = maps.Clone(r.Hashes)
	c.Uses = maps.Clone(r.Uses) // what they point to never changes
	for _, p := range []**failure{&c.MintFailure, &c.RevokeFailure} {
		if *p != nil {
			f := **p
			*p = &f
		}
	}
	return &c
}

// setValues keeps a version's values; the record must be a clone.
func (r *keyRecord) setValues(version int, values map[string]string) {
	if r.Values == nil {
		r.Values = map[int]map[string]string{}
	}
	r.Values[version] = maps.Clone(values)
}

// tidy drops what no longer has a use: values of dead versions and more of
// them than are kept as history.
func (r *keyRecord) tidy(maxVersions int) {
	r.Life.Prune(maxVersions)
	for n := range r.Values {
		if v := r.Life.Find(n); v == nil || v.State == lifecycle.Revoked {
			delete(r.Values, n)
		}
	}
	for n := range r.Uses {
		if v := r.Life.Find(n); v == nil || v.State == lifecycle.Current {
			delete(r.Uses, n)
		}
	}
	for n := range r.Hashes {
		if v := r.Life.Find(n); v == nil || v.State == lifecycle.Revoked {
			delete(r.Hashes, n)
		}
	}
}

// providerKey is a version as providers see it.
func (r *keyRecord) providerKey(v *lifecycle.Version) provider.Key {
	return provider.Key{ID: v.ProviderID, Name: v.Name, Values: r.Values[v.Number], Expires: v.Expires}
}

// providerRecord is a provider as it is stored.
type providerRecord struct {
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Settings   map[string]any    `json:"settings,omitempty"`
	Credential map[string]string `json:"credential,omitempty"`
	// CredentialKey names a key of this mount whose values are the credential.
	CredentialKey string `json:"credential_key,omitempty"`
	// MaxPerMinute caps the rotations that start by themselves; 0: no cap.
	MaxPerMinute int       `json:"max_rotations_per_minute"`
	Updated      time.Time `json:"updated"`
}

const intentKind = "mint"

// intent says, before a provider is asked for a key, under which name it will
// be there afterwards.
type intent struct {
	Format  int       `json:"format"`
	Key     string    `json:"key"`
	UID     string    `json:"uid"`
	Name    string    `json:"name"`
	Version int       `json:"version"`
	Started time.Time `json:"started"`
	// Known are the ids at the provider beforehand, where names are not kept there.
	Known []string `json:"known,omitempty"`

	id string
}

// metaRecord identifies the mount.
type metaRecord struct {
	Mount string `json:"mount"` // 8 characters; part of the names at the provider
	// Installation and Epoch are those under which the storage was last in use.
	Installation string `json:"installation,omitempty"`
	Epoch        int64  `json:"epoch,omitempty"`
}

type clockRecord struct {
	Last time.Time `json:"last"`
}

// normalizeJSON makes data what it will be after a round trip through storage,
// so that providers see the same types before and after a restart.
func normalizeJSON(data map[string]any) (map[string]any, error) {
	if len(data) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("not representable as JSON: %w", err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("not representable as JSON: %w", err)
	}
	return out, nil
}
