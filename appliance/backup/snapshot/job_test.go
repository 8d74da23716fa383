package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"io"
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
		"that does not end":    {ready, "end", nil, "canary-login canary-write canary-end login end", true, true, false},
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
			if (j.LoginLeft != nil) != (tc.fails == "end") {
				t.Errorf("the login: %v", j.LoginLeft)
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

// Another try is for those that have nothing yet and may do better; what is not tried
// again is told in the end all the same.
func TestJobTriesAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		first, second map[string]error // of the places b and c; a is well
		files         error
		again         string // the places that the second run serves; empty: there is none
		lasting       error
	}{
		"one out of reach":                {map[string]error{"b": ErrUnreachable}, nil, nil, "b", nil},
		"one out of reach, one full":      {map[string]error{"b": ErrUnreachable, "c": ErrFull}, nil, nil, "b", ErrFull},
		"both out of reach, then full":    {map[string]error{"b": ErrUnreachable, "c": ErrUnreachable}, map[string]error{"c": ErrFull}, nil, "b c", ErrFull},
		"one full":                        {map[string]error{"c": ErrFull}, nil, nil, "", ErrFull},
		"without files":                   {nil, nil, errDisk, "", errDisk},
		"without files, and out of reach": {map[string]error{"c": ErrUnreachable}, nil, errDisk, "c", errDisk},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, c := newMem("a"), &failing{mem: newMem("b"), n: 1, forever: true}, &failing{mem: newMem("c"), n: 1, forever: true}
			raw := bytesSource(buildArchive(t, archiveSpec{}))
			runs := 0
			j := Job{
				TakeOptions: takeOptions(t, newKeys(t), nil, a, b, c),
				From:        vaultFake{bytesSource: raw, health: vaultapi.Health{Initialized: true, ClusterID: testCluster}},
				Login:       func(context.Context) (End, error) { return func(context.Context) error { return nil }, nil },
				CanaryLogin: func(context.Context) (Writer, End, error) { return nil, nil, nil },
			}
			if tc.files != nil {
				j.Files = func(context.Context, io.Writer) error {
					if runs == 1 {
						return tc.files
					}
					return nil
				}
			}
			run := func(faults map[string]error) error {
				runs++
				b.err, c.err = faults["b"], faults["c"]
				b.n, b.calls, c.n, c.calls = 1, 0, 1, 0
				if b.err == nil {
					b.n = 1 << 30
				}
				if c.err == nil {
					c.n = 1 << 30
				}
				_, err := j.Run(t.Context())
				return err
			}
			err := run(tc.first)
			if again := MayPass(err); err == nil || again != (tc.again != "") {
				t.Fatalf("another try: %t, after %v", again, err)
			}
			if tc.again != "" {
				var served []string
				for _, d := range j.Destinations {
					served = append(served, d.Name())
				}
				if got := strings.Join(served, " "); got != tc.again {
					t.Fatalf("the second run serves %q, want %q", got, tc.again)
				}
				err = run(tc.second)
			}
			if err = errors.Join(err, j.Lasting); tc.lasting == nil && err != nil || !errors.Is(err, tc.lasting) {
				t.Errorf("in the end %v, want %v", err, tc.lasting)
			}
			if all, err := List(t.Context(), a, ""); err != nil || len(all) != 1 {
				t.Errorf("the place that was well holds %d, %v", len(all), err)
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
