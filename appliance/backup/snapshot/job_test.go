package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi"
)

// vaultFake is a Vault in one state.
type vaultFake struct {
	bytesSource
	health vaultapi.Health
	err    error
}

func (v vaultFake) Health(context.Context) (*vaultapi.Health, error) { return &v.health, v.err }

// Each step comes after the one before, what was opened is ended, and a canary
// that fails keeps no snapshot from being taken.
func TestJob(t *testing.T) {
	broken := errors.New("broken")
	ready := vaultapi.Health{Initialized: true, ClusterID: "c", ClusterName: "n", Version: "1.21.1"}
	for name, tc := range map[string]struct {
		health          vaultapi.Health
		fails           string // the step that does
		is              error
		did             string
		taken, canaried bool
		canaryFails     bool
	}{
		"well":                 {ready, "", nil, "canary-login canary-write canary-end login end", true, true, false},
		"no answer":            {ready, "health", broken, "", false, false, false},
		"not initialised":      {vaultapi.Health{Sealed: true}, "", ErrUninitialised, "", false, false, false},
		"sealed":               {vaultapi.Health{Initialized: true, Sealed: true}, "", ErrSealed, "", false, false, false},
		"standby":              {vaultapi.Health{Initialized: true, Standby: true}, "", ErrStandby, "", false, false, false},
		"no canary's login":    {ready, "no-canary", nil, "canary-login login end", true, false, false},
		"a refused one":        {ready, "canary-login", nil, "canary-login login end", true, false, true},
		"no canary is written": {ready, "canary-write", nil, "canary-login canary-write canary-end login end", true, false, true},
		"it does not end":      {ready, "canary-end", nil, "canary-login canary-write canary-end login end", true, true, true},
		"no login":             {ready, "login", broken, "canary-login canary-write canary-end login", false, true, false},
		"that does not end":    {ready, "end", broken, "canary-login canary-write canary-end login end", true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			var did []string
			do := func(step string) error {
				did = append(did, step)
				if step == tc.fails {
					return broken
				}
				return nil
			}
			ends := func(step string) End { return func(context.Context) error { return do(step) } }
			v := vaultFake{bytesSource: buildArchive(t, archiveSpec{}), health: tc.health}
			if tc.fails == "health" {
				v.err = broken
			}
			j := Job{
				TakeOptions: takeOptions(t, newKeys(t), nil, newMem("one")),
				From:        v, Host: "box",
				Login: func(context.Context) (End, error) { return ends("end"), do("login") },
				CanaryLogin: func(context.Context) (Writer, End, error) {
					err := do("canary-login")
					if tc.fails == "no-canary" || err != nil {
						return nil, nil, err
					}
					return writerFunc(func() (vaultapi.Data, error) { return versionAnswer(json.Number("7")), do("canary-write") }), ends("canary-end"), nil
				},
			}
			taken, err := j.Run(t.Context())
			if !errors.Is(err, tc.is) || (err == nil) != (tc.is == nil) {
				t.Errorf("error %v, want %v", err, tc.is)
			}
			if got := strings.Join(did, " "); got != tc.did {
				t.Errorf("did %q, want %q", got, tc.did)
			}
			if (len(taken.Held) == 1) != tc.taken || (j.CanaryFailure != nil) != tc.canaryFails || (j.Canary != nil) != tc.canaried {
				t.Errorf("held %q, canary %v, failure %v", taken.Held, j.Canary, j.CanaryFailure)
			}
			if !tc.taken {
				return
			}
			if m := taken.Manifest; m.ClusterID != "c" || m.ClusterName != "n" || m.VaultVersion != "1.21.1" || (m.Canary != nil) != tc.canaried {
				t.Errorf("manifest %+v", m)
			}
			if s, err := LoadTakeState(j.StateDir); err != nil || (s.CanaryFailure != nil) != tc.canaryFails {
				t.Errorf("state %+v, %v", s, err)
			}
		})
	}
}

type writerFunc func() (vaultapi.Data, error)

func (f writerFunc) Write(context.Context, string, map[string]any) (vaultapi.Data, error) { return f() }

// The drill's key is a recipient wherever it is installed, once, and never the
// only one.
func TestReaders(t *testing.T) {
	key := func() string {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		return id.Recipient().String()
	}
	own, operator := key(), key()
	file, damaged := filepath.Join(t.TempDir(), "drill-key.pub"), filepath.Join(t.TempDir(), "drill-key.pub")
	for path, text := range map[string]string{file: own, damaged: "not a key"} {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		given []string
		drill string
		want  []string
		says  string
	}{
		"installed":      {[]string{operator}, file, []string{operator, own}, ""},
		"named already":  {[]string{operator, own}, file, []string{operator, own}, ""},
		"not installed":  {[]string{operator}, file + ".none", []string{operator}, ""},
		"turned off":     {[]string{operator}, "", []string{operator}, ""},
		"damaged":        {[]string{operator}, damaged, nil, "the drill's key"},
		"nobody else":    {nil, file, nil, "nobody could ever read it"},
		"a bad operator": {[]string{"age1x"}, file, nil, "age1x"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Readers(tc.given, tc.drill)
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("error %v, want %q", err, tc.says)
			}
			var want []string
			for _, w := range tc.want {
				rs, err := Readers([]string{w}, "")
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, rs[0].Fingerprint)
			}
			var have []string
			for _, r := range got {
				have = append(have, r.Fingerprint)
			}
			if !slices.Equal(have, want) {
				t.Errorf("%q, want %q", have, want)
			}
		})
	}
}
