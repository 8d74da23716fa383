// Package isolate starts a program that can reach nothing: no network but its
// own loopback, and none of the machine's sockets and logs that are named.
//
// A restored Vault begins to revoke leases and to rotate as soon as it is
// active; on a network it would do so in databases that are in use. What brings
// a snapshot up for a look, a drill or a rehearsal goes through here.
//
// It is not a sandbox for hostile code: the program keeps its user and sees the
// rest of the file system.
package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Verb is the hidden command of the strongroom program that runs Exec.
const Verb = "isolated-exec"

// Sockets are the folders in which databases of this machine listen.
var sockets = []string{"/run/postgresql", "/run/mysqld", "/run/mongodb", "/run/redis", "/run/valkey", "/var/lib/mysql"}

// ErrPrivileges means that this process may not cut a program off.
var ErrPrivileges = errors.New("cutting a program off from the network needs root")

// Command is the command line that runs program cut off: self is the strongroom
// program, hide are folders to hide beside those of databases.
func Command(self string, hide []string, program string) []string {
	return CommandWith(self, Options{Hide: hide}, program)
}

// Options of Exec.
type Options struct {
	// Hide are folders that are an empty one in memory to the program.
	Hide []string
	// Keep, where not empty, hides every unix socket too that something on this
	// machine listens on, except those below these folders.
	Keep []string
}

// CommandWith is Command with all options.
func CommandWith(self string, o Options, program string) []string {
	cmd := []string{self, Verb}
	for _, h := range o.Hide {
		cmd = append(cmd, "--hide", h)
	}
	for _, k := range o.Keep {
		cmd = append(cmd, "--keep-sockets", k)
	}
	return append(cmd, "--", program)
}

// Exec becomes the program argv[0] with env, in network and mount namespaces of
// its own, with the folders of databases and what o names hidden. It only
// returns with an error.
func Exec(argv, env []string, o Options) error {
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		return fmt.Errorf("isolate: program %q: want an absolute path", argv)
	}
	for _, dir := range append(slices.Clone(o.Hide), o.Keep...) {
		if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
			return fmt.Errorf("isolate: folder %q: want an absolute path below /", dir)
		}
	}
	// Namespaces belong to a thread; exec makes this one the whole process.
	runtime.LockOSThread()
	// That one did not get the parent's wish to die with it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("isolate: %w", err)
	}
	var found []string
	if len(o.Keep) > 0 {
		var err error
		// The list is the network namespace's: afterwards it would be empty.
		if found, err = othersSockets(o.Keep); err != nil {
			return fmt.Errorf("isolate: %w", err)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("isolate: %w: %w", ErrPrivileges, err)
		}
		return fmt.Errorf("isolate: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("isolate: loopback: %w", err)
	}
	// What is mounted here must not come to be outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("isolate: mounts: %w", err)
	}
	for _, dir := range append(slices.Clone(o.Hide), sockets...) {
		if err := cover(dir); err != nil {
			return fmt.Errorf("isolate: hide %q: %w", dir, err)
		}
	}
	if err := coverSockets(found); err != nil {
		return fmt.Errorf("isolate: hide sockets: %w", err)
	}
	if err := unix.Exec(argv[0], argv, env); err != nil {
		return fmt.Errorf("isolate: %q: %w", argv[0], err)
	}
	return nil
}

// cover puts an empty folder in memory over dir, where there is one.
func cover(dir string) error {
	fi, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return errors.New("not a folder")
	}
	return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "size=64m,mode=0700")
}

// loopbackUp gives 127.0.0.1 to a new network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
