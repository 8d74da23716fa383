package steps

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// machineSteps are all but those that speak to Vault, which need a real one.
func machineSteps(e *Env) []engine.Step {
	var out []engine.Step
	for _, s := range All(e) {
		switch s.(type) {
		case initialise, vaultSetup, jobs:
		default:
			out = append(out, s)
		}
	}
	return out
}

func TestInstallTwice(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for p, want := range map[string]string{
		machine.VaultProgram:                                      "0755 0:0",
		"/usr/local/bin/strongroom":                               "0755 0:0",
		machine.PluginDir + "/vault-plugin-secrets-apikeys-1.2.3": "0755 0:0",
		machine.MasterKeyFile:                                     "0600 0:0",
		machine.MasterKeyEscrow:                                   "0600 0:0",
		machine.VaultHCL:                                          fmt.Sprintf("0640 0:%d", v.Groups[machine.UserVault].GID),
		machine.FrontTOML:                                         fmt.Sprintf("0640 0:%d", v.Groups[machine.UserFront].GID),
		machine.TLSDir:                                            "0700 0:0",
		machine.TLSDir + "/server.key":                            "0600 0:0",
	} {
		n, ok := v.Files[p]
		if !ok || n.Attr.String() != want {
			t.Errorf("%s: %+v, want %s", p, n, want)
		}
	}
	if fstab := string(v.Files[fstab].Data); strings.Contains(fstab, "\n/swapfile") || !strings.Contains(fstab, "/dev/sda1 / ext4") {
		t.Errorf("fstab:\n%s", fstab)
	}
	for _, name := range (services{v.env()}).running() {
		if u := v.Units[name]; u.Active != "active" || u.Enabled != "enabled" {
			t.Errorf("%s: %+v", name, *u)
		}
	}
	if !strings.Contains(v.nft, "table inet strongroom") || v.Units[machine.UnitFirewall].Enabled != "enabled" {
		t.Error("no firewall")
	}
	if u := v.Units[machine.UnitFirewallRollback+".timer"]; u.Active == "active" {
		t.Error("the rollback is still armed")
	}
	v.checkMasterKey(t)

	// The second run and a plan change nothing.
	reads := v.countReads(t)
	before, actions := v.state(), v.Actions
	out.Reset()
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := v.Actions - actions; n != reads {
		t.Errorf("the second run made %d actions; %d are commands that only look", n, reads)
	}
	if !strings.Contains(out.String(), "Nothing to change") || !maps.Equal(before, v.state()) {
		t.Errorf("the second run changed something:\n%s", out.String())
	}
}

// countReads is how many actions a plan makes: `systemctl --version` and the
// like count as actions, though they change nothing.
func (v *vps) countReads(t *testing.T) int {
	t.Helper()
	before := v.Actions
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Plan(t.Context()); err != nil {
		t.Fatalf("plan after install: %v\n%s", err, out.String())
	}
	return v.Actions - before
}

func TestEveryActionFails(t *testing.T) {
	ref := newVPS(t)
	var out bytes.Buffer
	if _, err := ref.engine(ref.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := ref.state()
	total := ref.Actions
	t.Logf("%d actions", total)
	for _, after := range []bool{false, true} {
		for n := 1; n <= total; n++ {
			v := newVPS(t)
			v.FailAt, v.AfterEffect = n, after
			name := fmt.Sprintf("action %d after=%v", n, after)
			var out bytes.Buffer
			_, err := v.engine(v.env(), &out).Install(t.Context())
			if err == nil {
				t.Errorf("%s: the fault went unnoticed", name)
				continue
			}
			key := v.keyIfAny(t)
			if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
				t.Errorf("%s: second run: %v\n%s", name, err, out.String())
				continue
			}
			if got := v.state(); !maps.Equal(got, want) {
				for k := range want {
					if got[k] != want[k] {
						t.Errorf("%s: %s: %.200s, want %.200s", name, k, got[k], want[k])
					}
				}
				for k := range got {
					if _, ok := want[k]; !ok {
						t.Errorf("%s: %s is left behind", name, k)
					}
				}
			}
			if got := v.checkMasterKey(t); key != "" && got.Fingerprint() != key {
				t.Errorf("%s: the master key was made anew", name)
			}
		}
	}
}

func TestPlanOnAFreshMachine(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	var out bytes.Buffer
	eng := engine.Engine{Steps: All(e), Out: &out, Now: e.Host.Now}
	before := v.state()
	_, err := eng.Plan(t.Context())
	if !errors.Is(err, engine.ErrDiffers) {
		t.Errorf("error = %v", err)
	}
	if !maps.Equal(before, v.state()) {
		t.Error("plan changed something")
	}
	for _, want := range []string{"+ user vault", "+ master key: new", "+ " + machine.VaultHCL, "+ " + machine.NftablesConf, "+ Vault: initialised, 3 of 5"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("plan lacks %q:\n%s", want, out.String())
		}
	}
}
