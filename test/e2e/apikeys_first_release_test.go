package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
	"strongroom.example/installer/upgrade"
	"strongroom.example/test/keyservice"
	"strongroom.example/test/vaulttest"
)

// firstRelease is the commit of 0.1.0.
const firstRelease = "1cd055cd"

// oldPlugin builds the plugin of the first release, as version v0.0.1, since VERSION
// may still say what it said then.
func oldPlugin(t *testing.T, to string) vaultapi.Plugin {
	t.Helper()
	root, src := vaulttest.Root(t), t.TempDir()
	archive := exec.Command("git", "-C", root, "archive", firstRelease, "go.mod", "go.sum", "plugin")
	tar := exec.Command("tar", "-x", "-C", src)
	var err error
	if tar.Stdin, err = archive.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := tar.Start(); err != nil {
		t.Fatal(err)
	}
	if err := archive.Run(); err != nil {
		t.Skipf("the history up to the first release, %s, is not here: %v", firstRelease, err)
	}
	if err := tar.Wait(); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=0.0.1", "-o", to, "./plugin/cmd/"+machine.PluginName)
	build.Dir = src
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin of %s: %v\n%s", firstRelease, err, out)
	}
	sum, err := vaultapi.SHA256File(to)
	if err != nil {
		t.Fatal(err)
	}
	return vaultapi.Plugin{Name: machine.PluginName, Command: filepath.Base(to), Version: "v0.0.1", SHA256: sum}
}

// An upgrade from 0.1 that is rolled back, in a real Vault: what 0.1 does with what
// today's plugin has written, and what it does with its own data of before.
func TestFirstReleaseAfterRollback(t *testing.T) {
	if os.Getenv("STRONGROOM_SOAK") != "1" {
		t.Skip("builds the plugin of the first release: make soak AREA=engine")
	}
	s, service := vaulttest.New(t), keyservice.New(t)
	old := oldPlugin(t, filepath.Join(s.Layout.Plugins(), machine.PluginName+"-first"))
	v := upgrade.NewVault(s.Root)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(path string, data map[string]any) { t.Helper(); _, err := s.Root.Write(ctx, path, data); must(err) }
	run := func(version string) {
		t.Helper()
		must(v.Pin(ctx, version))
		must(v.Reload(ctx))
	}
	read := func(name string) (value string, version int64, err error) {
		sec, err := vaulttest.API(s.Root).Logical().ReadWithContext(ctx, "apikeys/creds/"+name)
		if err != nil || sec == nil {
			return "", 0, fmt.Errorf("read %s: %v", name, err)
		}
		var n int64
		_, err = fmt.Sscan(fmt.Sprint(sec.Data["version"]), &n)
		return fmt.Sprint(sec.Data["key"]), n, err
	}

	must(s.Root.RegisterPlugin(ctx, old))
	must(s.Root.MountPlugin(ctx, "apikeys", old))
	write("apikeys/providers/service", map[string]any{"type": "http", "settings": service.Settings(), "credential": map[string]any{"token": keyservice.Credential}})
	names := []string{"rotated", "untouched"}
	for _, name := range names {
		write("apikeys/keys/"+name, map[string]any{"provider": "service", "grace_period": "10m"})
	}
	promised := map[string]bool{}
	note := func(name string) (value string, version int64) {
		t.Helper()
		value, version, err := read(name)
		must(err)
		promised[value] = true
		return value, version
	}
	for _, name := range names {
		note(name)
	}
	var before bytes.Buffer
	must(s.Root.Snapshot(ctx, &before))

	// Today's plugin takes over and rotates.
	run(s.Plugin(t).Version)
	write("apikeys/rotate/rotated", nil)
	newest, _ := note("rotated")

	// 0.1 on what it has written: it must not act on it.
	must(v.Pin(ctx, old.Version))
	reload := v.Reload(ctx)
	value, _, err := read("rotated")
	t.Logf("0.1 on today's storage: reload %v; read %v", reload, err)
	if err == nil {
		t.Errorf("0.1 reads what it does not understand: %d bytes", len(value))
	}

	// The rollback of an upgrade: Vault's data of before, another epoch, reconcile.
	file, err := os.ReadFile(s.Layout.EpochFile())
	must(err)
	epoch, err := restore.ParseEpoch(file)
	must(err)
	file, err = epoch.Next().Encode()
	must(err)
	must(os.WriteFile(s.Layout.EpochFile(), file, 0o600))
	must(v.Restore(ctx, &before))
	s.KillAndWait(t)
	deadline := time.Now().Add(vaulttest.Patience)
	for _, running, err := v.Mounted(ctx); running != old.Version; _, running, err = v.Mounted(ctx) {
		if time.Now().After(deadline) {
			t.Fatalf("the engine runs %q: %v", running, err)
		}
		<-time.After(250 * time.Millisecond)
	}
	must(v.Reconcile(ctx))
	for _, name := range names {
		value, version := note(name)
		t.Logf("%s: version %d is current", name, version)
		if _, alive := service.Alive()[value]; !alive {
			t.Errorf("%s: its current version is dead", name)
		}
	}
	for value := range promised {
		if _, alive := service.Alive()[value]; !alive {
			t.Errorf("a value is dead that readers were promised for ten minutes; the newest of today's plugin: %t", value == newest)
		}
	}
	if alive := len(service.Alive()); alive > len(promised) {
		t.Errorf("%d keys are alive, readers know %d", alive, len(promised))
	}
}
