package kms

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"
)

// ListenFor is Listen with the mode that lets these uids connect.
func ListenFor(path string, uids []uint32) (net.Listener, error) {
	mode := fs.FileMode(0o600)
	if !slices.Equal(uids, []uint32{uint32(os.Geteuid())}) {
		mode = 0o666
	}
	return Listen(path, mode)
}

// Listen makes the unix socket at path. Mode is its mode: 0600 where Vault has
// this process's uid; with another uid the kernel wants write permission to
// connect, and the peer check is what decides. A socket that a killed server
// has left is replaced; one that is answered, or a file that isn't a socket,
// is an error. The socket is removed when the listener is closed.
func Listen(path string, mode fs.FileMode) (net.Listener, error) {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	case fi.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("listen on %q: something that isn't a socket is there", path)
	default:
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return nil, fmt.Errorf("listen on %q: another server answers there", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("listen on %q: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen on %q: %w", path, err)
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", path, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %q: %w", path, err), ln.Close())
	}
	return ln, nil
}
