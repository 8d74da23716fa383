// Package kvtest is a kv.Store in memory, and the suite that it and the real
// one must pass. It is for tests only.
package kvtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"strongroom.example/appliance/base/vaultapi/kv"
)

// ErrInjected is what a Fake returns when it was told to fail.
var ErrInjected = errors.New("injected fault")

// Fake keeps what Vault would, in memory. Any mount is there. Safe for
// concurrent use.
type Fake struct {
	// Fail, if set, is asked before each call with its number, from 1; after
	// says that the call takes effect and its answer is lost.
	Fail func(n int, call string) (fail, after bool)

	mu      sync.Mutex
	calls   int
	secrets map[string]*secret
}

type secret struct {
	kv.Settings
	versions []version // of numbers from first on
	first    int
}

type version struct {
	data               map[string]any
	deleted, destroyed bool
}

var _ kv.Store = (*Fake)(nil)

// NewFake is empty.
func NewFake() *Fake { return &Fake{secrets: map[string]*secret{}} }

// Calls so far.
func (f *Fake) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Do counts a call, fails it if that was asked for, and runs its effect.
func (f *Fake) Do(call string, effect func() error) error {
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

// at is the secret, which is made where it is not there.
func (f *Fake) at(mount, path string) *secret {
	s := f.secrets[mount+"/"+path]
	if s == nil {
		s = &secret{first: 1, Settings: kv.Settings{DeleteVersionAfter: "0s"}}
		f.secrets[mount+"/"+path] = s
	}
	return s
}

func (s *secret) current() int { return s.first + len(s.versions) - 1 }

// version is nil where there is none of that number.
func (s *secret) version(n int) *version {
	if s == nil || n < s.first || n > s.current() {
		return nil
	}
	return &s.versions[n-s.first]
}

// Read is described at kv.Store.
func (f *Fake) Read(ctx context.Context, mount, path string) (kv.Stored, error) {
	return f.ReadVersion(ctx, mount, path, 0)
}

// ReadVersion is described at kv.Store.
func (f *Fake) ReadVersion(_ context.Context, mount, path string, n int) (got kv.Stored, err error) {
	err = f.Do("read", func() error {
		s := f.secrets[mount+"/"+path]
		if s != nil && n == 0 {
			n = s.current()
		}
		if v := s.version(n); v != nil {
			got = kv.Stored{Version: n, Notes: maps.Clone(s.CustomMetadata)}
			if !v.deleted && !v.destroyed {
				got.Data = maps.Clone(v.data)
			}
		}
		return nil
	})
	if err != nil {
		return kv.Stored{}, err
	}
	return got, nil
}

// Write is described at kv.Store.
func (f *Fake) Write(_ context.Context, mount, path string, data map[string]any, cas int) (n int, err error) {
	err = f.Do("write", func() error {
		if s := f.secrets[mount+"/"+path]; s == nil && cas != 0 || s != nil && cas != s.current() {
			return fmt.Errorf("write %s/%s: %w", mount, path, kv.ErrChanged)
		}
		s := f.at(mount, path)
		s.versions = append(s.versions, version{data: maps.Clone(data)})
		n = s.current()
		limit := s.MaxVersions
		if limit == 0 {
			limit = 10
		}
		if drop := len(s.versions) - limit; drop > 0 {
			s.versions, s.first = s.versions[drop:], s.first+drop
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Metadata is described at kv.Store.
func (f *Fake) Metadata(_ context.Context, mount, path string) (m *kv.Metadata, err error) {
	err = f.Do("metadata", func() error {
		s := f.secrets[mount+"/"+path]
		if s == nil {
			return nil
		}
		m = &kv.Metadata{Settings: s.Settings, CurrentVersion: s.current(), Versions: map[int]kv.Version{}}
		m.CustomMetadata = maps.Clone(s.CustomMetadata)
		for i, v := range s.versions {
			one := kv.Version{Created: "2026-01-02T03:04:05Z", Destroyed: v.destroyed}
			if v.deleted {
				one.Deleted = "2026-01-02T03:04:06Z"
			}
			m.Versions[s.first+i] = one
		}
		return nil
	})
	return m, err
}

// PutSettings is described at kv.Store.
func (f *Fake) PutSettings(_ context.Context, mount, path string, s kv.Settings) error {
	return f.Do("settings", func() error {
		s.CustomMetadata = maps.Clone(s.CustomMetadata)
		f.at(mount, path).Settings = s
		return nil
	})
}

// Annotate is described at kv.Store.
func (f *Fake) Annotate(_ context.Context, mount, path string, notes map[string]string) error {
	return f.Do("annotate", func() error {
		s := f.at(mount, path)
		if s.CustomMetadata == nil {
			s.CustomMetadata = map[string]string{}
		}
		maps.Copy(s.CustomMetadata, notes)
		return nil
	})
}

// DeleteVersion is described at kv.Store.
func (f *Fake) DeleteVersion(_ context.Context, mount, path string, n int) error {
	return f.Do("delete", func() error {
		if v := f.secrets[mount+"/"+path].version(n); v != nil {
			v.deleted = true
		}
		return nil
	})
}

// Destroy is described at kv.Store.
func (f *Fake) Destroy(_ context.Context, mount, path string, versions []int) error {
	return f.Do("destroy", func() error {
		for _, n := range versions {
			if v := f.secrets[mount+"/"+path].version(n); v != nil {
				*v = version{destroyed: true}
			}
		}
		return nil
	})
}

// List is described at kv.Store.
func (f *Fake) List(_ context.Context, mount, folder string) (names []string, err error) {
	err = f.Do("list", func() error {
		for at := range f.secrets {
			rest, below := strings.CutPrefix(at, mount+"/"+folder)
			if !below || rest == "" {
				continue
			}
			if name, _, deeper := strings.Cut(rest, "/"); deeper {
				rest = name + "/"
			}
			names = append(names, rest)
		}
		slices.Sort(names)
		names = slices.Compact(names)
		return nil
	})
	return names, err
}
