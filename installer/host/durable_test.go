package host

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutations are all calls of FS that change something, on files that setUp makes.
var mutations = []struct {
	name string
	do   func(f FS) error
}{
	{"write a new file", func(f FS) error { return f.Write("/d/new", strings.NewReader("x"), me(0o600)) }},
	{"write over a file", func(f FS) error { return f.Write("/d/old", strings.NewReader("y"), me(0o640)) }},
	{"make a folder", func(f FS) error { return f.Mkdir("/d/folder", me(0o700)) }},
	{"change a folder", func(f FS) error { return f.Mkdir("/d/there", me(0o750)) }},
	{"set attributes", func(f FS) error { return f.SetAttr("/d/attr", me(0o644)) }},
	{"make a link", func(f FS) error { return f.Symlink("/target", "/d/link") }},
	{"rename a file", func(f FS) error { return f.Rename("/d/from", "/d/there/to") }},
	{"rename a folder", func(f FS) error { return f.Rename("/d/tree", "/d/moved") }},
	{"remove a file", func(f FS) error { return f.Remove("/d/gone") }},
	{"remove a folder with all that is in it", func(f FS) error { return f.RemoveAll("/d/all") }},
}

func setUp(f FS) error {
	for _, d := range []string{"/d", "/d/there", "/d/tree", "/d/all", "/d/all/below"} {
		if err := f.Mkdir(d, me(0o700)); err != nil {
			return err
		}
	}
	for _, p := range []string{"/d/old", "/d/attr", "/d/from", "/d/gone", "/d/tree/f", "/d/all/below/f"} {
		if err := f.Write(p, strings.NewReader("x"), me(0o600)); err != nil {
			return err
		}
	}
	return nil
}

const marked = "/no/such/file/"

// TestMutations is run by TestDurable below strace; each call stands between two marks.
func TestMutations(t *testing.T) {
	root := os.Getenv("STRONGROOM_HOST_ROOT")
	if root == "" {
		t.Skip("run by TestDurable")
	}
	f := OSFS{Root: root}
	if err := setUp(f); err != nil {
		t.Fatal(err)
	}
	for i, m := range mutations {
		_, _ = os.Lstat(fmt.Sprint(marked, i))
		if err := m.do(f); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
	_, _ = os.Lstat(marked + "end")
}

// What a call has changed outlives a power cut once it has returned: nothing that it
// writes, names or takes away is left for the kernel to write when it likes. What a cut
// between two calls can do is then what a kill can, which the campaigns try at each call.
func TestDurable(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	root := t.TempDir()
	log := filepath.Join(t.TempDir(), "log")
	c := exec.CommandContext(t.Context(), strace, "-f", "-y", "-s", "4096", "-o", log,
		"-e", "trace=openat,write,fsync,fdatasync,rename,renameat,renameat2,mkdirat,mkdir,unlinkat,unlink,rmdir,symlinkat,symlink,fchmod,fchmodat,chmod,fchown,fchownat,ftruncate,newfstatat,lstat",
		os.Args[0], "-test.run=^TestMutations$", "-test.v")
	c.Env = append(os.Environ(), "STRONGROOM_HOST_ROOT="+root)
	out, err := c.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("PTRACE")) {
		t.Skipf("strace may not trace here: %s", out)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestMutations")) {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	checkDurable(t, root, string(text))
}

// A line of strace: the process, the call, its arguments, its answer.
var call = regexp.MustCompile(`^\d+ +(\w+)\((.*)\) += (-?\d+|\?)`)

func checkDurable(t *testing.T, root, log string) {
	t.Helper()
	quoted := regexp.MustCompile(`"([^"]*)"`)
	open := regexp.MustCompile(`^\d+<([^>]*)>`)
	dirty := map[string]string{} // what is not on the disk yet, with why
	at, checked := -1, 0
	finish := func() {
		if at < 0 {
			return
		}
		checked++
		for p, why := range dirty {
			t.Errorf("%s: %s is not on the disk: %s", mutations[at].name, strings.TrimPrefix(p, root), why)
		}
	}
	s := bufio.NewScanner(strings.NewReader(log))
	s.Buffer(nil, len(log)+1)
	pending := map[string]string{} // calls that another thread has interrupted, by process
	for s.Scan() {
		line := s.Text()
		pid, _, _ := strings.Cut(line, " ")
		if before, ok := strings.CutSuffix(line, " <unfinished ...>"); ok {
			pending[pid] = before
			continue
		}
		if _, rest, ok := strings.Cut(line, " resumed>"); ok {
			line = pending[pid] + rest
		}
		m := call.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name, args, answer := m[1], m[2], m[3]
		var paths []string
		for _, q := range quoted.FindAllStringSubmatch(args, -1) {
			paths = append(paths, q[1])
		}
		if len(paths) > 0 && strings.HasPrefix(paths[0], marked) {
			finish()
			clear(dirty)
			if at++; strings.HasSuffix(paths[0], "end") {
				at = -1
			}
			continue
		}
		if at < 0 || strings.HasPrefix(answer, "-") {
			continue
		}
		of := ""
		if f := open.FindStringSubmatch(args); f != nil {
			of = f[1]
		}
		named := func(p, why string) {
			if strings.HasPrefix(p, root+"/") {
				dirty[filepath.Dir(p)] = why
			}
		}
		switch {
		case name == "fsync" || name == "fdatasync":
			delete(dirty, of)
		case name == "write" && strings.HasPrefix(of, root+"/"), name == "ftruncate":
			dirty[of] = "its content"
		case strings.HasPrefix(name, "fchmod") && of != "" && len(paths) == 0, strings.HasPrefix(name, "fchown") && of != "" && len(paths) == 0:
			if strings.HasPrefix(of, root+"/") {
				dirty[of] = "its mode or owner"
			}
		case name == "openat" && strings.Contains(args, "O_CREAT"):
			named(paths[0], "a new name")
		case strings.HasPrefix(name, "mkdir"):
			named(paths[0], "a new folder")
		case strings.HasPrefix(name, "symlink"):
			named(paths[1], "a new link")
		case strings.HasPrefix(name, "rename"):
			for p, why := range dirty { // what was written goes by its new name
				if rest, ok := strings.CutPrefix(p, paths[0]); ok && (rest == "" || rest[0] == '/') {
					delete(dirty, p)
					dirty[paths[1]+rest] = why
				}
			}
			named(paths[0], "a name that went")
			named(paths[1], "a name that came")
		case strings.HasPrefix(name, "unlink"), name == "rmdir":
			p := paths[0]
			if !filepath.IsAbs(p) {
				p = filepath.Join(of, p)
			}
			named(p, "a name that went")
			delete(dirty, p) // nobody asks any more
		}
	}
	if checked != len(mutations) {
		t.Errorf("%d of %d calls were seen", checked, len(mutations))
	}
}
