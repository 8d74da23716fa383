package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/config/machine"
	"strongroom.example/test/vaulttest"
)

// The programs for arm64, each run by qemu beside a Vault of this machine: the KMS unseals
// it, the engine makes and reads a key, the installer writes a configuration. (Without systemd
// it plans nothing.)
func TestArm64(t *testing.T) {
	if os.Getenv("STRONGROOM_SOAK") != "1" {
		t.Skip("builds all programs for another processor: make soak AREA=demo")
	}
	qemu, err := exec.LookPath("qemu-aarch64")
	if err != nil {
		t.Skip("no qemu-aarch64: apt-get install qemu-user")
	}
	root := vaulttest.Root(t)
	build := exec.CommandContext(t.Context(), "make", "build", "GOARCH=arm64")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build GOARCH=arm64: %v\n%s", err, out)
	}
	dir := t.TempDir()
	for _, name := range []string{machine.ProgramName, machine.PluginName, machine.InstallerName} {
		file := filepath.Join(root, "bin", "arm64", name)
		if head, err := os.ReadFile(file); err != nil || len(head) < 20 || head[18] != 183 {
			t.Fatalf("%s is no program for arm64: %v", file, err)
		}
		script := fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", qemu, file)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("STRONGROOM_BIN", dir)

	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	for path, data := range map[string]map[string]any{
		"apikeys/providers/own": {"type": "generated"}, "apikeys/keys/app/production/billing": {"provider": "own"},
	} {
		if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	sec, err := vaulttest.API(s.Root).Logical().ReadWithContext(t.Context(), "apikeys/creds/app/production/billing")
	if err != nil || sec == nil || sec.Data["key"] == "" {
		t.Fatalf("the key: %v, %v", sec, err)
	}
	file := filepath.Join(t.TempDir(), "appliance.toml")
	for _, args := range [][]string{{"--version"}, {"config", "init", file}} {
		if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, machine.InstallerName), args...).CombinedOutput(); err != nil {
			t.Errorf("strongroom-installer %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "domain") {
		t.Errorf("the configuration: %v\n%s", err, text)
	}
}
