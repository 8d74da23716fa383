package recover

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
)

func TestWanted(t *testing.T) {
	for name, want := range map[string]bool{
		"var/lib/strongroom-front/certificates/x.crt": true,
		"var/lib/strongroom-front":                    false,
		"var/lib/strongroom-front-other/x":            false,
		"etc/strongroom/apps.toml":                    true,
		"etc/strongroom/vault.hcl":                    false,
		"etc/strongroom/front.toml":                   false,
		"etc/strongroom/installed.json":               false, // what is on this machine, not on that one
		"etc/strongroom/nftables.conf":                false, // in force only once confirmed
		"etc/strongroom/nftables.conf.new":            false,
		"etc/strongroom/appliance.toml":               false, // the steps write it
		"etc/strongroom/epoch.json":                   false, // never the old machine's
		"etc/strongroom/credentials/master-key":       false, // opens on its own machine only
		"etc/strongroom/tls/server.key":               false,
		"etc/strongroom/drill-key.pub":                false,
		"etc/passwd":                                  false,
		"root/.ssh/authorized_keys":                   false,
	} {
		if got := wanted(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// memoryMachine is one in memory, whose systemd-creds hides what it is given.
func memoryMachine(t *testing.T) *host.Memory {
	t.Helper()
	m := host.NewMemory()
	creds := &credtest.Machine{}
	m.Commands["systemd-creds"] = func(c host.Command, stdin []byte) (host.Output, error) {
		out, err := creds.Run(t.Context(), stdin, c.Args[1:]...)
		if err != nil {
			err = &host.ExitError{Command: c.String(), Code: 1, Stderr: err.Error()}
		}
		return host.Output{Stdout: out}, err
	}
	h := m.Host()
	for _, dir := range []string{"/etc", "/etc/strongroom", machine.CredentialDir, "/var", "/var/lib", machine.StateDir, machine.EscrowDir} {
		if err := h.Mkdir(dir, host.Attr{Mode: 0o700}); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func bench(t *testing.T, m *host.Memory) (*steps.Env, *Found, *Opened) {
	t.Helper()
	d, err := snapshot.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	found := &Found{Choice: restore.Choice{Destination: d, Manifest: snapshot.Manifest{ID: "c/20261124T151500Z-1a2b3c4d", ClusterID: "c", TakenAt: m.Clock.Add(-time.Hour)}}}
	id := identity(t)
	k, plain := masterKey(t)
	o := &Opened{MasterKey: k, Shares: []string{canary}, Keyring: &signing.Keyring{}}
	o.Keyring.Use(snapshot.RoleTaker, "lost", bytes.Repeat([]byte{1}, ed25519.PublicKeySize), m.Clock)
	for name, text := range map[string][]byte{masterKeyFile: plain, adminFile: []byte(adminNote)} {
		sealed, err := escrow.Seal(text, id.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		o.Files = append(o.Files, File{Name: name, Sealed: sealed, Plain: text})
	}
	o.Files = append(o.Files, File{Name: "recovery-keys-2.age", Sealed: []byte("another's"), Checks: []byte("{}")})
	cfg := config.Default()
	cfg.Domain, cfg.TLS.Mode = "vault.example.com", config.TLSInternal
	return &steps.Env{Host: m.Host(), Config: cfg, Rand: rand.NewChaCha8([32]byte{7}), Recipients: []age.Recipient{id.Recipient()}}, found, o
}

func TestBegin(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*host.Memory, *steps.Env, *Opened, **State)
		want   string // "": it begins
	}{
		{"a fresh machine", func(*host.Memory, *steps.Env, *Opened, **State) {}, ""},
		{"a Vault's master key is there", func(m *host.Memory, e *steps.Env, _ *Opened, _ **State) {
			if err := e.Host.Write(machine.MasterKeyFile, strings.NewReader("x"), host.Attr{Mode: 0o600}); err != nil {
				t.Fatal(err)
			}
		}, "a Vault on this machine already"},
		{"the same, of this recovery", func(m *host.Memory, e *steps.Env, _ *Opened, s **State) {
			if err := e.Host.Write(machine.MasterKeyFile, strings.NewReader("x"), host.Attr{Mode: 0o600}); err != nil {
				t.Fatal(err)
			}
			*s = &State{Format: stateFormat, ID: "c/x", Began: m.Clock}
		}, ""},
		{"no way in", func(_ *host.Memory, _ *steps.Env, o *Opened, _ **State) { o.Shares = nil }, "neither recovery keys"},
		{"a token is a way in", func(_ *host.Memory, e *steps.Env, o *Opened, _ **State) { o.Shares, e.AdminToken = nil, canary }, ""},
		{"a password is a way in", func(_ *host.Memory, _ *steps.Env, o *Opened, _ **State) {
			o.Shares, o.Admins = nil, []access.Person{{Password: canary}}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := memoryMachine(t)
			e, found, o := bench(t, m)
			var s *State
			c.change(m, e, o, &s)
			_, err := Begin(e, s, found, o)
			var failed *fault.Error
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &failed) || failed.Code != fault.Operator || failed.Hint == ""):
				t.Errorf("got %v, want %q and what to do", err, c.want)
			}
		})
	}
}

func TestStepsAreAmongThoseOfAnInstallation(t *testing.T) {
	m := memoryMachine(t)
	e, found, o := bench(t, m)
	r, err := Begin(e, nil, found, o)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.Steps()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range all {
		ids = append(ids, s.ID())
	}
	if got, want := len(ids), len(steps.All(e))+7; got != want {
		t.Errorf("%d steps, want %d: %q", got, want, ids)
	}
	// What must come before what.
	for _, pair := range [][2]string{
		{"folders", "recover-files"}, {"recover-files", "services"}, {"recover-master-key", "master-key"}, {"services", "recover-vault"},
		{"firewall", "recover-keys"}, {"recover-vault", "recover-snapshot"}, {"recover-snapshot", "recover-token"}, {"recover-token", "recover-keys"},
		{"recover-keys", "initialise"}, {"initialise", "vault-setup"}, {"jobs", "root-token"}, {"root-token", "recover-end"}, {"recover-end", "timers"},
	} {
		if a, b := slices.Index(ids, pair[0]), slices.Index(ids, pair[1]); a < 0 || b < 0 || a > b {
			t.Errorf("%s (%d) is not before %s (%d)", pair[0], a, pair[1], b)
		}
	}
}

// The nth action fails, before or after its effect, for every n: the next run
// ends the same, and the master key is the escrow's.
func TestMasterKeyIsPutBack(t *testing.T) {
	for n := 1; ; n++ {
		for _, after := range []bool{false, true} {
			m := memoryMachine(t)
			e, found, o := bench(t, m)
			r, err := Begin(e, nil, found, o)
			if err != nil {
				t.Fatal(err)
			}
			m.Actions, m.FailAt, m.AfterEffect = 0, n, after
			first := runSteps(t.Context(), filesStep{r}, keyStep{r})
			m.FailAt = 0
			if first != nil && !errors.Is(first, host.ErrInjected) {
				t.Fatal(first)
			}
			if err := runSteps(t.Context(), filesStep{r}, keyStep{r}); err != nil {
				t.Fatalf("after a fault at %d: %v", n, err)
			}
			checkPutBack(t, m, o)
			if first == nil {
				if n < 8 {
					t.Fatalf("only %d actions", n-1)
				}
				return
			}
		}
	}
}

func runSteps(ctx context.Context, all ...engine.Step) error {
	for _, s := range all {
		diff, err := s.Check(ctx)
		if err != nil {
			return err
		}
		for _, c := range diff {
			if err := c.Apply(ctx); err != nil {
				return err
			}
		}
		if diff, err := s.Check(ctx); err != nil || len(diff) > 0 {
			return errors.Join(err, errors.New(s.ID()+" is not content with itself"))
		}
	}
	return nil
}

func checkPutBack(t *testing.T, m *host.Memory, o *Opened) {
	t.Helper()
	if ring, err := signing.ParseKeyring(m.Files[machine.KeyringEscrow].Data); err != nil || len(ring.Keys) != 1 {
		t.Errorf("the keyring: %v", err)
	}
	plain, err := credential.Unseal(t.Context(), (&credtest.Machine{}).Run, machine.CredMasterKey, m.Files[machine.MasterKeyFile].Data)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := kms.ParseKeyset(plain); err != nil || k.Fingerprint() != o.MasterKey.Fingerprint() {
		t.Errorf("sealed: %v", err)
	}
	for _, f := range o.Files {
		if got := m.Files[machine.EscrowDir+"/"+f.Name]; got == nil || !bytes.Equal(got.Data, f.Sealed) || got.Mode != 0o600 {
			t.Errorf("%s is not as given", f.Name)
		}
	}
	others := m.Files[machine.EscrowDir+"/"+escrow.ChecksName("recovery-keys-2.age", []byte("another's"))]
	if others == nil || string(others.Data) != "{}" {
		t.Error("the challenges for what did not open are not as they came")
	}
	for path, f := range m.Files {
		if bytes.Contains(f.Data, []byte(canary)) {
			t.Errorf("%s holds a secret in clear", path)
		}
	}
	for _, call := range m.Calls {
		if strings.Contains(call, canary) || strings.Contains(call, "BEGIN") {
			t.Errorf("a secret in a command line: %s", call)
		}
	}
}

func TestState(t *testing.T) {
	m := memoryMachine(t)
	h := m.Host()
	if s, err := LoadState(h); s != nil || err != nil {
		t.Errorf("none: %+v, %v", s, err)
	}
	s := &State{Format: stateFormat, ID: "c/x", Began: m.Clock, TakenAt: m.Clock.Add(-90 * time.Second), Finished: m.Clock.Add(13 * time.Second),
		Engines: []restore.Reconciled{{Mount: "apikeys/", Keys: 3, Checked: 2, Problems: map[string]string{"a/b": "unreachable"}}}}
	if err := s.save(h); err != nil {
		t.Fatal(err)
	}
	back, err := LoadState(h)
	if err != nil || back.ID != s.ID || !back.Finished.Equal(s.Finished) {
		t.Fatalf("%+v, %v", back, err)
	}
	var out bytes.Buffer
	back.Summary(&out)
	for _, want := range []string{"at most the 1m30s", "finished Vault: 13s", "a/b: unreachable", "vault write -f apikeys/reconcile"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, out.String())
		}
	}
	var failed *fault.Error
	if err := back.Err(); !errors.As(err, &failed) || failed.Code != fault.Operator || !errors.Is(err, restore.ErrProblems) {
		t.Errorf("an engine is fenced: %v", err)
	}
	for _, bad := range []string{"{", `{"format":2,"id":"c/x","began":"2026-11-24T00:00:00Z"}`, `{"format":1}`} {
		if err := h.Write(StatePath, strings.NewReader(bad), host.Attr{Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if s, err := LoadState(h); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %+v, %v", bad, s, err)
		}
	}
}

// What is no state of a recovery is not none: the recovery would begin anew over what
// it has half done.
func TestLoadState(t *testing.T) {
	const whole = `{"format":1,"id":"c/x","began":"2026-11-24T12:00:00Z"}`
	for _, tt := range []struct {
		name, text string
		corrupt    bool
	}{
		{"whole", whole, false},
		{"cut off", whole[:20], true}, {"empty", "", true}, {"no object", "[]", true},
		{"of a later format", strings.Replace(whole, "1", "2", 1), true}, {"of no format", `{"id":"c/x","began":"2026-11-24T12:00:00Z"}`, true},
		{"of no snapshot", `{"format":1,"began":"2026-11-24T12:00:00Z"}`, true}, {"of no beginning", `{"format":1,"id":"c/x"}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := host.NewMemory()
			m.Files[StatePath] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o600}}, Data: []byte(tt.text)}
			s, err := LoadState(m)
			if tt.corrupt != errors.Is(err, statefile.ErrCorrupt) || tt.corrupt == (s != nil) || !tt.corrupt && err != nil {
				t.Errorf("%+v, %v", s, err)
			}
			if err := Unfinished(m); err == nil {
				t.Error("nothing is unfinished")
			}
		})
	}
	if s, err := LoadState(host.NewMemory()); s != nil || err != nil {
		t.Errorf("none: %+v, %v", s, err)
	}
	// What is written is what is read.
	m := host.NewMemory()
	m.Files["/var/lib/strongroom"] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o755}, Type: fs.ModeDir}}
	want := State{Format: stateFormat, ID: "c/x", Began: m.Clock.UTC(), From: "dir:/srv"}
	if err := want.save(m.Host()); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadState(m); err != nil || s.ID != want.ID || !s.Began.Equal(want.Began) || s.From != want.From {
		t.Errorf("%+v, %v", s, err)
	}
}

// An older installer's engine would misread what a newer one has written.
func TestBackupOfANewerVersion(t *testing.T) {
	for took, refused := range map[string]bool{"0.1.0": false, "1.0.0": false, "1.0.1": true, "2.0.0": true, "": false, "dev": false} {
		e, found, o := bench(t, memoryMachine(t))
		e.Version, found.Manifest.ToolVersion = "1.0.0", took
		_, err := Begin(e, nil, found, o)
		var failed *fault.Error
		if is := errors.As(err, &failed) && failed.Code == fault.Operator && strings.Contains(err.Error(), "version "+took+"'s"); is != refused {
			t.Errorf("a snapshot of %q: %v", took, err)
		}
	}
}
