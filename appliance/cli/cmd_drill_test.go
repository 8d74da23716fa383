package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/backup/drill"
	"strongroom.example/appliance/backup/isolate"
	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/config/machine"
)

// runDrillCLI gives the exit code and all that was printed.
func runDrillCLI(t *testing.T, args ...string) (int, string) {
	t.Helper()
	c := New("test")
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	code := Report(&out, c.ExecuteContext(t.Context()))
	return code, out.String()
}

func TestDrillUsage(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho Vault v1.21.1 '(abc)'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		code int
		says string
	}{
		{"one path for both programs", []string{"--rehearse", "--vault-binary", program, "--plugin-binary", program}, ExitUsage, "are one file"},
		{"one file for both programs", []string{"--rehearse", "--vault-binary", program, "--plugin-binary", link}, ExitUsage, "are one file"},
		{"a program without --rehearse", []string{"--vault-binary", plain}, ExitUsage, "need --rehearse"},
		{"a version without a plugin", []string{"--rehearse", "--plugin-version", "1.2.3"}, ExitUsage, "need --plugin-binary"},
		{"no such Vault", []string{"--rehearse", "--vault-binary", filepath.Join(dir, "none")}, ExitUsage, "no such file"},
		{"not a program", []string{"--rehearse", "--plugin-binary", plain}, ExitUsage, "not an executable file"},
		{"an argument", []string{"now"}, ExitUsage, ""},
		{"no report", []string{"verify-report"}, ExitUsage, ""},
		{"no public key", []string{"verify-report", "--key", filepath.Join(dir, "none"), plain}, ExitUsage, "--key"},
		{"not a public key", []string{"verify-report", "--key", plain, plain}, ExitUsage, "want the base64 of 32 bytes"},
		{"fetch without a configuration", []string{"fetch", "--config", filepath.Join(dir, "none"), "--state", dir}, ExitUsage, "read configuration"},
		{"fetch from an empty place", []string{"fetch", "--dir", dir, "--take-state", dir, "--state", dir}, ExitDrift, "no snapshot"},
		{"fetch by a bad name", []string{"fetch", "--dir", dir, "--id", "x", "--state", dir}, ExitUsage, "snapshot name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, out := runDrillCLI(t, append([]string{"drill"}, tt.args...)...)
			if code != tt.code || !strings.Contains(out, tt.says) {
				t.Errorf("exit code %d, want %d:\n%s", code, tt.code, out)
			}
		})
	}
}

// Each of the two programs of a rehearsal is the one that its own flag names,
// from wherever it was named; a Vault is not taken for a plugin.
func TestRehearsalPrograms(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("VAULT_TOKEN", "t")
	for name, says := range map[string]string{"vault": "Vault v1.21.1 (abc)", "plugin": machine.PluginName + " 1.2.3 (abc)"} {
		if err := os.WriteFile(name, []byte("#!/bin/sh\necho '"+says+"'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	vault, plugin := filepath.Join(dir, "vault"), filepath.Join(dir, "plugin")
	for _, c := range []struct {
		name string
		with rehearseFlags
		want drill.Rehearsal
		says string
	}{
		{"both", rehearseFlags{vault: "vault", plugin: "./plugin"}, drill.Rehearsal{Vault: vault, Plugin: plugin, PluginVersion: "1.2.3", Token: "t"}, ""},
		{"Vault", rehearseFlags{vault: vault}, drill.Rehearsal{Vault: vault}, ""},
		{"plugin", rehearseFlags{plugin: plugin}, drill.Rehearsal{Plugin: plugin, PluginVersion: "1.2.3", Token: "t"}, ""},
		{"neither", rehearseFlags{}, drill.Rehearsal{}, ""},
		{"the other way round", rehearseFlags{vault: plugin, plugin: vault}, drill.Rehearsal{}, `printed "Vault v1.21.1`},
	} {
		o := drillOptions{rehearse: true, with: c.with}
		got, err := o.rehearsal(t.Context())
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), vault) {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
			continue
		}
		if err != nil || *got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

// Without its keys a drill says which one is missing, and that a person must act.
func TestDrillWithoutKeys(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("VAULT_BIN", "/bin/true")
	code, out := runDrillCLI(t, "drill", "run", "--state", dir)
	if code != ExitOperator || !strings.Contains(out, machine.CredDrillKey) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "last.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a report was written: %v", err)
	}
}

func TestDrillError(t *testing.T) {
	tests := []struct {
		err  error
		code int
	}{
		{nil, ExitOK},
		{drill.ErrFailed, ExitDrift},
		{statefile.ErrBusy, ExitFailed},
		{drill.ErrNotFetched, ExitFailed},
		{drill.ErrNeedsToken, ExitOperator},
		{isolate.ErrNotIsolated, ExitOperator},
		{restore.ErrOtherSeal, ExitOperator},
		{snapshot.ErrWrongIdentity, ExitOperator},
		{snapshot.ErrCorrupt, ExitDrift},
		{snapshot.ErrNoSnapshot, ExitDrift},
		{snapshot.ErrNotFound, ExitDrift},
		{snapshot.ErrUnreachable, ExitFailed},
		{errors.New("anything else"), ExitFailed},
	}
	for _, tt := range tests {
		err := tt.err
		if err != nil {
			err = fmt.Errorf("wrapped: %w", err)
		}
		var out bytes.Buffer
		if got := Report(&out, drillError(err)); got != tt.code {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.code)
		}
	}
}

// What root prepares is what the job reads.
func TestDrillPrepare(t *testing.T) {
	dir := t.TempDir()
	if key, err := drill.Prepared(dir); key != "" || err != nil {
		t.Errorf("before: %q, %v", key, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "work", "left"), 0o700); err != nil {
		t.Fatal(err)
	}
	code, out := runDrillCLI(t, "drill", "prepare", "--state", dir, "--escrow", filepath.Join(dir, "none"))
	if code != ExitOK {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	if key, err := drill.Prepared(dir); key != "" || err != nil {
		t.Errorf("without an escrow: %q, %v", key, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "work")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("remains: %v", err)
	}
}

// The drill's key does not count alone.
func TestTakeForTheDrillAlone(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "drill-key.pub")
	if err := os.WriteFile(file, []byte(id.Recipient().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := runDrillCLI(t, "snapshot", "take", "--dir", t.TempDir(), "--drill-key", file)
	if code != ExitUsage || !strings.Contains(out, "nobody could ever read it") {
		t.Errorf("for the drill alone: exit code %d:\n%s", code, out)
	}
}
