// Package oldnames lets both programs take the flags of earlier versions. Help
// texts do not show them; docs/commands.md does.
package oldnames

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Until is the version that no longer takes any of them.
const Until = "0.3"

// Flag is one flag that had another name.
type Flag struct {
	Command  string // as it is typed; what is below it is meant too
	Old, New string // without dashes
}

// Flags are all of them.
func Flags() []Flag {
	return []Flag{
		{"strongroom snapshot take", "vault-addr", "address"},
		{"strongroom snapshot take", "vault-cacert", "ca-cert"},
		{"strongroom metrics", "vault-addr", "address"},
		{"strongroom metrics", "vault-cacert", "ca-cert"},
		{"strongroom kms rotate", "vault", "address"},
		{"strongroom kms export", "out", "output"},
		{"strongroom app login-bundle", "out", "output"},
		{"strongroom app open-bundle", "dir", "output"},
		{"strongroom audit rotate", "dir", "audit-logs"},
		{"strongroom demo", "dir", "folder"},
		{"strongroom status", "state", "states"},
		{"strongroom doctor", "state", "states"},
		{"strongroom metrics", "front-address", "front"},
		{"strongroom drill", "escrow-dir", "escrow"},
		{"strongroom drill", "timeout", "patience"}, // but that of fetch
		{"strongroom escrow", "dir", "escrow"},
		{"strongroom restore", "timeout", "patience"},
		{"strongroom kv rollback", "apply", "yes"},
		{"strongroom migrate", "plan", "plan-file"},
		{"strongroom migrate rollback", "vault", "from-vault"},
		{"strongroom isolated-exec", "keep", "keep-sockets"},
		{"strongroom-installer upgrade", "plan", "dry-run"},
		{"strongroom-installer uninstall", "plan", "dry-run"},
		{"strongroom-installer restore", "master-key", "key-file"},
		{"strongroom-installer restore", "credential", "credential-file"},
	}
}

// Accept makes root and all below it take the old names for the new ones.
func Accept(root *cobra.Command) {
	root.InheritedFlags() // from here on Flags has them
	renamed := map[string]string{}
	for _, f := range Flags() {
		path := root.CommandPath()
		if (path == f.Command || strings.HasPrefix(path, f.Command+" ")) && root.Flags().Lookup(f.Old) == nil {
			renamed[f.Old] = f.New
		}
	}
	if len(renamed) > 0 {
		root.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
			if now, ok := renamed[name]; ok {
				name = now
			}
			return pflag.NormalizedName(name)
		})
	}
	for _, c := range root.Commands() {
		Accept(c)
	}
}
