package evidence

import (
	"context"
	"errors"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/plugin/condition"
)

// Health is Vault's own, which needs no token.
type Health struct {
	Initialized bool `json:"initialized"`
	Sealed      bool `json:"sealed"`
	Standby     bool `json:"standby"`
	// Product is whose server it is; empty is Vault.
	Product     config.Product `json:"product,omitempty"`
	Version     string         `json:"version"`
	ClusterName string         `json:"cluster_name,omitempty"`
	ClusterID   string         `json:"cluster_id,omitempty"`
	// Tested says whether the tests ran this version.
	Tested bool `json:"tested"`
}

// Server is whose it is, and its version.
func (h Health) Server() config.Server {
	return config.Server{Product: h.Product.Known(), Version: h.Version}
}

// ReadHealth asks Vault for its health.
// https://developer.hashicorp.com/vault/api-docs/system/health
func ReadHealth(ctx context.Context, c *vaultapi.Client) (Health, error) {
	h, err := c.Health(ctx)
	if err != nil {
		return Health{}, err
	}
	return Health{
		Initialized: h.Initialized, Sealed: h.Sealed, Standby: h.Standby, Product: h.Product, Version: h.Version,
		ClusterName: h.ClusterName, ClusterID: h.ClusterID, Tested: h.Server().Tested(),
	}, nil
}

// read decodes the data of Vault's answer. It is an error where there is none.
func read(ctx context.Context, c *vaultapi.Client, path string, query map[string][]string, v any) error {
	return c.ReadInto(ctx, path, query, v)
}

// Keys is what the engine for API keys tells of itself and of every key.
type Keys struct {
	// Version of the engine.
	Version string `json:"version"`
	// Active says that this node rotates.
	Active bool `json:"active"`
	// Fence is the reason for which the engine mints and revokes nothing, until
	// reconcile; empty: it works.
	Fence string `json:"fence,omitempty"`
	// Clock is the engine's opinion of the machine's, in its own word.
	Clock        string            `json:"clock"`
	Count        int               `json:"count"`
	DueRotations int               `json:"due_rotations"`
	OpenIntents  int               `json:"open_intents"`
	Webhooks     map[string]string `json:"webhooks,omitempty"` // name → last fault, "" for none
	Counters     Counters          `json:"counters"`
	// Providers are the counts of all keys, Days those of the next rotations by
	// day, YYYY-MM-DD in UTC.
	Providers map[string]ProviderKeys `json:"providers,omitempty"`
	Days      map[string]int          `json:"rotations_by_day,omitempty"`
	// Keys are those whose condition is not ok, and those that rotate next, by name.
	Keys []Key `json:"keys"`
}

// ProviderKeys counts the keys of one provider.
type ProviderKeys struct {
	Conditions map[string]int `json:"conditions"`
	Next       time.Time      `json:"next_rotation,omitzero"`   // the earliest
	Oldest     time.Time      `json:"oldest_rotation,omitzero"` // the last rotation that is the longest ago
}

// Counters count since the engine was loaded.
type Counters struct {
	Rotations      int64 `json:"rotations"`
	Revocations    int64 `json:"revocations"`
	Failures       int64 `json:"failures"`
	Reaped         int64 `json:"reaped"`
	Reads          int64 `json:"reads"`
	ReadsUnchanged int64 `json:"reads_unchanged"`
}

// Key is one key's state.
type Key struct {
	Name         string    `json:"name"`
	Provider     string    `json:"provider,omitempty"`
	Version      int       `json:"version"`
	LastRotation time.Time `json:"last_rotation,omitzero"`
	// NextRotation is zero for a key that nothing rotates.
	NextRotation time.Time `json:"next_rotation,omitzero"`
	// Condition is the engine's word, one of package condition's.
	Condition string `json:"condition"`
	// Failure is why, in the engine's words; never a secret.
	Failure string `json:"failure,omitempty"`
	// Retry is when the engine tries again.
	Retry time.Time `json:"retry,omitzero"`
}

// State is what is known of the key's condition: how grave it is, what to do.
func (k Key) State() condition.Condition { return condition.Of(k.Condition) }

// LockedOut are the names that Vault lets nobody log in as for a while, after wrong
// passwords.
type LockedOut struct {
	Total int      `json:"total"`
	Names []string `json:"names,omitempty"`
}

// ReadLockedOut reads them, which needs a token that may.
// https://developer.hashicorp.com/vault/api-docs/system/user-lockout
func ReadLockedOut(ctx context.Context, c *vaultapi.Client) (LockedOut, error) {
	var answer struct {
		Total       *int `json:"total"`
		ByNamespace []struct {
			Mounts []struct {
				Names []string `json:"alias_identifiers"`
			} `json:"mount_accessors"`
		} `json:"by_namespace"`
	}
	if err := read(ctx, c, "sys/locked-users", nil, &answer); err != nil {
		return LockedOut{}, err
	}
	if answer.Total == nil {
		return LockedOut{}, errors.New("sys/locked-users: it holds no total")
	}
	l := LockedOut{Total: *answer.Total}
	for _, ns := range answer.ByNamespace {
		for _, m := range ns.Mounts {
			l.Names = append(l.Names, m.Names...)
		}
	}
	return l, nil
}
