package atomicfile

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// MaxSmall is what a key, a certificate or a list of them may have, in bytes: far
// more than any has.
const MaxSmall = 1 << 20

// ReadSmall reads a file of at most max bytes; one that is larger is an error, and is
// not read to its end. A pipe that nobody writes to is empty: it is not waited for.
func ReadSmall(path string, max int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > max {
		clear(b)
		return nil, fmt.Errorf("read %q: more than %d bytes", path, max)
	}
	return b, nil
}
