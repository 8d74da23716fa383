package config

import (
	_ "embed"
)

//go:embed vault.hcl.tmpl
var vaultTemplate string
