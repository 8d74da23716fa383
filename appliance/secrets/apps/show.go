package apps

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// State is an environment as it is in Vault. It holds no secret.
type State struct {
	App         string        `json:"app"`
	Environment string        `json:"environment,omitempty"`
	Path        string        `json:"path"`
	Login       string        `json:"login"`
	Policy      string        `json:"policy"`
	InVault     bool          `json:"in_vault"` // the login is there
	TokenTTL    time.Duration `json:"-"`
	SecretIDs   int           `json:"secret_ids"` // that work now; -1: may not be seen
	// SecretIDEnds is when the last of them ends; zero: never, there is none, or it may
	// not be seen.
	SecretIDEnds time.Time     `json:"secret_id_ends,omitzero"`
	Secrets      []SecretState `json:"secrets"`
	// Deleted are the secrets whose version is gone, for now or for good.
	Deleted   []string   `json:"deleted,omitempty"`
	Keys      []KeyState `json:"keys"`
	Databases []string   `json:"database_roles"`
	Grants    []string   `json:"grants"`
}

// SecretState is a name in KV.
type SecretState struct {
	Name    string `json:"name"`
	Version int    `json:"version"` // 0: it has no value yet
}

// KeyState is an API key.
type KeyState struct {
	Name      string `json:"name"`
	Version   int    `json:"version"`
	Condition string `json:"condition"`
	Next      string `json:"next_rotation"`
}

// Show reads the state of environments.
func Show(ctx context.Context, v Vault, targets []config.Target) ([]State, error) {
	out := make([]State, len(targets))
	err := each(ctx, len(targets), func(ctx context.Context, i int) error {
		s, err := showOne(ctx, v, targets[i])
		out[i] = s
		return err
	})
	return out, err
}

func showOne(ctx context.Context, v Vault, t config.Target) (State, error) {
	s := State{
		App: t.App, Environment: t.Environment, Path: machine.MountKV + "/" + t.Prefix, Login: t.Role, Policy: t.Policy, Grants: t.Grants,
		TokenTTL: t.Login.TokenTTL, Secrets: []SecretState{}, Keys: []KeyState{}, Databases: []string{},
	}
	role, err := v.Read(ctx, "auth/approle/role/"+t.Role)
	if err != nil {
		return s, err
	}
	s.InVault = role != nil
	ids, err := v.List(ctx, "auth/approle/role/"+t.Role+"/secret-id")
	switch {
	case err == nil:
		if s.SecretIDs, s.SecretIDEnds, err = livingIDs(ctx, v, t.Role, ids, time.Now()); err != nil {
			return s, err
		}
	case vaultapi.IsDenied(err):
		s.SecretIDs = -1
	default:
		return s, err
	}
	for _, name := range t.Secrets {
		got, err := v.Read(ctx, "secret/metadata/"+t.Prefix+"/"+name)
		if err != nil {
			return s, err
		}
		version := asInt(got["current_version"])
		s.Secrets = append(s.Secrets, SecretState{name, version})
		if deleted(got, version, time.Now()) {
			s.Deleted = append(s.Deleted, name)
		}
	}
	for _, k := range t.Keys {
		got, err := v.Read(ctx, "apikeys/keys/"+t.Prefix+"/"+k.Name)
		if err != nil {
			return s, err
		}
		condition := text(got, "condition")
		if got == nil {
			condition = "not in Vault yet"
		}
		s.Keys = append(s.Keys, KeyState{k.Name, asInt(got["version"]), condition, text(got, "next_rotation_time")})
	}
	for _, r := range t.Databases {
		s.Databases = append(s.Databases, r.Name)
	}
	return s, nil
}

// livingIDs counts the secret ids that work, and says when the last of them ends.
// Vault keeps those that have ended until it tidies up. Who may not look at them
// gets the number of all.
func livingIDs(ctx context.Context, v Vault, role string, accessors []string, now time.Time) (n int, ends time.Time, err error) {
	forever := false
	for _, a := range accessors {
		got, err := v.Write(ctx, "auth/approle/role/"+role+"/secret-id-accessor/lookup", map[string]any{"secret_id_accessor": a})
		switch {
		case vaultapi.IsDenied(err):
			return len(accessors), time.Time{}, nil
		case vaultapi.IsNotFound(err):
			continue // ended meanwhile
		case err != nil:
			return 0, ends, err
		}
		at, err := time.Parse(time.RFC3339Nano, text(got, "expiration_time"))
		switch {
		case err != nil || at.IsZero():
			forever = true
		case at.Before(now):
			continue
		case at.After(ends):
			ends = at
		}
		n++
	}
	if forever {
		ends = time.Time{}
	}
	return n, ends, nil
}

// deleted tells whether a version of a secret's metadata is gone, for now or for good.
func deleted(meta map[string]any, version int, now time.Time) bool {
	v := mapOf(mapOf(meta["versions"])[strconv.Itoa(version)])
	at, err := time.Parse(time.RFC3339Nano, text(v, "deletion_time"))
	return v["destroyed"] == true || err == nil && !at.After(now)
}

// Find picks environments by app and environment; both may be empty.
func Find(c config.Apps, app, environment string) ([]config.Target, error) {
	var out []config.Target
	for _, t := range c.Targets() {
		if (app == "" || t.App == app) && (environment == "" || t.Environment == environment) {
			out = append(out, t)
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case environment == "" && app != "":
		return nil, fmt.Errorf("the file has no app %q", app)
	case app == "" && environment != "":
		return nil, fmt.Errorf("the file has no app with an environment %q", environment)
	case app == "":
		return nil, errors.New("the file has no app")
	}
	return nil, fmt.Errorf("the file has no app %q with an environment %q", app, environment)
}
