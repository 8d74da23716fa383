package apps

import (
	"context"
	"errors"
	"fmt"
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
	Secrets     []SecretState `json:"secrets"`
	Keys        []KeyState    `json:"keys"`
	Databases   []string      `json:"database_roles"`
	Grants      []string      `json:"grants"`
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
		s.SecretIDs = len(ids)
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
		s.Secrets = append(s.Secrets, SecretState{name, asInt(got["current_version"])})
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
