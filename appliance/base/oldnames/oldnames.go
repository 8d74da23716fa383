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
	}
}

// Accept makes root and all below it take the old names for the new ones.
func Accept(root *cobra.Command) {
	renamed := map[string]string{}
	for _, f := range Flags() {
		if path := root.CommandPath(); path == f.Command || strings.HasPrefix(path, f.Command+" ") {
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
