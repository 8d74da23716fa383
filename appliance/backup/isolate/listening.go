package isolate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// acceptsConnections is the flag of a listening socket in /proc/net/unix
// (__SO_ACCEPTCON of the kernel).
const acceptsConnections = 1 << 16

// othersSockets are the unix sockets that something on this machine listens on
// now, except those below keep: a database may listen anywhere.
func othersSockets(keep []string) ([]string, error) {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	paths, err := listening(f)
	return slices.DeleteFunc(paths, func(path string) bool {
		return slices.ContainsFunc(keep, func(k string) bool { return strings.HasPrefix(path, strings.TrimSuffix(k, "/")+"/") })
	}), err
}

// coverSockets puts what refuses connections over each of paths.
func coverSockets(paths []string) error {
	for _, path := range paths {
		// Some are of other mount namespaces, some of folders that are covered
		// already.
		if fi, err := os.Lstat(path); err != nil || fi.Mode()&fs.ModeSocket == 0 {
			continue
		}
		if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	return nil
}

// listening reads the paths of listening sockets from /proc/net/unix. Abstract
// ones belong to the network namespace and are left out.
func listening(r io.Reader) ([]string, error) {
	var paths []string
	s := bufio.NewScanner(r)
	for s.Scan() {
		// Num RefCount Protocol Flags Type St Inode Path; the path may hold
		// spaces.
		fields := strings.SplitN(strings.Join(strings.Fields(s.Text()), " "), " ", 8)
		if len(fields) < 8 || !filepath.IsAbs(fields[7]) {
			continue
		}
		flags, err := strconv.ParseUint(fields[3], 16, 64)
		if err != nil || flags&acceptsConnections == 0 {
			continue
		}
		paths = append(paths, fields[7])
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("listening sockets: %w", err)
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}
