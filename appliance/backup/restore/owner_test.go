package restore

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it gives files away")
	}
}

func wantOwner(t *testing.T, path string, uid, gid int) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if u, g, _ := ownerOf(fi); u != uid || g != gid {
		t.Errorf("%s is of %d:%d, want %d:%d", path, u, g, uid, gid)
	}
}

// The daemons that read the files still can afterwards.
func TestUnpackKeepsOwners(t *testing.T) {
	needRoot(t)
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		t.Fatal(err)
	}
	f, err := filesOf(t, tarOf(t,
		member{name: "lib/", mode: 0o700, kind: '5', user: "nobody"},
		member{name: "lib/key", mode: 0o600, body: "key", user: "nobody"},
		member{name: "lib/stranger", mode: 0o600, body: "x", user: "no-such-user-here"},
		member{name: "etc/vault.hcl", mode: 0o640, body: "new", user: "nobody"},
	))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	hcl := filepath.Join(dir, "etc/vault.hcl")
	if err := errors.Join(os.Mkdir(filepath.Dir(hcl), 0o700), os.WriteFile(hcl, []byte("old"), 0o640), os.Chown(hcl, 4711, 4712)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Unpack(t.Context(), UnpackOptions{Root: dir, KeepOwners: true, Overwrite: true}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(hcl); err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
	wantOwner(t, hcl, 4711, 4712)
	wantOwner(t, filepath.Join(dir, "lib"), uid, 0)
	wantOwner(t, filepath.Join(dir, "lib/key"), uid, 0)
	wantOwner(t, filepath.Join(dir, "lib/stranger"), 0, 0)
}

// An epoch file that cannot be given to Vault never appears.
func TestEpochHasItsOwnerBeforeItAppears(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "epoch.json")
	const before = `{"installation_id":"x","epoch":4}`
	if err := errors.Join(os.WriteFile(path, []byte(before), 0o640), os.Chown(path, 0, 4711)); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		// The thread without the capability ends with the goroutine.
		runtime.LockOSThread()
		result <- func() error {
			if err := dropChown(); err != nil {
				return err
			}
			_, _, err := raiseEpoch(path, "", nil, 0)
			return err
		}()
	}()
	if err := <-result; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v, want %v", err, fs.ErrPermission)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != before {
		t.Errorf("%q, %v", got, err)
	}
	wantOwner(t, path, 0, 4711)

	_, undo, err := raiseEpoch(path, "", nil, 0)
	if err != nil || readEpoch(t, path) != 5 {
		t.Fatal(err)
	}
	wantOwner(t, path, 0, 4711)
	if err := undo(); err != nil || readEpoch(t, path) != 4 {
		t.Error(err)
	}
	wantOwner(t, path, 0, 4711)
}

// dropChown takes the right to give files away from this thread.
func dropChown() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_CHOWN
	return unix.Capset(&header, &data[0])
}
