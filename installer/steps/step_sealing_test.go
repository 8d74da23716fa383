package steps

import (
	"bytes"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// sealedVPS is a machine that an older version installed: systemd chose how.
func sealedVPS(t *testing.T, tpm *credtest.TPM) *vps {
	t.Helper()
	v := newVPS(t)
	v.creds.TPM = tpm
	if _, err := v.engine(v.env(), &bytes.Buffer{}).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A rotation of the master key is begun.
	next := *v.Files[machine.MasterKeyFile]
	v.Files[machine.MasterKeyFile+machine.NextCredential] = &next
	for _, name := range v.credentials() {
		plain := v.opened(t, name)
		sealed, err := v.creds.Run(t.Context(), plain, "encrypt", "--name="+strings.TrimSuffix(name, machine.NextCredential), "-", "-")
		if err != nil {
			t.Fatal(err)
		}
		v.Files[machine.CredentialFile(name)].Data = sealed
	}
	return v
}

func (v *vps) credentials() []string {
	var names []string
	for p := range v.Files {
		if name, ok := strings.CutPrefix(p, machine.CredentialDir+"/"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (v *vps) opened(t *testing.T, name string) []byte {
	t.Helper()
	plain, err := credential.Unseal(t.Context(), v.creds.Run, strings.TrimSuffix(name, machine.NextCredential), v.Files[machine.CredentialFile(name)].Data)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// sealedHow are the ways, by name.
func (v *vps) sealedHow() map[string]string {
	how := map[string]string{}
	for _, name := range v.credentials() {
		s, _ := credential.Inspect(v.Files[machine.CredentialFile(name)].Data)
		how[name] = s.String()
	}
	return how
}

// What an older version sealed to PCR 7 is sealed anew, opens as before, and
// opens after a Secure Boot update. Killed at each action it leaves each
// credential one that opens.
func TestResealed(t *testing.T) {
	tpm := func() *credtest.TPM { return &credtest.TPM{Firmware: true} }
	old := sealedVPS(t, tpm())
	if how := old.sealedHow(); len(how) < 3 || how[machine.CredMasterKey] != "by the host's key and the TPM (PCR 7)" {
		t.Fatalf("sealed %v", how)
	}
	want := map[string]string{}
	for _, name := range old.credentials() {
		want[name] = string(old.opened(t, name))
	}
	var plan bytes.Buffer
	if _, err := old.engine(old.env(), &plan).Plan(t.Context()); !errors.Is(err, engine.ErrDiffers) {
		t.Fatal(err)
	}
	if !strings.Contains(plan.String(), "by the host's key and the TPM (PCR 23)") {
		t.Errorf("the plan:\n%s", plan.String())
	}
	for n := 1; ; n++ {
		done := false
		for _, after := range []bool{false, true} {
			v := sealedVPS(t, tpm())
			step := sealing{v.env()}
			v.Actions, v.FailAt, v.AfterEffect = 0, n, after
			diff, err := step.Check(t.Context())
			for _, c := range diff {
				if err == nil {
					err = c.Apply(t.Context())
				}
			}
			v.FailAt = 0
			if err != nil && !errors.Is(err, host.ErrInjected) {
				t.Fatal(err)
			}
			done = err == nil
			for name, plain := range want {
				if name == machine.CredMasterKey || name == machine.CredDrillKey || name == machine.CredDrillSigningKey {
					if len(v.opened(t, name)) != len(plain) {
						t.Errorf("action %d: %s opens with another content", n, name)
					}
				}
			}
			before := map[string]string{}
			for _, name := range v.credentials() {
				before[name] = string(v.opened(t, name))
			}
			if _, err := v.engine(v.env(), &bytes.Buffer{}).Install(t.Context()); err != nil {
				t.Fatal(err)
			}
			v.creds.SecureBootUpdate()
			for name, plain := range before {
				if string(v.opened(t, name)) != plain {
					t.Errorf("action %d: %s has another content", n, name)
				}
			}
			for name, how := range v.sealedHow() {
				if how != "by the host's key and the TPM (PCR 23)" {
					t.Errorf("action %d: %s is sealed %s", n, name, how)
				}
			}
			if !slices.Equal(v.credentials(), slices.Sorted(maps.Keys(want))) {
				t.Errorf("action %d: credentials %q", n, v.credentials())
			}
		}
		if done {
			if n < 10 {
				t.Errorf("only %d actions", n-1)
			}
			return
		}
	}
}

// What cannot be opened any more, or not now, is told with what to do, and
// nothing is replaced.
func TestResealRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		then func(*credtest.Machine)
		err  error
		hint string
	}{
		"Secure Boot update":  {(*credtest.Machine).SecureBootUpdate, credential.ErrRefused, "again from the escrow"},
		"another TPM":         {(*credtest.Machine).OtherTPM, credential.ErrRefused, "again from the escrow"},
		"TPM taken out":       {(*credtest.Machine).NoTPM, credential.ErrTPMGone, "switch it on again"},
		"another host's key":  {(*credtest.Machine).OtherHostKey, credential.ErrHostKey, "again from the escrow"},
		"in lockout":          {(*credtest.Machine).PowerCuts, credential.ErrLockout, "ends by itself"},
		"one alone is broken": {nil, credential.ErrRefused, "again from the escrow"},
	} {
		t.Run(name, func(t *testing.T) {
			v := sealedVPS(t, &credtest.TPM{Firmware: true})
			if c.then == nil {
				n := v.Files[machine.CredentialFile(machine.CredDrillKey)]
				other := &credtest.Machine{TPM: &credtest.TPM{ID: 9, Firmware: true}}
				var err error
				if n.Data, err = other.Run(t.Context(), []byte("x"), "encrypt", "--name="+machine.CredDrillKey, "-", "-"); err != nil {
					t.Fatal(err)
				}
			} else {
				c.then(v.creds)
			}
			before := v.state()
			_, err := v.engine(v.env(), &bytes.Buffer{}).Install(t.Context())
			var f *fault.Error
			if !errors.Is(err, c.err) && name != "in lockout" || !errors.As(err, &f) || f.Code != fault.Operator {
				t.Fatalf("%v", err)
			}
			if said := f.Error() + f.Hint; !strings.Contains(said, c.hint) || !strings.Contains(said, c.err.Error()) {
				t.Errorf("%v\n→ %s", err, f.Hint)
			}
			if !maps.Equal(before, v.state()) {
				t.Error("something was replaced")
			}
		})
	}
}

// The setting decides: refused before anything is touched, changed and changed
// back, and a TPM that is not to be used is not asked.
func TestSealSetting(t *testing.T) {
	v := newVPS(t)
	fresh := v.state()
	e := v.env()
	e.Config.Unseal.Seal = config.SealTPM
	_, err := v.engine(e, &bytes.Buffer{}).Install(t.Context())
	var f *fault.Error
	if !errors.As(err, &f) || f.Code != fault.Operator || !strings.Contains(err.Error(), "no usable TPM2") || !strings.Contains(err.Error(), "seal = \"auto\"") {
		t.Fatalf("%v", err)
	}
	if !maps.Equal(fresh, v.state()) {
		t.Error("something was touched")
	}
	v.creds.TPM = &credtest.TPM{Firmware: true}
	for _, c := range []struct {
		setting string
		want    credential.Way
	}{{config.SealHost, credential.Host}, {config.SealAuto, credential.TPM}, {config.SealHost, credential.Host}, {config.SealTPM, credential.TPM}} {
		e := v.env()
		e.Config.Unseal.Seal = c.setting
		v.creds.Calls = nil
		if _, err := v.engine(e, &bytes.Buffer{}).Install(t.Context()); err != nil {
			t.Fatalf("%s: %v", c.setting, err)
		}
		for name, how := range v.sealedHow() {
			if how != c.want.String() {
				t.Errorf("%s: %s is sealed %s", c.setting, name, how)
			}
		}
		v.checkMasterKey(t)
		for _, call := range v.creds.Calls {
			if c.setting == config.SealHost && (call[0] == "has-tpm2" || strings.Contains(strings.Join(call, " "), "tpm2-")) {
				t.Errorf("the TPM is asked: %q", call)
			}
		}
	}
	// What this version does not know it leaves alone.
	strange := []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 90)))
	v.Files[machine.CredentialFile("of-a-newer-systemd")] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o600}}, Data: strange}
	if diff, err := (sealing{v.env()}).Check(t.Context()); err != nil || len(diff) > 0 {
		t.Errorf("%v, %v", diff, err)
	}
}

// After a TPM that is lost one command makes anew what it can; the master key
// alone comes from people, and is asked for first.
func TestRemakeCredentials(t *testing.T) {
	s3 := []byte("access_key = \"a\"\nsecret_key = \"b\"\n")
	w := newJobWorld(t)
	w.creds.TPM = &credtest.TPM{Firmware: true}
	w.Files["/root/s3"] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o600}}, Data: s3}
	env := func(remake bool) *Env {
		e := w.env()
		e.Config.Backup.To = []config.BackupTo{{Type: config.BackupS3, Credentials: machine.CredS3}}
		e.Given = map[string]string{machine.CredS3: "/root/s3"}
		e.Remake = remake
		return e
	}
	install := func(e *Env) error {
		eng := engine.Engine{Steps: []engine.Step{folders{e}, sealing{e}, masterKey{e}, jobKeys{e}, jobs{e}, rootToken{e}}, Out: &bytes.Buffer{}, Now: e.Host.Now}
		_, err := eng.Install(t.Context())
		return err
	}
	if err := install(env(false)); err != nil {
		t.Fatal(err)
	}
	key := w.opened(t, machine.CredMasterKey)
	w.creds.OtherTPM()
	lost := w.state()
	for _, c := range []struct {
		name string
		env  func() *Env
		err  error
	}{
		{"not asked to", func() *Env { return env(false) }, credential.ErrRefused},
		{"no master key", func() *Env { return env(true) }, credential.ErrRefused},
	} {
		if err := install(c.env()); !errors.Is(err, c.err) || !maps.Equal(lost, w.state()) {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	// As strongroom kms import does.
	if err := w.env().sealCredential(t.Context(), machine.CredMasterKey, machine.MasterKeyFile, key); err != nil {
		t.Fatal(err)
	}
	again := w.state()
	without := env(true)
	without.Given = nil
	if err := install(without); err == nil || !strings.Contains(err.Error(), machine.CredS3) || !maps.Equal(again, w.state()) {
		t.Fatalf("without the key pair: %v", err)
	}
	noLogin := env(true)
	if err := install(noLogin); !errors.Is(err, errNoWay) && !strings.Contains(err.Error(), "administrator") {
		t.Fatalf("without a login: %v", err)
	}
	admin := env(true)
	admin.AdminToken = "admin"
	if err := install(admin); err != nil {
		t.Fatal(err)
	}
	w.check(t, "remade")
	for _, name := range w.credentials() {
		w.opened(t, name)
	}
	if !bytes.Equal(w.opened(t, machine.CredMasterKey), key) || !bytes.Equal(w.opened(t, machine.CredS3), s3) {
		t.Error("another master key or key pair")
	}
	// Once more there is nothing to make, also not while the TPM is in lockout.
	done := w.state()
	if err := install(env(true)); err != nil || !maps.Equal(done, w.state()) {
		t.Errorf("again: %v", err)
	}
	w.creds.PowerCuts()
	if err := install(env(true)); !errors.Is(err, credential.ErrLockout) || !maps.Equal(done, w.state()) {
		t.Errorf("in lockout: %v", err)
	}
}
