package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill"
	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/cli"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// A backup that restores passes, with a signed report; the live Vault notices
// nothing, and no secret is anywhere.
func TestDrill(t *testing.T) {
	d := newDrillSite(t)
	before := engineCounters(t, vaulttest.API(d.s.Root))
	fill(t, d.s, 8, 500_000)
	d.backup(t)
	out := d.drill(t, cli.ExitOK)
	t.Log(out)
	r := d.report(t)
	for _, name := range []string{"snapshot", "isolation", "unseal", "approle", "canary", "cluster", "policies", "mounts", "auth", "engine"} {
		if got := verdictOf(r, name); got != report.Pass {
			t.Errorf("check %s: %q", name, got)
		}
	}
	// Nobody has recorded the escrow's key here.
	if got := verdictOf(r, "master key"); got != report.Note {
		t.Errorf("master key: %q", got)
	}
	if !r.Passed || r.RTOSeconds <= 0 || r.RPOSeconds <= 0 || r.Found.Keys != 1 || r.MasterKey != d.s.Keyset.Fingerprint() {
		t.Errorf("report %+v", r)
	}
	t.Logf("RTO %s, the goal is %s", r.RTO(), maxRTO)
	d.silent(t, out)
	if after := engineCounters(t, vaulttest.API(d.s.Root)); after != before {
		t.Errorf("the live engine's counters went from %s to %s", before, after)
	}
	t.Run("signature", func(t *testing.T) { reportSignature(t, d) })
	t.Run("not isolated", func(t *testing.T) { drillNotIsolated(t, d) })
	t.Run("faults", func(t *testing.T) { drillFaults(t, d) })
	t.Run("rehearsal", func(t *testing.T) { drillRehearsal(t, d) })
	t.Run("leases", func(t *testing.T) { drillLeases(t, d) })
}

// reportSignature: what was signed is good, wherever it is laid out anew, and
// nothing else is.
func reportSignature(t *testing.T, d *drillSite) {
	last := filepath.Join(d.state, "last.json")
	good := readText(t, last)
	out := mustRun(t, cli.ExitOK, "drill", "verify-report", "--key", d.signingPub, last)
	if !strings.Contains(out, "PASSED") || !strings.Contains(out, "signed by SHA256:") {
		t.Errorf("it said:\n%s", out)
	}
	for name, text := range map[string]string{
		"a verdict":       strings.Replace(good, `"passed": true`, `"passed": false`, 1),
		"a time":          strings.Replace(good, `"rpo_seconds": `, `"rpo_seconds": 1`, 1),
		"two reports":     strings.Replace(good, `{`, `{"report": {"format": 1, "passed": true},`, 1),
		"no signature":    good[:strings.Index(good, `"signature"`)] + `"signature": null}`,
		"not a report":    "{}",
		"something after": good + "{}",
	} {
		if text == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		bad := filepath.Join(d.dir, "bad.json")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { mustRun(t, cli.ExitDrift, "drill", "verify-report", "--key", d.signingPub, bad) })
	}
}

// drillNotIsolated: the half that the unit runs, where no unit cuts it off, starts
// nothing. A network namespace with an interface of its own plays the machine.
func drillNotIsolated(t *testing.T, d *drillSite) {
	d.drillVerb(t, cli.ExitOK, nil, "fetch", "--config", d.config, "--take-state", d.takeState, "--state", d.state)
	in := []string{"unshare", "--net", "sh", "-ec", "ip link set lo up; ip link add strongroom0 type veth peer name strongroom1; ip addr add 192.0.2.1/24 dev strongroom0; ip link set strongroom0 up; ip link set strongroom1 up; exec \"$@\"", "sh"}
	if out, err := exec.Command(in[0], append(in[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("no network namespace with an interface can be made here: %v: %s", err, out)
	}
	role := d.roles[config.PolicyDrill]
	args := []string{"run", "--state", d.state, "--identity", d.identity, "--key-file", d.masterKey, "--role-id-file", role[0],
		"--secret-id-file", role[1], "--signing-key", d.signing, "--vault", vaulttest.Bin(t, "vault"), "--plugin-dir", d.s.Layout.Plugins()}
	out := d.drillVerb(t, cli.ExitOperator, in, args...)
	if !strings.Contains(out, "not cut off: it has routes over strongroom0") || strings.Contains(out, "restored and unsealed") {
		t.Errorf("it said:\n%s", out)
	}
	d.nothingLeft(t)
	if r := d.report(t); r.Passed || len(r.Checks) > 3 {
		t.Errorf("report %+v", r)
	}
}

// drillFaults: each is told as what it is, and leaves nothing.
func drillFaults(t *testing.T, d *drillSite) {
	otherKey, nobody := filepath.Join(d.dir, "other-key"), filepath.Join(d.dir, "nobody")
	writeOtherKey(t, otherKey)
	if err := os.Mkdir(nobody, 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		args    []string
		code    int
		says    string
		fails   []string // checks
		prepare func(t *testing.T, d *drillSite)
	}{
		{name: "another age identity", code: cli.ExitOperator, says: "no identity opens this snapshot",
			prepare: func(t *testing.T, d *drillSite) { d.identity = newSite(t, d.s, "").identity }},
		{name: "another master key", args: []string{"--key-file", otherKey}, code: cli.ExitOperator, says: "another master key"},
		{name: "another cluster", args: []string{"--cluster", "00000000-0000-0000-0000-000000000000"}, code: cli.ExitDrift, says: "no snapshot"},
		{name: "another cluster's by name", args: []string{"--id", "other/20260101T000000Z-00000000"}, code: cli.ExitDrift, says: "not found"},
		{name: "no canary, no plugin, other policies", args: []string{"--plugin-dir", nobody}, code: cli.ExitDrift,
			says: "none was written before this snapshot", fails: []string{"canary", "engine", "policies"},
			prepare: func(t *testing.T, d *drillSite) {
				if err := vaulttest.API(d.s.Root).Sys().PutPolicyWithContext(t.Context(), config.PolicyDoctor, `path "x" { capabilities = ["read"] }`); err != nil {
					t.Fatal(err)
				}
				if out := d.take(t, d.s, cli.ExitOK); !strings.Contains(out, "note: no login for the canary") {
					t.Errorf("take said:\n%s", out)
				}
				d.verify(t, cli.ExitOK)
				if err := vaulttest.API(d.s.Root).Sys().PutPolicyWithContext(t.Context(), config.PolicyDoctor, config.Policies()[config.PolicyDoctor]); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "a damaged snapshot", args: []string{"--dir", d.disk}, code: cli.ExitDrift, says: "corrupt", prepare: damage},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			one := *d
			if tt.prepare != nil {
				tt.prepare(t, &one)
			}
			out := one.drill(t, tt.code, tt.args...)
			if !strings.Contains(out, tt.says) {
				t.Errorf("it did not say %q:\n%s", tt.says, out)
			}
			d.silent(t, out)
			r := d.report(t)
			if r.Passed {
				t.Error("the report says that it passed")
			}
			for _, name := range tt.fails {
				if got := verdictOf(r, name); got != report.Fail {
					t.Errorf("check %s: %q\n%s", name, got, out)
				}
			}
		})
	}
	// Whatever failed since, the last one that passed is still known.
	if r, err := drill.LastPassed(d.state); err != nil || r == nil || !r.Passed {
		t.Errorf("the last drill that passed: %+v, %v", r, err)
	}
}

// damage changes one bit in each snapshot on the disk.
func damage(t *testing.T, d *drillSite) {
	files, err := filepath.Glob(filepath.Join(d.disk, "*", "*.snap.age"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, f := range files {
		data := []byte(readText(t, f))
		data[len(data)/2] ^= 1
		if err := os.WriteFile(f, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// drillKilled: nothing outlives a killed drill, and the next one removes what
// it has left on the disk.
func drillKilled(t *testing.T, d *drillSite) {
	cmd := d.command(t.Context(), t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Into the middle: its Vault is there.
	deadline := time.After(vaulttest.Patience)
	for {
		if _, err := os.Stat(filepath.Join(d.state, "work", "vault", "run", "vault.sock")); err == nil {
			break
		}
		select {
		case <-deadline:
			t.Fatal("the scratch Vault has not come up")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	assertGone(t, d.state)
}

// A rehearsal goes on with a new Vault and a new plugin on the restored copy,
// after a drill that was killed; the live Vault keeps its own.
func drillRehearsal(t *testing.T, d *drillSite) {
	d.backup(t)
	t.Run("killed", func(t *testing.T) { drillKilled(t, d) })
	token := filepath.Join(d.dir, "admin-token")
	if err := os.WriteFile(token, []byte(d.s.RootToken), 0o600); err != nil {
		t.Fatal(err)
	}
	newVault, newPlugin := filepath.Join(d.dir, "vault-new"), filepath.Join(d.dir, "plugin-new")
	if err := os.Link(vaulttest.Bin(t, "vault"), newVault); err != nil {
		newVault = vaulttest.Bin(t, "vault") // another file system
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=9.8.7", "-o", newPlugin, "./plugin/cmd/vault-plugin-secrets-apikeys")
	build.Dir = vaulttest.Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	last := readText(t, filepath.Join(d.state, "last.json"))
	out := d.drill(t, cli.ExitOK, "--rehearse", "--vault-binary", newVault, "--plugin-binary", newPlugin, "--token-file", token)
	t.Log(out)
	d.silent(t, out)
	for _, want := range []string{"version v9.8.7 stands beside the old one and runs at apikeys/", "version v9.8.7 reads 1 keys; fenced", "opens the storage"} {
		if !strings.Contains(out, want) {
			t.Errorf("it did not say %q", want)
		}
	}
	if readText(t, filepath.Join(d.state, "last.json")) != last {
		t.Error("a rehearsal passes for a drill")
	}
	mounts, err := vaulttest.API(d.s.Root).Sys().ListMountsWithContext(t.Context())
	if err != nil || mounts["apikeys/"].RunningVersion != "v"+d.s.Version {
		t.Errorf("the live engine runs %q, %v", mounts["apikeys/"].RunningVersion, err)
	}
	if out = d.drill(t, cli.ExitOperator, "--rehearse", "--plugin-binary", newPlugin); !strings.Contains(out, "none was given") {
		t.Errorf("it said:\n%s", out)
	}
}
