package vps_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/test/vaulttest"
)

// laptop is where an operator sits: in the network around a machine, with a home
// that has a private key, and with stock age, ssh, scp and curl.
type laptop struct {
	m    *machine
	home string
}

// newLaptop gives the operator one. It skips where one of its tools is missing.
func newLaptop(t *testing.T, m *machine) *laptop {
	t.Helper()
	for _, tool := range []string{"age", "age-keygen", "ssh", "scp", "curl", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing: scripts/test-deps installs it", tool)
		}
	}
	l := &laptop{m: m, home: t.TempDir()}
	key, err := os.ReadFile(m.key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(m.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		".ssh/id_ed25519":     key,
		".ssh/id_ed25519.pub": pub,
		// The machine's host key is seen for the first time.
		".ssh/config": []byte("StrictHostKeyChecking accept-new\nBatchMode yes\nLogLevel ERROR\n"),
		".hosts":      []byte("127.0.0.1 localhost\n" + inside + " " + domain + " vault.example.org new\n"),
		// What the programs are put over.
		".bin/vault": nil, ".bin/strongroom": nil, ".bin/strongroom-installer": nil,
	} {
		file := filepath.Join(l.home, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// command is a script on the laptop, in its home. ssh looks into root's home
// whatever $HOME says, so the laptop's is put over that, for the script alone.
func (l *laptop) command(ctx context.Context, t *testing.T, script string) *exec.Cmd {
	t.Helper()
	var mounts strings.Builder
	for _, p := range []string{"vault", "strongroom", "strongroom-installer"} {
		mounts.WriteString("mount --bind '" + vaulttest.Bin(t, p) + "' '" + filepath.Join(l.home, ".bin", p) + "'\n")
	}
	mounts.WriteString("mount --bind '" + filepath.Join(l.home, ".hosts") + "' /etc/hosts\n" +
		"mount --rbind '" + l.home + "' /root\ncd /root\n" +
		`exec env -i HOME=/root USER=root TERM=dumb LC_ALL=C.UTF-8 PATH=/root/.bin:/usr/bin:/bin bash -euo pipefail -c "$1"`)
	return exec.CommandContext(ctx, "nsenter", "--target", l.m.namespace(t), "--net", "--",
		"unshare", "--mount", "--propagation", "private", "sh", "-euc", mounts.String(), "sh", script)
}

func (l *laptop) run(t *testing.T, script string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := l.command(ctx, t, script)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := result{stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%v\n%s", err, r)
	}
	return r
}

// must runs a script that must succeed. Neither is shown what a private key opens.
func (l *laptop) must(t *testing.T, script string) string {
	t.Helper()
	r := l.run(t, script)
	if r.code != 0 {
		t.Fatalf("on the laptop: exit code %d\n%s\n%s", r.code, script, r.stderr)
	}
	return r.stdout
}

// read is a file in the laptop's home.
func (l *laptop) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.home, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
