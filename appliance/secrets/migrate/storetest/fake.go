// Package storetest is a migrate.Store in memory, and the suite that it and the
// real one must pass. It is for tests only.
package storetest

import (
	"context"

	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
	"strongroom.example/appliance/secrets/migrate"
)

// Fake keeps what Vault would, in memory. Safe for concurrent use.
type Fake struct {
	*kvtest.Fake

	keys    map[string]string
	defined map[string]bool
	roles   map[string]bool
}

var _ migrate.Store = (*Fake)(nil)

// NewFake has the given API keys defined, and database roles; as mount/path.
func NewFake(apiKeys, roles []string) *Fake {
	f := &Fake{Fake: kvtest.NewFake(), keys: map[string]string{}, defined: map[string]bool{}, roles: map[string]bool{}}
	for _, k := range apiKeys {
		f.defined[k] = true
	}
	for _, r := range roles {
		f.roles[r] = true
	}
	return f
}

// APIKey is described at migrate.Store.
func (f *Fake) APIKey(_ context.Context, mount, path string) (key string, ok bool, err error) {
	err = f.Do("key", func() error {
		if !f.defined[mount+"/"+path] {
			return migrate.ErrNoDefinition
		}
		key, ok = f.keys[mount+"/"+path]
		return nil
	})
	return key, ok, err
}

// ImportAPIKey is described at migrate.Store.
func (f *Fake) ImportAPIKey(_ context.Context, mount, path, key string) error {
	return f.Do("import", func() error {
		if !f.defined[mount+"/"+path] {
			return migrate.ErrNoDefinition
		}
		f.keys[mount+"/"+path] = key
		return nil
	})
}

// DatabaseRole is described at migrate.Store.
func (f *Fake) DatabaseRole(_ context.Context, mount, role string) (ok bool, err error) {
	err = f.Do("role", func() error { ok = f.roles[mount+"/"+role]; return nil })
	return ok, err
}
