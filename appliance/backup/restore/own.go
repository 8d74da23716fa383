package restore

import (
	"path"
	"slices"
	"strings"

	"strongroom.example/config/machine"
)

// ownFiles and ownFolders are a machine's own: what fits it alone, what tells what it is,
// what the installer writes and tries before it holds. Of another machine, or of another
// time, they do harm in their places.
var (
	ownFiles = append([]string{
		// The epoch never goes back.
		machine.EpochFile, machine.ManifestFile, machine.DrillKeyPub, machine.DrillSigningPub, machine.KeyringFile,
		machine.VaultHCL, machine.FrontTOML, machine.NftablesConf, machine.NftablesConf + ".new", "/etc/machine-id",
	}, machine.SystemFiles()...)
	ownFolders = []string{
		machine.CredentialDir, machine.TLSDir, machine.StateDir, machine.VaultData, machine.LibDir, "/run",
	}
)

// Own says whether a file, by its name in an archive or its path, is a machine's own,
// and must not come back into its place.
func Own(name string) bool {
	at := path.Clean("/" + name)
	return slices.Contains(ownFiles, at) || slices.ContainsFunc(ownFolders, func(dir string) bool {
		return at == dir || strings.HasPrefix(at, dir+"/")
	})
}
