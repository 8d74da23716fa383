package cli

import (
	"path/filepath"

	"github.com/spf13/pflag"
)

// pathFlag is a flag that names a file. It keeps the absolute path: what the
// steps read and run they look up from the root of the file system, and a program
// without a slash in its name would be sought in $PATH.
type pathFlag struct{ to *string }

var _ pflag.Value = pathFlag{}

// Set makes value absolute. An empty one stays empty: the flag is then as if it
// had not been given.
func (p pathFlag) Set(value string) error {
	if value == "" {
		*p.to = ""
		return nil
	}
	abs, err := filepath.Abs(value)
	if err != nil {
		return err
	}
	*p.to = abs
	return nil
}

func (p pathFlag) String() string {
	if p.to == nil {
		return ""
	}
	return *p.to
}

func (pathFlag) Type() string { return "string" }
