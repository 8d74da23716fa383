package atomicfile

import (
	"io/fs"
	"os"
	"syscall"
)

// OpenRoot is os.OpenRoot, but that it says at once when dir is no folder: a named
// pipe would be waited for.
func OpenRoot(dir string) (*os.Root, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR}
	}
	return os.OpenRoot(dir)
}
