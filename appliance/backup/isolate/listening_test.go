package isolate

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestListening(t *testing.T) {
	const table = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 20001 /run/postgresql/.s.PGSQL.5432
0000000000000000: 00000002 00000000 00010000 0001 01 20002 /srv/my data/db.sock
0000000000000000: 00000003 00000000 00000000 0001 03 20003 /run/postgresql/.s.PGSQL.5432
0000000000000000: 00000002 00000000 00010000 0001 01 20004 @abstract
0000000000000000: 00000002 00000000 00010000 0001 01 20005
0000000000000000: 00000003 00000000 00000000 0001 03 20006 /run/connected
a line that is none
0000000000000000: 00000002 00000000 zzzz 0001 01 20007 /run/bad
`
	got, err := listening(strings.NewReader(table))
	if want := []string{"/run/postgresql/.s.PGSQL.5432", "/srv/my data/db.sock"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func FuzzListening(f *testing.F) {
	f.Add("Num RefCount\n0: 2 0 00010000 0001 01 2 /a/b\n")
	f.Fuzz(func(t *testing.T, s string) {
		paths, err := listening(strings.NewReader(s))
		for _, p := range paths {
			if err == nil && !filepath.IsAbs(p) {
				t.Errorf("%q is not a path", p)
			}
		}
	})
}

// A socket anywhere is hidden, one below the kept folder is not, and what is
// outside stays as it was.
func TestExecHidesSockets(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	hidden, kept := t.TempDir(), t.TempDir()
	for _, dir := range []string{hidden, kept} {
		ln, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "/bin/sh", "-c", "test -S "+hidden+"/s; echo $?; test -S "+kept+"/s; echo $?")
	cmd.Env = []string{helperVariable + "=/nonexistent", keepVariable + "=" + kept}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "1\n0\n" {
		t.Errorf("got %q, %v", out, err)
	}
	conn, err := net.Dial("unix", filepath.Join(hidden, "s"))
	if err != nil {
		t.Fatalf("the socket is no longer there outside: %v", err)
	}
	_ = conn.Close()
}

func TestLook(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "/bin/sh", "-c", "echo ready; read x")
	cmd.Env = []string{helperVariable + "=/nonexistent"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	r, err := Look(cmd.Process.Pid)
	if err != nil || r.Err() != nil {
		t.Errorf("cut off: %+v, %v, %v", r, err, r.Err())
	}
	_ = in.Close()
	_ = cmd.Wait()

	tests := []struct {
		name string
		r    Reach
		bad  bool
	}{
		{"nothing", Reach{}, false},
		{"loopback", Reach{Routes: []string{"lo"}}, false},
		{"a network", Reach{Routes: []string{"eth0", "lo"}}, true},
		{"a database", Reach{Sockets: []string{"/run/postgresql/.s.PGSQL.5432"}}, true},
	}
	for _, tt := range tests {
		if err := tt.r.Err(); (err != nil) != tt.bad {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := Look(1 << 30); err == nil {
		t.Error("no error for a process that is not there")
	}
}
