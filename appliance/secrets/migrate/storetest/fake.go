// Package storetest is a migrate.Store in memory, and the suite that it and the
// real one must pass. It is for tests only.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"strongroom.example/appliance/secrets/migrate"
)

// ErrInjected is what a Fake returns when it was told to fail.
var ErrInjected = errors.New("injected fault")

// Fake keeps what Vault would, in memory. Safe for concurrent use.
type Fake struct {
	// Fail, if set, is asked before each call with its number, from 1; after
	// says that the call takes effect and its answer is lost.
	Fail func(n int, call string) (fail, after bool)

	mu      sync.Mutex
	calls   int
	secrets map[string][]version
	Notes   map[string]map[string]string
	keys    map[string]string
	defined map[string]bool
	roles   map[string]bool
}

type version struct {
	data    map[string]any
	deleted bool
}

var _ migrate.Store = (*Fake)(nil)

// NewFake has the given API keys defined, and database roles; as mount/path.
func NewFake(apiKeys, roles []string) *Fake {
	f := &Fake{secrets: map[string][]version{}, Notes: map[string]map[string]string{}, keys: map[string]string{}, defined: map[string]bool{}, roles: map[string]bool{}}
	for _, k := range apiKeys {
		f.defined[k] = true
	}
	for _, r := range roles {
		f.roles[r] = true
	}
	return f
}

// Calls so far.
func (f *Fake) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// do counts a call, fails it if that was asked for, and runs its effect.
func (f *Fake) do(call string, effect func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	fail, after := false, false
	if f.Fail != nil {
		fail, after = f.Fail(f.calls, call)
	}
	if fail && !after {
		return fmt.Errorf("%s: %w", call, ErrInjected)
	}
	if err := effect(); err != nil {
		return err
	}
	if fail {
		return fmt.Errorf("%s: %w", call, ErrInjected)
	}
	return nil
}

// Read is described at migrate.Store.
func (f *Fake) Read(ctx context.Context, mount, path string) (migrate.Stored, error) {
	return f.ReadVersion(ctx, mount, path, 0)
}

// ReadVersion is described at migrate.Store.
func (f *Fake) ReadVersion(_ context.Context, mount, path string, n int) (s migrate.Stored, err error) {
	err = f.do("read", func() error {
		all := f.secrets[mount+"/"+path]
		if n == 0 {
			n = len(all)
		}
		s.Version = n
		if n > 0 && n <= len(all) && !all[n-1].deleted {
			s.Data = maps.Clone(all[n-1].data)
		}
		return nil
	})
	if err != nil {
		s = migrate.Stored{}
	}
	return s, err
}

// Write is described at migrate.Store.
func (f *Fake) Write(_ context.Context, mount, path string, data map[string]any, cas int) (n int, err error) {
	err = f.do("write", func() error {
		all := f.secrets[mount+"/"+path]
		if cas != len(all) {
			return fmt.Errorf("write %s/%s: %w", mount, path, migrate.ErrChanged)
		}
		f.secrets[mount+"/"+path] = append(all, version{data: maps.Clone(data)})
		n = cas + 1
		return nil
	})
	return n, err
}

// Annotate is described at migrate.Store.
func (f *Fake) Annotate(_ context.Context, mount, path string, notes map[string]string) error {
	return f.do("annotate", func() error {
		at := mount + "/" + path
		if f.Notes[at] == nil {
			f.Notes[at] = map[string]string{}
		}
		maps.Copy(f.Notes[at], notes)
		return nil
	})
}

// DeleteVersion is described at migrate.Store.
func (f *Fake) DeleteVersion(_ context.Context, mount, path string, n int) error {
	return f.do("delete", func() error {
		if all := f.secrets[mount+"/"+path]; n >= 1 && n <= len(all) {
			all[n-1].deleted = true
		}
		return nil
	})
}

// APIKey is described at migrate.Store.
func (f *Fake) APIKey(_ context.Context, mount, path string) (key string, ok bool, err error) {
	err = f.do("key", func() error {
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
	return f.do("import", func() error {
		if !f.defined[mount+"/"+path] {
			return migrate.ErrNoDefinition
		}
		f.keys[mount+"/"+path] = key
		return nil
	})
}

// DatabaseRole is described at migrate.Store.
func (f *Fake) DatabaseRole(_ context.Context, mount, role string) (ok bool, err error) {
	err = f.do("role", func() error { ok = f.roles[mount+"/"+role]; return nil })
	return ok, err
}
