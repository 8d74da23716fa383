package steps

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// list writes a file on the machine and into the list of the last run.
func (v *vps) list(t *testing.T, file, content string, listed bool) {
	t.Helper()
	v.Files[file] = &host.Node{Info: host.Info{Attr: root(0o644), ModTime: v.Clock}, Data: []byte(content)}
	m, err := ReadManifest(v.Host())
	if err != nil || m == nil {
		t.Fatal(m, err)
	}
	sum, err := v.Host().Sum(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(file, machine.CredentialDir) {
		sum = "" // of which only mode and owner are known
	}
	if listed {
		m.Files = append(m.Files, ManifestFile{Path: file, SHA256: sum, Mode: "0644"})
	}
	b, err := statefile.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	v.Files[machine.ManifestFile].Data = b
}

// What the list of the last run has and nobody wants any more goes: only that, and only
// as it was left. A second run finds nothing to do.
func TestLeftoversGo(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	run := func(e *Env) {
		t.Helper()
		out.Reset()
		if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
	}
	run(v.env())
	const (
		unit     = machine.UnitDir + "/strongroom-former.service"
		dropIn   = machine.UnitDir + "/strongroom-kms.service.d/former.conf"
		config   = machine.Etc + "/former.toml"
		changed  = machine.Etc + "/changed.toml"
		foreign  = machine.Etc + "/foreign.toml"
		webhook  = machine.CredentialDir + "/" + machine.CredAlertWebhook
		newKey   = machine.CredentialDir + "/former-signing-key"
		state    = machine.StateDir + "/verify/verified.json"
		escrow   = machine.EscrowDir + "/admin.age"
		storage  = machine.RaftDir + "/vault.db"
		neighbor = machine.UnitDir + "/strongroom-mine.service"
	)
	for file, listed := range map[string]bool{unit: true, dropIn: true, config: true, changed: true, foreign: false, webhook: true, newKey: true,
		state: true, escrow: true, storage: true, neighbor: false} {
		v.list(t, file, "content of "+file, listed)
	}
	v.Files[changed].Data = []byte("the operator's")
	v.Units["strongroom-former.service"] = &host.Unit{Load: "loaded", Active: "active", Enabled: "enabled"}

	e := v.env()
	var plan bytes.Buffer
	if _, err := v.engine(e, &plan).Plan(t.Context()); err == nil {
		t.Error("plan finds no difference")
	}
	e = v.env()
	run(e)
	for _, file := range []string{unit, dropIn, config, changed, webhook, newKey} {
		if v.Files[file] != nil {
			t.Errorf("%s is still there", file)
		}
		if !strings.Contains(plan.String(), file) {
			t.Errorf("plan does not tell of %s:\n%s", file, plan.String())
		}
	}
	for _, file := range []string{foreign, state, escrow, storage, neighbor} {
		if v.Files[file] == nil {
			t.Errorf("%s is gone", file)
		}
	}
	if u := v.Units["strongroom-former.service"]; u.Active != "inactive" || u.Enabled != "disabled" {
		t.Errorf("the unit is %+v", *u)
	}
	kept := func(prefix, content string) {
		t.Helper()
		if !slices.ContainsFunc(slices.Collect(maps.Keys(v.Files)), func(p string) bool {
			return strings.HasPrefix(p, prefix) && string(v.Files[p].Data) == content
		}) {
			t.Errorf("nothing is kept at %s…", prefix)
		}
	}
	kept(changed+machine.Aside, "the operator's")
	kept(machine.RetiredDir+"/former-signing-key-", "content of "+newKey)
	if got := strings.Join(e.Notes, "\n"); !strings.Contains(got, changed) || !strings.Contains(got, "former-signing-key") || strings.Contains(got, unit) {
		t.Errorf("the operator is told:\n%s", got)
	}
	run(v.env())
	if !strings.Contains(out.String(), "Nothing to change") {
		t.Errorf("the second run:\n%s", out.String())
	}
}

// What is no longer wanted stays while nobody can say that it is ours: without a list,
// with one that can't be read or is a newer version's, and while an upgrade may go back.
func TestLeftoversStay(t *testing.T) {
	const file = machine.Etc + "/former.toml"
	for name, spoil := range map[string]func(*vps, *Env){
		"no list": func(v *vps, _ *Env) { delete(v.Files, machine.ManifestFile) },
		"a damaged list": func(v *vps, _ *Env) {
			v.Files[machine.ManifestFile].Data = []byte(`{"format":1,"files":[{"path":"` + file)
		},
		"of another format": func(v *vps, _ *Env) {
			v.Files[machine.ManifestFile].Data = bytes.Replace(v.Files[machine.ManifestFile].Data, []byte(`"format": 1`), []byte(`"format": 9`), 1)
		},
		"of a newer version": func(_ *vps, e *Env) { e.Version = "1.2.2" },
		"during an upgrade":  func(_ *vps, e *Env) { e.Upgrading = true },
		"no list's own entry": func(v *vps, _ *Env) {
			v.Files[machine.ManifestFile].Data = bytes.ReplaceAll(v.Files[machine.ManifestFile].Data, []byte(file), []byte("/etc/other"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			var out bytes.Buffer
			if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
				t.Fatal(err)
			}
			v.list(t, file, "former", true)
			e := v.env()
			spoil(v, e)
			if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if v.Files[file] == nil {
				t.Error("it is gone")
			}
			if name != "during an upgrade" {
				return
			}
			var plan bytes.Buffer
			if _, err := v.engine(e, &plan).Plan(t.Context()); !errors.Is(err, engine.ErrDiffers) || !strings.Contains(plan.String(), file) {
				t.Errorf("the plan of an upgrade does not tell of it: %v\n%s", err, plan.String())
			}
			// Once all is well it goes.
			e.Upgrading = false
			if err := v.engine(e, &out).Only(t.Context(), Tidy()...); err != nil {
				t.Fatal(err)
			}
			if v.Files[file] != nil {
				t.Error("after the upgrade it is still there")
			}
		})
	}
}

// A setting that goes takes what it had put on the machine with it, secrets first.
func TestSettingsGoWithWhatTheyMade(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	run := func(e *Env) {
		t.Helper()
		out.Reset()
		if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
	}
	with := func() *Env {
		e := v.env()
		e.Config.Alert.WebhookFile = "/root/webhook"
		ownCertificate("vault.example.com", time.Hour)(v, e)
		e.Given = SealSecrets(&e.Config, "")
		return e
	}
	v.Files["/root/webhook"] = &host.Node{Data: []byte("https://hooks.example.com/T0\n")}
	run(v.env())
	before := v.state()
	run(with())
	v.Files[machine.FrontPEM] = &host.Node{Data: []byte("certificate and key")} // as its job does
	v.Units[machine.UnitFrontCertificate].Active = "failed"
	if v.Files[machine.CredentialFile(machine.CredAlertWebhook)] == nil {
		t.Fatal("the webhook is not sealed")
	}
	run(v.env())
	delete(v.Files, "/root/webhook")
	for what, is := range v.state() {
		was, there := before[what]
		if strings.HasPrefix(what, "/root/") || strings.HasPrefix(what, machine.UnitDir) && strings.HasSuffix(what, ".d") {
			continue // what the test put there, and empty folders of drop-ins
		}
		if !there {
			t.Errorf("%s is left", what)
		} else if is != was {
			t.Errorf("%s is %s, and was %s", what, is, was)
		}
	}
}

// firewall.manage = false leaves nothing of ours in force, and there and back ends as before.
func TestFirewallIsLeft(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	run := func(manage bool) {
		t.Helper()
		e := v.env()
		e.Config.Firewall.Manage = manage
		if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
	}
	run(true)
	before := v.state()
	run(false)
	if v.nft != "" || v.Files[machine.NftablesConf] != nil || v.Files[machine.DropInPath(machine.UnitNftables, "strongroom")] != nil {
		t.Errorf("in force: %q; the file: %v", v.nft, v.Files[machine.NftablesConf])
	}
	if u := v.Units[machine.UnitFirewall]; u.Active != "inactive" || u.Enabled != "disabled" {
		t.Errorf("its unit: %+v", *u)
	}
	run(true)
	if after := v.state(); !maps.Equal(before, after) {
		for k := range before {
			if before[k] != after[k] {
				t.Errorf("%s is %s, and was %s", k, after[k], before[k])
			}
		}
	}
}

// Each kind of credential is known: the operator's go, and those that were made here stay.
func TestCredentialsAreKnown(t *testing.T) {
	e := newVPS(t).env()
	e.Config.Backup.To = []config.BackupTo{{Type: config.BackupS3, Credentials: machine.CredS3 + "-2"}}
	for name := range e.wantedCredentials() {
		key := slices.Contains([]string{machine.CredMasterKey, machine.CredDrillKey, machine.CredDrillSigningKey, machine.CredSnapshotSigningKey}, strings.TrimSuffix(name, machine.NextCredential))
		if operatorsCredential(name) == key {
			t.Errorf("%s: the operator's %t, made here %t", name, operatorsCredential(name), key)
		}
	}
}
