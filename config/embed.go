package config

import (
	"bytes"
	_ "embed"
)

//go:embed vault.hcl.tmpl
var vaultTemplate string

//go:embed appliance.toml
var applianceTemplate []byte

// ApplianceTemplate is a commented appliance.toml with every key at its
// default, for the operator to fill in.
func ApplianceTemplate() []byte { return bytes.Clone(applianceTemplate) }

//go:embed nftables.conf.tmpl
var firewallTemplate string
