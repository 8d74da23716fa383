package migrate_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/secrets/migrate"
)

// Whatever is on its way into the tree is in the state folder, for its owner alone.
func TestStaging(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\nP=1\n", "app.py": "import os\nA = os.environ['A_PASSWORD']\n"})
	s.must(os.Chmod(filepath.Join(s.dir, ".env"), 0o644))
	known := map[string]bool{".env": true, "app.py": true, migrate.PlanFile: true, migrate.MappingFile: true}
	steps := 0
	s.fault = func(step string) error {
		steps++
		for name := range tree(t, s.dir) {
			if !known[name] {
				t.Errorf("%s: %s is in the tree", step, name)
			}
		}
		return filepath.WalkDir(filepath.Join(s.dir, migrate.StateDir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			data, readErr := os.ReadFile(path)
			if st, err := d.Info(); err == nil && st.Mode().Perm()&0o077 != 0 && readErr == nil && strings.Contains(string(data), "first-value-1") {
				t.Errorf("%s: %s has mode %v", step, path, st.Mode())
			}
			return nil
		})
	}
	s.move()
	_, err := s.rollback(true)
	s.must(err)
	if steps < 12 {
		t.Errorf("only %d steps", steps)
	}
	// What a kill has left goes at the next run.
	for _, left := range []string{"stage/.env.tmp-1", ".backup-0002.tar.age.tmp-77"} {
		write(t, s.dir, migrate.StateDir+"/"+left, "A_PASSWORD=first-value-1")
	}
	write(t, s.dir, "mnt/..env.tmp-42", "A_PASSWORD=first-value-1")
	journal, err := os.OpenFile(filepath.Join(s.dir, migrate.StateDir, "journal"), os.O_APPEND|os.O_WRONLY, 0)
	s.must(err)
	// 0.1 wrote beside each file.
	write(t, s.dir, "api/..env.production.tmp-8476123", "A_PASSWORD=first-value-1")
	_, err = journal.WriteString(`{"op":"temp","file":"mnt/.env"}` + "\n" + `{"op":"file","file":"api/.env.production","sha256":"00"}` + "\n")
	s.must(errors.Join(err, journal.Close()))
	s.fault = nil
	_, err = s.rollback(false)
	s.must(err)
	for _, left := range []string{migrate.StateDir + "/stage/.env.tmp-1", migrate.StateDir + "/.backup-0002.tar.age.tmp-77", "mnt/..env.tmp-42", "api/..env.production.tmp-8476123"} {
		if _, err := os.Lstat(filepath.Join(s.dir, left)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", left)
		}
	}
}

const posixACL = "system.posix_acl_access"

// accessList is a file's list in the kernel's form: its owner and a mask with all
// that others are given, user 4711 and group 4712.
// Source: include/uapi/linux/posix_acl_xattr.h
func accessList(user, group uint16) []byte {
	out := binary.LittleEndian.AppendUint32(nil, 2) // version
	for _, e := range []struct {
		tag, may uint16
		id       uint32
	}{{0x01, 0o6, 1<<32 - 1}, {0x02, user, 4711}, {0x04, 0o4, 1<<32 - 1}, {0x08, group, 4712}, {0x10, user | group, 1<<32 - 1}, {0x20, 0, 1<<32 - 1}} {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.may)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return out
}

// Owner, group, mode, access control list and attributes stay, there and back.
func TestAttributesStay(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\nP=1\n", "app.py": "import os\nA = os.environ['A_PASSWORD']\n"})
	look := func() string {
		out := ""
		for _, name := range []string{".env", "app.py"} {
			var st unix.Stat_t
			s.must(unix.Stat(filepath.Join(s.dir, name), &st))
			out += fmt.Sprintf("%s %o %d:%d", name, st.Mode, st.Uid, st.Gid)
			for _, attribute := range []string{"user.note", posixACL} {
				value := make([]byte, 256)
				n, _ := unix.Getxattr(filepath.Join(s.dir, name), attribute, value)
				out += fmt.Sprintf(" %q", value[:max(n, 0)])
			}
			out += "\n"
		}
		return out
	}
	s.must(os.Chmod(filepath.Join(s.dir, "app.py"), 0o751))
	for _, name := range []string{".env", "app.py"} {
		full := filepath.Join(s.dir, name)
		if err := unix.Setxattr(full, "user.note", []byte("x"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			s.must(os.Chown(full, 0, 33)) // root's, and a group's that is not root's
		}
	}
	// As setfacl -m u:4711:rw,g:4712:r does.
	for _, name := range []string{".env", "app.py"} {
		err := unix.Setxattr(filepath.Join(s.dir, name), posixACL, accessList(0o6, 0o4), 0)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Fatal(err)
		}
	}
	before := look()
	s.move()
	if got := look(); got != before {
		t.Errorf("after the cutover\n%swas\n%s", got, before)
	}
	_, err := s.rollback(false)
	s.must(err)
	if got := look(); got != before {
		t.Errorf("after the rollback\n%swas\n%s", got, before)
	}
	// And where the file has gone meanwhile.
	s.move()
	s.must(os.Remove(filepath.Join(s.dir, ".env")))
	_, err = s.rollback(false)
	s.must(err)
	if got := look(); got != before {
		t.Errorf("made again\n%swas\n%s", got, before)
	}
}

// A folder that cannot be written to is found out before the first file has
// changed, and not in the middle.
func TestFolderThatIsReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user for a while")
	}
	s := newSite(t, map[string]string{"a/.env": "A_PASSWORD=first-value-1\n", "b/.env": "B_TOKEN=second-value-2\n"})
	s.must(s.replan())
	_, err := s.apply(false)
	s.must(err)
	const nobody = 65534
	s.must(filepath.WalkDir(filepath.Dir(s.dir), func(full string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(full, nobody, os.Getegid()))
	}))
	s.must(os.Chown(filepath.Join(s.dir, "b"), 0, 0))
	s.must(os.Chmod(filepath.Join(s.dir, "b"), 0o755))
	s.must(syscall.Seteuid(nobody))
	_, err = s.cutover()
	s.must(syscall.Seteuid(0))
	if err == nil || !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "b/.env") {
		t.Errorf("got %v", err)
	}
	s.is("a/.env", "A_PASSWORD=first-value-1\n")
	s.is("b/.env", "B_TOKEN=second-value-2\n")
	if backups, err := filepath.Glob(filepath.Join(s.dir, migrate.StateDir, "backup-*")); err != nil || len(backups) > 0 {
		t.Errorf("it left %q, %v", backups, err)
	}
}

func TestHardLinksAreNamed(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\n"})
	s.must(os.Link(filepath.Join(s.dir, ".env"), filepath.Join(s.dir, "copy.txt")))
	s.must(s.replan())
	_, err := s.apply(false)
	s.must(err)
	if _, err = s.cutover(); err == nil || !strings.Contains(err.Error(), "has 2 names") {
		t.Fatalf("got %v", err)
	}
}

// Root works in another's tree: what it makes is the other's, and no link of the
// state folder is followed.
func TestAnothersTree(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\n"})
	if os.Geteuid() == 0 {
		s.must(os.Chown(s.dir, 4711, 4712))
	}
	var want unix.Stat_t
	s.must(unix.Stat(s.dir, &want))
	s.move()
	s.must(filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && d.Name() != ".env" {
			err = unix.Lstat(path, &st)
			if st.Uid != want.Uid || st.Gid != want.Gid {
				t.Errorf("%s is of %d:%d", path, st.Uid, st.Gid)
			}
		}
		return err
	}))
	// So are folders that a rollback makes again.
	below := newSite(t, map[string]string{"conf/api/.env": "A_PASSWORD=first-value-1\n"})
	if os.Geteuid() == 0 {
		below.must(errors.Join(os.Chown(below.dir, 4711, 4712), os.Chown(filepath.Join(below.dir, "conf/api/.env"), 4711, 4712)))
	}
	below.move()
	below.must(os.RemoveAll(filepath.Join(below.dir, "conf")))
	_, err := below.rollback(false)
	below.must(err)
	for _, name := range []string{"conf", "conf/api", "conf/api/.env"} {
		var st unix.Stat_t
		below.must(unix.Lstat(filepath.Join(below.dir, name), &st))
		if st.Uid != want.Uid || st.Gid != want.Gid {
			t.Errorf("%s is of %d:%d", name, st.Uid, st.Gid)
		}
	}
	for _, name := range []string{".gitignore", "journal", "lock"} {
		outside := filepath.Join(t.TempDir(), "outside")
		s.must(os.WriteFile(outside, []byte("theirs\n"), 0o600))
		link := filepath.Join(s.dir, migrate.StateDir, name)
		was, err := os.ReadFile(link)
		s.must(errors.Join(err, os.Remove(link), os.Symlink(outside, link)))
		if _, err := s.apply(false); err == nil {
			t.Errorf("%s is a link, and nobody minds", name)
		}
		if data, err := os.ReadFile(outside); err != nil || string(data) != "theirs\n" {
			t.Errorf("%s: what the link leads to is %q, %v", name, data, err)
		}
		s.must(errors.Join(os.Remove(link), os.WriteFile(link, was, 0o600)))
	}
}
