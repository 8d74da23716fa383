package restore

import (
	"context"
	"os"
	"strings"

	"strongroom.example/config/machine"
)

// InPlace are the options for files that go where they belong, below /: without
// what is this machine's own, of which left tells what the archive has. Into any
// other folder all of them go.
func (f *Files) InPlace(ctx context.Context, o UnpackOptions) (_ UnpackOptions, left []string, err error) {
	if !isRoot(o.Root) {
		return o, nil, nil
	}
	o.Want = mayComeBack
	entries, err := f.List(ctx)
	if err != nil {
		return o, nil, err
	}
	for _, e := range entries {
		if !e.Mode.IsDir() && !mayComeBack(e.Name) {
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

// mayComeBack tells what may come back into its own place. The epoch must
// never go back, the record of what is installed is true already, and credentials
// and the link to Vault fit their own machine and time only.
func mayComeBack(name string) bool {
	name = "/" + name
	switch name {
	case machine.EpochFile, machine.ManifestFile:
		return false
	}
	return !strings.HasPrefix(name, machine.CredentialDir+"/") && !strings.HasPrefix(name, machine.TLSDir+"/")
}
