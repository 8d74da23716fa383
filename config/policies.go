package config

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

//go:embed policies/*.hcl
var policyFiles embed.FS

// The policies of the appliance's own jobs, and of its operator.
const (
	PolicySnapshot = "strongroom-snapshot"
	PolicyCanary   = "strongroom-canary"
	PolicyDrill    = "strongroom-drill"
	PolicyDoctor   = "strongroom-doctor"
	PolicyMonitor  = "strongroom-monitor"
	PolicyAdmin    = "strongroom-admin"
)

// Policies are the appliance's own policies by name, in Vault's language:
// https://developer.hashicorp.com/vault/docs/concepts/policies.
func Policies() map[string]string {
	entries, err := fs.ReadDir(policyFiles, "policies")
	if err != nil {
		panic(fmt.Sprintf("config: the embedded policies can't be read: %v", err))
	}
	out := make(map[string]string, len(entries))
	for _, e := range entries {
		b, err := policyFiles.ReadFile("policies/" + e.Name())
		if err != nil {
			panic(fmt.Sprintf("config: the embedded policies can't be read: %v", err))
		}
		out[strings.TrimSuffix(e.Name(), ".hcl")] = string(b)
	}
	return out
}
