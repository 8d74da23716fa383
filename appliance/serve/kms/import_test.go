package kms

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/config"
)

// A key comes back from its escrow over what is gone, damaged or refused for
// good; never over one that Vault's data may need, nor over one that opens again
// by itself.
func TestImport(t *testing.T) {
	old := newKeyset(t)
	next, err := old.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	other := newKeyset(t)
	for name, c := range map[string]struct {
		here, given *Keyset
		then        func(m *credtest.Machine, path string)
		want        error
	}{
		"none here":             {nil, old, nil, nil},
		"the same":              {old, old, nil, nil},
		"an older one is here":  {old, next, nil, nil},
		"a newer one is here":   {next, old, nil, ErrOtherKey},
		"another is here":       {other, old, nil, ErrOtherKey},
		"refused for good":      {old, old, func(m *credtest.Machine, _ string) { m.OtherTPM() }, nil},
		"another host's key":    {other, old, func(m *credtest.Machine, _ string) { m.OtherHostKey() }, nil},
		"in lockout":            {old, old, func(m *credtest.Machine, _ string) { m.PowerCuts() }, credential.ErrLockout},
		"in lockout, none here": {nil, old, func(m *credtest.Machine, _ string) { m.PowerCuts() }, credential.ErrLockout},
		"nobody says why":       {other, old, func(m *credtest.Machine, _ string) { m.Stumbles = 1 }, ErrUnsure},
		"cannot be read":        {nil, old, func(_ *credtest.Machine, path string) { _ = os.Mkdir(path, 0o700) }, ErrUnsure},
		"truncated":             {old, old, func(_ *credtest.Machine, path string) { _ = os.Truncate(path, 40) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := &credtest.Machine{TPM: &credtest.TPM{Firmware: true}}
			s := SystemdStore{Run: m.Run, How: func() (string, error) { return config.SealAuto, nil }}
			path := filepath.Join(t.TempDir(), "master-key")
			var before []byte
			if c.here != nil {
				if err := s.Seal(t.Context(), path, marshal(t, c.here)); err != nil {
					t.Fatal(err)
				}
			}
			if c.then != nil {
				c.then(m, path)
			}
			before, _ = os.ReadFile(path)
			err := Import(t.Context(), s, path, c.given)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if after, _ := os.ReadFile(path); c.want != nil && string(after) != string(before) {
				t.Error("what was there was replaced")
			}
			if c.want != nil {
				return
			}
			plain, err := s.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if k, err := ParseKeyset(plain); err != nil || k.Fingerprint() != c.given.Fingerprint() {
				t.Errorf("%v, %v", k, err)
			}
		})
	}
}
