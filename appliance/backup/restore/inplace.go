package restore

import (
	"context"
	"os"
)

// InPlace are the options for files that go where they belong, below /: without
// what is this machine's own, of which left tells what the archive has. Into any
// other folder all of them go.
func (f *Files) InPlace(ctx context.Context, o UnpackOptions) (_ UnpackOptions, left []string, err error) {
	if !isRoot(o.Root) {
		return o, nil, nil
	}
	o.Want = func(name string) bool { return !Own(name) }
	entries, err := f.List(ctx)
	if err != nil {
		return o, nil, err
	}
	for _, e := range entries {
		if !e.Mode.IsDir() && Own(e.Name) {
			left = append(left, e.Name)
		}
	}
	return o, left, nil
}

// isRoot tells whether dir is /, by whatever name.
func isRoot(dir string) bool {
	fi, err := os.Stat(dir)
	if err != nil {
		return false
	}
	root, err := os.Stat("/")
	return err == nil && os.SameFile(fi, root)
}
