package e2e

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/test/vaulttest"
)

// The whole demo, as a person runs it and stays in it: what it prints works,
// and what it leaves behind holds no secret.
func TestDemoStaysAndKeeps(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(vaulttest.Dir(t), "d")
	// The terminal still has the exports of a demo that is gone.
	t.Setenv("VAULT_CACERT", filepath.Join(dir, "gone.pem"))
	d := startDemo(t, "--folder", dir, "--keep", "--recipient", id.Recipient().String())
	out := d.waitFor(t, "runs until Ctrl-C")
	for _, want := range []string{
		"✓ the key is rotated", "still valid", "HTTP 304", "unsealed", "✓ the snapshot is verified", "resident memory",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo did not show %q", want)
		}
	}

	// What it says about logging in, done with the stock CLI.
	env := exports(t, out)
	password := match(t, out, `password: (\S+)`)
	login := vault(t, env, password, "login", "-no-store", "-field=token", "-method=userpass", "username=demo", "password=-")
	env = append(env, "VAULT_TOKEN="+login)
	first := vault(t, env, "", "read", "-field=key", "apikeys/creds/demo/production/billing")
	vault(t, env, "", "write", "-f", "apikeys/rotate/demo/production/billing")
	second := vault(t, env, "", "read", "-field=key", "apikeys/creds/demo/production/billing")
	if first == second || len(first) < 20 {
		t.Error("the printed rotate command did not rotate")
	}
	vault(t, env, "", "read", "apikeys/status")
	vault(t, env, "", "kv", "put", "secret/demo/production/database-url", "value=canary-2718281828")

	// The root token is revoked, and the front keeps sys/ to the machine.
	if out, err := vaultTry(env, "", "read", "sys/storage/raft/configuration"); err == nil {
		t.Errorf("the demo's user reads raft's configuration through the front: %s", out)
	}

	d.signal(t, syscall.SIGINT)
	if code := d.wait(t); code != 0 {
		t.Errorf("exit code %d after Ctrl-C", code)
	}
	assertGone(t, dir)

	secrets := map[string]string{
		"API key 1": first, "API key 2": second, "the user's password": password, "the user's token": login,
		"KV value": "canary-2718281828",
	}
	for name, file := range map[string]string{"master key": "master-key", "recovery keys": "recovery-keys"} {
		sealed, err := os.ReadFile(filepath.Join(dir, "escrow", file+".age"))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := escrow.Open(sealed, id)
		if err != nil {
			t.Fatalf("the escrow of the %s does not open with the given key: %v", name, err)
		}
		for i, line := range strings.Split(strings.TrimSpace(string(plain)), "\n") {
			// Lines of key material, not headers.
			if raw, err := base64.StdEncoding.DecodeString(line); err == nil && len(raw) >= 16 {
				secrets[name+" in base64, line "+string(rune('1'+i))] = line
				secrets[name+" in bytes, line "+string(rune('1'+i))] = string(raw)
			}
		}
	}
	if len(secrets) < 5+2+10 {
		t.Errorf("only %d secrets to search for: the escrow was not understood", len(secrets))
	}
	assertNoSecrets(t, dir, secrets)
}

// assertNoSecrets searches every file below dir, and their modes.
func assertNoSecrets(t *testing.T, dir string, secrets map[string]string) {
	t.Helper()
	token := regexp.MustCompile(`hv[sbr]\.[A-Za-z0-9_-]{24,}`)
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		allowed := fs.FileMode(0o750)
		if e.IsDir() && strings.Contains(path, "/snapshots") {
			allowed = 0o770 // on a machine one user of the group stores, and another one prunes
		}
		if open := info.Mode().Perm() &^ allowed; open != 0 && info.Mode().Type() != fs.ModeSocket {
			// The front's root certificate is for everyone.
			if filepath.Base(path) != "ca.crt" {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		files++
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, s := range secrets {
			if bytes.Contains(data, []byte(s)) {
				t.Errorf("%s holds in clear: %s", path, name)
			}
		}
		if filepath.Base(path) != "vault-plugin-secrets-apikeys" && token.Match(data) {
			t.Errorf("%s holds a Vault token in clear", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("only %d files were searched", files)
	}
}

// Whatever ends it: no process, no listener, no file.
func TestDemoEndings(t *testing.T) {
	t.Parallel()
	heeded := make(chan os.Signal, 1) // a run under nohup(1) ignores it, and so would what it starts
	signal.Notify(heeded, syscall.SIGHUP)
	defer signal.Stop(heeded)
	tests := []struct {
		name   string
		after  string // what it has printed when the signal comes
		signal syscall.Signal
		folder bool // it stays: nobody was left to remove it
	}{
		{"Ctrl-C while Vault starts", "Strongroom, the whole", syscall.SIGINT, false},
		{"kill in the middle", "✓ the front serves TLS", syscall.SIGTERM, false},
		{"terminal gone", "✓ the key is rotated", syscall.SIGHUP, false},
		{"kill -9", "✓ the plugin is registered", syscall.SIGKILL, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(vaulttest.Dir(t), "d")
			for try := 1; ; try++ {
				d := startDemo(t, "--folder", dir, "--once")
				d.waitFor(t, tt.after)
				if err := d.cmd.Process.Signal(tt.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
				if d.wait(t) != 0 {
					break
				}
				// Where this side is held up, the demo may be over before the signal.
				if try == 5 {
					t.Fatal("an interrupted demo exits 0")
				}
			}
			assertGone(t, dir)
			if _, err := os.Stat(dir); (err == nil) != tt.folder {
				t.Errorf("folder is there: %t, want %t", err == nil, tt.folder)
			}
		})
	}
}

func TestDemoBadInput(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	occupied := t.TempDir()
	if err := os.WriteFile(filepath.Join(occupied, "mine"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// It says it is Vault, and then it is of no use.
	broken := filepath.Join(t.TempDir(), "vault")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\n[ $1 = version ] && echo Vault v1.21.1 && exit\necho cannot serve today\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"occupied folder", []string{"--folder", occupied}, 2, []string{occupied, "not empty", "argument"}},
		{"folder below a file", []string{"--folder", filepath.Join(occupied, "mine", "d")}, 1, []string{"mine/d"}},
		{"path too long for sockets", []string{"--folder", filepath.Join(t.TempDir(), strings.Repeat("x", 120))}, 1, []string{"unix socket"}},
		{"not Vault", []string{"--vault", "/bin/true"}, 2, []string{"/bin/true", "not a Vault program"}},
		{"broken Vault", []string{"--vault", broken}, 1, []string{"vault ended by itself", "cannot serve today"}},
		{"not the plugin", []string{"--plugin", "/bin/true"}, 2, []string{"/bin/true", "not the apikeys plugin"}},
		{"port taken", []string{"--listen", taken.Addr().String()}, 1, []string{taken.Addr().String(), "in use"}},
		{"not loopback", []string{"--listen", "0.0.0.0:8443"}, 2, []string{"0.0.0.0:8443", "loopback"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := startDemo(t, append([]string{"--once"}, tt.args...)...)
			code := d.wait(t)
			out := d.output()
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, s := range tt.says {
				if !strings.Contains(out, s) {
					t.Errorf("it did not say %q:\n%s", s, out)
				}
			}
			assertEmpty(t, d.tmp)
		})
	}
	if _, err := os.Stat(filepath.Join(occupied, "mine")); err != nil {
		t.Errorf("the occupied folder lost a file: %v", err)
	}
}

// A disk that fills up in the middle, wherever that is.
func TestDemoDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	for _, size := range []string{"1m", "48m"} {
		t.Run(size, func(t *testing.T) {
			disk := vaulttest.Dir(t)
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", disk).CombinedOutput(); err != nil {
				t.Skipf("cannot mount a small file system here: %v: %s", err, out)
			}
			defer func() {
				if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
					t.Errorf("umount: %v: %s", err, out)
				}
			}()
			d := startDemo(t, "--once", "--folder", filepath.Join(disk, "d"))
			if code := d.wait(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if out := d.output(); !strings.Contains(out, "no space left on device") || !strings.Contains(out, "free some space") {
				t.Errorf("it did not say that the disk is full:\n%s", out)
			}
			assertGone(t, disk)
			assertEmpty(t, disk)
		})
	}
}
