package isolate

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// helperVariable makes the test's program become Exec with its value as the
// folder to hide.
const (
	helperVariable = "ISOLATE_TEST_HIDE"
	keepVariable   = "ISOLATE_TEST_KEEP"
)

func TestMain(m *testing.M) {
	if hide := os.Getenv(helperVariable); hide != "" {
		err := Exec(os.Args[1:], []string{"PATH=/usr/bin:/bin"}, Options{Hide: []string{hide}, Keep: filepath.SplitList(os.Getenv(keepVariable))})
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// isolated runs argv cut off and gives what it printed.
func isolated(t *testing.T, hide string, argv ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, argv...)
	cmd.Env = []string{helperVariable + "=" + hide}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestExec(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.log")
	if err := os.WriteFile(file, []byte("live"), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()

	out, err := isolated(t, dir, "/bin/sh", "-c",
		`tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; ls -A `+dir+`; echo other >`+dir+`/audit.log; cat /proc/net/route | wc -l; echo "$PATH$HOME"`)
	if want := "lo\n1\n/usr/bin:/bin\n"; out != want {
		t.Errorf("it saw %q (%v), want %q", out, err, want)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "live" {
		t.Errorf("outside the file is now %q, %v", data, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("a mount came to be outside: %v", err)
	}
	// Its loopback is its own: what listens out here is not there, and it can
	// listen itself.
	out, err = isolated(t, dir, "/bin/bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/`+port(t, ln))
	if err == nil || !strings.Contains(out, "refused") {
		t.Errorf("it reached our loopback: %q, %v", out, err)
	}
}

func port(t *testing.T, ln net.Listener) string {
	t.Helper()
	_, p, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExecRefuses(t *testing.T) {
	tests := []struct {
		name, hide, program, says string
	}{
		{"a relative program", "/tmp/x", "sh", "absolute path"},
		{"a relative folder", "tmp", "/bin/true", "below /"},
		{"the root", "/", "/bin/true", "below /"},
		{"the root by another name", "/tmp/..", "/bin/true", "below /"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := isolated(t, tt.hide, tt.program)
			if err == nil || !strings.Contains(out, tt.says) {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
	if os.Getuid() == 0 {
		out, err := isolated(t, "/nonexistent", "/no/such/program")
		if err == nil || !strings.Contains(out, "/no/such/program") {
			t.Errorf("got %q, %v", out, err)
		}
		out, err = isolated(t, "/etc/hostname", "/bin/true")
		if err == nil || !strings.Contains(out, "not a folder") {
			t.Errorf("a file to hide: got %q, %v", out, err)
		}
	}
}

func TestCommand(t *testing.T) {
	got := Command("/bin/strongroom", []string{"/var/log/vault"}, "/bin/vault")
	want := []string{"/bin/strongroom", Verb, "--hide", "/var/log/vault", "--", "/bin/vault"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
