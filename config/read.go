package config

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// maxFile is what a configuration file may have, in bytes: a thousand times what
// any has.
const maxFile = 8 << 20

// Read reads a configuration file; all are read by it. What is larger than any
// configuration, a device say, is not read to its end; and a pipe is only read if
// somebody writes to it, as opening it would else wait where no interrupt ends it.
func Read(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read configuration: %q has more than %d MiB, and is another file", file, maxFile>>20)
	}
	if len(data) == 0 {
		if fi, err := f.Stat(); err == nil && fi.Mode()&fs.ModeNamedPipe != 0 {
			return nil, fmt.Errorf("read configuration: %q is a pipe, and nothing was written to it", file)
		}
	}
	return data, nil
}
