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

//go:embed alerts/strongroom.rules.yml
var alertRules []byte

// AlertRules are rules for Prometheus about what `strongroom metrics` tells.
func AlertRules() []byte { return bytes.Clone(alertRules) }

//go:embed grafana/strongroom.json
var grafanaDashboard []byte

// GrafanaDashboard shows what `strongroom metrics` tells, to be imported into
// Grafana.
func GrafanaDashboard() []byte { return bytes.Clone(grafanaDashboard) }
