package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/config/machine"
)

// findPrograms finds what a Vault of our own is started from: what the flags name,
// $VAULT_BIN, what lies beside this program, or $PATH.
func findPrograms(vault, plugin string) (scratch.Programs, error) {
	self, err := os.Executable()
	if err != nil {
		return scratch.Programs{}, fmt.Errorf("find this program: %w", err)
	}
	p := scratch.Programs{Strongroom: self, Vault: vault, Plugin: plugin}
	if p.Plugin == "" {
		p.Plugin = filepath.Join(filepath.Dir(self), machine.PluginName)
	}
	if p.Vault == "" {
		p.Vault = os.Getenv("VAULT_BIN")
	}
	if p.Vault == "" {
		p.Vault = filepath.Join(filepath.Dir(self), "vault")
		if _, err := os.Stat(p.Vault); err != nil {
			found, lookErr := exec.LookPath("vault")
			if lookErr != nil {
				return p, &Error{Code: ExitUsage, Err: errors.New("no vault program beside this one or in $PATH"),
					Hint: "build one with make vault, or name one with --vault"}
			}
			p.Vault = found
		}
	}
	return p, nil
}
