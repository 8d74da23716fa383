package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"

	apikeys "strongroom.example/plugin"
)

// parentVariable makes the test binary play Vault: it starts the plugin whose
// path it holds, prints its process id and waits to be killed.
const parentVariable = "STRONGROOM_TEST_PLUGIN_PARENT"

func TestMain(m *testing.M) {
	if path := os.Getenv(parentVariable); path != "" {
		if err := playVault(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func playVault(path string) error {
	client, _, err := dispense(path)
	if err != nil {
		return err
	}
	fmt.Println(client.ReattachConfig().Pid)
	select {}
}

// dispense starts the plugin as Vault does, and sets up one mount.
func dispense(path string) (*goplugin.Client, logical.Backend, error) {
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "VAULT_PLUGIN_AUTOMTLS_ENABLED=true", parentVariable+"=")
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig,
		VersionedPlugins: map[int]goplugin.PluginSet{4: {plugin.BackendPluginName: &plugin.GRPCBackendPlugin{}}},
		Cmd:              cmd, AutoMTLS: true, Logger: hclog.NewNullLogger(),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
	})
	rpc, err := client.Client()
	if err != nil {
		return nil, nil, err
	}
	raw, err := rpc.Dispense(plugin.BackendPluginName)
	if err != nil {
		return nil, nil, err
	}
	backend := raw.(logical.Backend)
	err = backend.Setup(context.Background(), &logical.BackendConfig{
		StorageView: &logical.InmemStorage{}, System: &logical.StaticSystemView{}, Logger: hclog.NewNullLogger(),
	})
	return client, backend, err
}

func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vault-plugin-secrets-apikeys")
	out, err := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3 -X main.commit=abc1234", "-o", path, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestProgram(t *testing.T) {
	path := build(t)
	t.Run("version", func(t *testing.T) {
		out, err := exec.Command(path, "--version").Output()
		if err != nil || string(out) != "vault-plugin-secrets-apikeys 1.2.3 (abc1234)\n" {
			t.Errorf("%v: %q", err, out)
		}
	})
	t.Run("storage format", func(t *testing.T) {
		out, err := exec.Command(path, "--storage-format").Output()
		if err != nil || string(out) != fmt.Sprintln(apikeys.StorageFormat) {
			t.Errorf("%v: %q", err, out)
		}
	})
	t.Run("started by hand", func(t *testing.T) {
		out, err := exec.Command(path).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "plugin") {
			t.Errorf("%v: %q", err, out)
		}
	})
	t.Run("serves", func(t *testing.T) { serves(t, path) })
	t.Run("ends with its parent", func(t *testing.T) { endsWithParent(t, path) })
}

func serves(t *testing.T, path string) {
	client, backend, err := dispense(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Kill)
	storage := &logical.InmemStorage{}
	do := func(op logical.Operation, path string, data map[string]any) *logical.Response {
		resp, err := backend.HandleRequest(t.Context(), &logical.Request{Operation: op, Path: path, Data: data, Storage: storage})
		if err != nil || (resp != nil && resp.IsError()) {
			t.Fatalf("%s: %v %v", path, err, resp)
		}
		return resp
	}
	do(logical.UpdateOperation, "providers/gen", map[string]any{"type": "generated"})
	do(logical.UpdateOperation, "keys/app/k", map[string]any{"provider": "gen"})
	key := do(logical.ReadOperation, "creds/app/k", nil).Data["key"]
	if got := do(logical.UpdateOperation, "verify/app/k", map[string]any{"key": key}).Data["valid"]; got != true {
		t.Errorf("valid: %v", got)
	}
	if got := do(logical.ReadOperation, "status", nil).Data["version"]; got != "v1.2.3" {
		t.Errorf("running version %v", got)
	}
	same := do(logical.ReadOperation, "creds/app/k", map[string]any{"if_version": 1})
	if got := fmt.Sprint(same.Data[logical.HTTPStatusCode]); got != "304" || len(same.Data) != 3 {
		t.Errorf("conditional read: %v", same.Data)
	}
}

// endsWithParent kills the parent with SIGKILL; nothing tells the plugin.
func endsWithParent(t *testing.T, path string) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentVariable+"="+path)
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || syscall.Kill(pid, 0) != nil {
		t.Fatalf("the plugin does not run: %q", line)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	deadline := time.Now().Add(time.Minute)
	for running(pid) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the plugin outlived its parent")
		}
		<-time.After(20 * time.Millisecond)
	}
}

// running tells whether a process lives; one that nobody has reaped does not.
func running(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	return !strings.HasPrefix(rest, "Z")
}
