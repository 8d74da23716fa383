package steps

import (
	"io/fs"
	"strings"
	"testing"

	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// A Vault that an uninstallation has left is welcome where the key that opens it
// is, and no other is.
func TestPreflightKeptVault(t *testing.T) {
	for _, c := range []struct {
		name string
		key  bool
	}{{"with its key", true}, {"without", false}} {
		t.Run(c.name, func(t *testing.T) {
			v := newVPS(t)
			for _, d := range []string{machine.VaultData, machine.RaftDir, machine.Etc, machine.CredentialDir} {
				v.Files[d] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o700}, Type: fs.ModeDir}}
			}
			v.Files[machine.RaftDir+"/vault.db"] = &host.Node{Data: []byte("data")}
			if c.key {
				v.Files[machine.MasterKeyFile] = &host.Node{Data: []byte("sealed")}
			}
			err := preflight{v.env()}.otherVault(t.Context())
			if refused := err != nil && strings.Contains(err.Error(), "is not empty"); refused == c.key {
				t.Errorf("error: %v", err)
			}
		})
	}
}
