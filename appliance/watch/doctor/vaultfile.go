package doctor

import (
	"errors"
	"fmt"

	"github.com/hashicorp/hcl"

	"strongroom.example/config/machine"
)

// vaultFile is what the doctor asks of Vault's configuration file.
type vaultFile struct {
	DisableMlock    *bool              `hcl:"disable_mlock"`
	PluginDirectory string             `hcl:"plugin_directory"`
	RawStorage      bool               `hcl:"raw_storage_endpoint"`
	Introspection   bool               `hcl:"introspection_endpoint"`
	Unauthenticated []string           `hcl:"enable_unauthenticated_access"`
	Listeners       []map[string]block `hcl:"listener"`
	Lockouts        []map[string]block `hcl:"user_lockout"`
}

// block is the content of a block, as HCL gives it.
type block []map[string]any

// parseVaultFile reads HCL version 1, as Vault does.
func parseVaultFile(data []byte) (f *vaultFile, err error) {
	// The library panics on some broken input.
	defer func() {
		if r := recover(); r != nil {
			f, err = nil, errors.New("is not HCL")
		}
	}()
	f = new(vaultFile)
	if err := hcl.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("is not a configuration of Vault: %w", err)
	}
	return f, nil
}

// configuration reads Vault's configuration file.
func (e *exam) configuration() (*vaultFile, bool) {
	if e.hcl != nil {
		return e.hcl, true
	}
	b, err := e.Machine.ReadFile(machine.VaultHCL)
	if err != nil {
		e.unseen(machine.VaultHCL, err)
		return nil, false
	}
	f, err := parseVaultFile(b)
	if err != nil {
		e.fail(reinstall, "%s %v", machine.VaultHCL, err)
		return nil, false
	}
	e.hcl = f
	return f, true
}

// gate is the address of a listener on which OpenBao makes root tokens for callers
// without a token; "" for none. It refuses them where nothing is said.
func (f *vaultFile) gate() string {
	for _, l := range f.Listeners {
		for kind, b := range l {
			if said := b.setting("disable_unauthed_generate_root_endpoints"); said != "" && said != "true" && said != "1" {
				return kind + " " + b.setting("address")
			}
		}
	}
	return ""
}

// setting gives a block's value by its name, as text; "" where it isn't there.
func (b block) setting(name string) string {
	for _, m := range b {
		if v, ok := m[name]; ok {
			return fmt.Sprint(v)
		}
	}
	return ""
}
