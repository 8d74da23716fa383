package vps_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"strongroom.example/installer/upgrade"
	"strongroom.example/test/vaulttest"
)

// buildInstaller builds the installer as make build does, of another version.
// Files of the payload can be replaced.
func buildInstaller(t *testing.T, version string, replace map[string]string) string {
	t.Helper()
	root, dir := vaulttest.Root(t), t.TempDir()
	ldflags := "-s -w -buildid= -X main.version=" + version + " -X main.commit=test"
	build := func(out, pkg string, more ...string) {
		t.Helper()
		cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", out}, more...), pkg)...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, b)
		}
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, pkg := range map[string]string{"strongroom": "./appliance/cmd/strongroom", "vault-plugin-secrets-apikeys": "./plugin/cmd/vault-plugin-secrets-apikeys"} {
		program, ok := replace[name]
		if !ok {
			program = filepath.Join(dir, name)
			build(program, pkg)
		}
		overlay.Replace[filepath.Join(root, "installer", "payload", "bin", runtime.GOARCH, name)] = program
	}
	said := filepath.Join(dir, "VERSION")
	if err := os.WriteFile(said, []byte(version+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay.Replace[filepath.Join(root, "installer", "payload", "bin", runtime.GOARCH, "VERSION")] = said
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "strongroom-installer")
	build(out, "./installer/cmd/strongroom-installer", "-overlay", file)
	return out
}

// otherVault is the tests' Vault that calls itself another version.
func otherVault(t *testing.T, version string) string {
	t.Helper()
	b, err := os.ReadFile(vaulttest.Bin(t, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	const is = "1.21.1"
	if len(version) != len(is) || !bytes.Contains(b, []byte(is)) {
		t.Fatalf("Vault %s can't be made to call itself %s", is, version)
	}
	out := filepath.Join(t.TempDir(), "vault")
	if err := os.WriteFile(out, bytes.ReplaceAll(b, []byte(is), []byte(version)), 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}

// upgrade runs the new installer with a token of now.
func (m *machine) upgrade(t *testing.T, more ...string) result {
	t.Helper()
	m.write(t, "/root/token", []byte(login(t, m)+"\n"))
	return m.in(t, m.upgradeArgs(more)...)
}

func (m *machine) upgradeArgs(more []string) []string {
	return append([]string{"/root/new-installer", "upgrade", "--yes", "--token-file", "/root/token", "--allow-old-vault", "--patience", "5m"}, more...)
}

// record is the unfinished upgrade on the machine's disk; nil for none.
func (m *machine) record() *upgrade.Record {
	b, err := os.ReadFile(filepath.Join(m.disk, upgrade.RecordPath))
	if err != nil {
		return nil // not there, which is an answer
	}
	var r upgrade.Record
	if json.Unmarshal(b, &r) != nil {
		return nil
	}
	return &r
}

// upgradeAndKill runs an upgrade and kills it as soon as it has recorded the
// phase; it says whether it came to that.
func (m *machine) upgradeAndKill(t *testing.T, at upgrade.Phase, more ...string) (result, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.script, append([]string{"exec", m.name}, m.upgradeArgs(more)...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return result{code: cmd.ProcessState.ExitCode(), stdout: out.String()}, false
		case <-tick.C:
		}
		if r := m.record(); r == nil || r.Phase != at {
			continue
		}
		pid := descendant(cmd.Process.Pid, "new-installer")
		if pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
			continue
		}
		<-ended
		return result{stdout: out.String()}, true
	}
}

// programVersions is what runs, as an operator sees it.
func (m *machine) programVersions(t *testing.T, token string) string {
	t.Helper()
	c := m.client(roots(t, m))
	_, out := m.vault(t, c, "GET", "sys/mounts/apikeys", token, nil)
	data, _ := out["data"].(map[string]any)
	// The front tells nobody Vault's version; its socket does.
	vault := strings.Fields(m.sh(t, "VAULT_ADDR=unix:///run/vault/vault.sock vault status | grep ^Version"))
	return fmt.Sprintf("%s plugin %v Vault %s", strings.Fields(m.sh(t, "strongroom --version"))[1], data["running_plugin_version"], vault[1])
}

// same checks that everything that was stored is still read: a secret, a key's
// value, the engine's settings.
type same struct{ secret, key, maxWait string }

func (m *machine) stored(t *testing.T, token string) same {
	t.Helper()
	c := m.client(roots(t, m))
	get := func(path, field string) string {
		status, out := m.vault(t, c, "GET", path, token, nil)
		data, _ := out["data"].(map[string]any)
		if status != http.StatusOK {
			t.Fatalf("%s: status %d, %v", path, status, out)
		}
		return fmt.Sprint(data[field])
	}
	return same{get("secret/data/app/production/db", "data"), get("apikeys/creds/app/production/api", "value") + get("apikeys/creds/app/production/api", "values"),
		get("apikeys/config", "max_wait")}
}

// docsCode is the code of a page of docs/ after the comment <!-- test: name -->,
// for the installer at the path given.
func docsCode(t *testing.T, page, name, installer string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "<!-- test: "+name+" -->\n```sh\n")
	code, _, end := strings.Cut(rest, "\n```")
	if !ok || !end {
		t.Fatalf("docs/%s has no block %q", page, name)
	}
	return strings.ReplaceAll(code, "./strongroom-installer", installer)
}

// cloudInit does with user data what cloud-init would.
func (m *machine) cloudInit(t *testing.T, userData []byte) {
	t.Helper()
	var d struct {
		Files []struct{ Path, Permissions, Content string } `yaml:"write_files"`
		Run   [][]string                                    `yaml:"runcmd"`
	}
	if err := yaml.Unmarshal(userData, &d); err != nil || len(d.Files) == 0 || len(d.Run) == 0 {
		t.Fatalf("%v in:\n%s", err, userData)
	}
	for _, f := range d.Files {
		m.write(t, f.Path, []byte(f.Content))
		m.sh(t, "chmod "+f.Permissions+" "+f.Path)
	}
	for _, args := range d.Run {
		if r := m.in(t, args...); r.code != 0 {
			t.Fatalf("%v: exit code %d:\n%s", args, r.code, r)
		}
	}
}
