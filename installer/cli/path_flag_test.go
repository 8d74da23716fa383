package cli

import (
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
)

// The steps look files up from the root, so a name that the operator gives from
// where he stands must reach them as an absolute path.
func TestFilesAreNamedFromWhereTheOperatorStands(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, c := range map[string]struct{ given, want string }{
		"a bare name":       {"s3.toml", filepath.Join(dir, "s3.toml")},
		"with a dot":        {"./s3.toml", filepath.Join(dir, "s3.toml")},
		"in another folder": {"../s3.toml", filepath.Join(filepath.Dir(dir), "s3.toml")},
		"absolute":          {"/root/s3.toml", "/root/s3.toml"},
		"none":              {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var install options
			ic := &cobra.Command{}
			install.flags(ic)
			upgrade := upgradeOptions{}
			uc := &cobra.Command{}
			upgrade.flags(uc)
			for _, flag := range []struct {
				c    *cobra.Command
				name string
				got  *string
			}{
				{ic, "vault-binary", &install.vaultBinary},
				{ic, "backup-credentials", &install.backupKeys},
				{uc, "vault-binary", &upgrade.vaultBinary},
			} {
				if err := flag.c.ParseFlags([]string{"--" + flag.name + "=" + c.given}); err != nil {
					t.Fatal(err)
				}
				if *flag.got != c.want {
					t.Errorf("--%s %q is %q, want %q", flag.name, c.given, *flag.got, c.want)
				}
			}
		})
	}
}
