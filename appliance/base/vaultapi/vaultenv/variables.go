// Package vaultenv is the environment that no answer of Vault's may depend on.
// It is for tests only.
package vaultenv

import (
	"slices"
	"testing"
)

// Variables are all that HashiCorp's client and command line read, with values
// that would change what they do, or stop them.
func Variables() map[string][]string {
	return map[string][]string{
		"VAULT_ADDR": {"http://127.0.0.1:1", "://"}, "VAULT_AGENT_ADDR": {"http://127.0.0.1:1", "://"},
		"VAULT_CACERT": {"/nowhere"}, "VAULT_CACERT_BYTES": {"none"}, "VAULT_CAPATH": {"/nowhere"},
		"VAULT_CLIENT_CERT": {"/nowhere"}, "VAULT_CLIENT_KEY": {"/nowhere"}, "VAULT_CLIENT_TIMEOUT": {"1ns", "garbage"},
		"VAULT_HEADERS": {`{"X-Canary":"1"}`, "garbage", `{"X-Vault-Token":"other"}`}, "VAULT_SRV_LOOKUP": {"true", "garbage"},
		"VAULT_SKIP_VERIFY": {"true", "garbage"}, "VAULT_NAMESPACE": {"other"}, "VAULT_TLS_SERVER_NAME": {"other"},
		"VAULT_WRAP_TTL": {"60s", "garbage"}, "VAULT_MAX_RETRIES": {"0", "garbage"}, "VAULT_TOKEN": {"other", "a b"},
		"VAULT_MFA": {"other"}, "VAULT_RATE_LIMIT": {"0.0001:1", "garbage"}, "VAULT_HTTP_PROXY": {"http://127.0.0.1:1", "://"},
		"VAULT_PROXY_ADDR": {"http://127.0.0.1:1", "://"}, "VAULT_DISABLE_REDIRECTS": {"true", "garbage"},
		"VAULT_ALLOW_PENDING_REMOVAL_DUPLICATE_HCL_ATTRIBUTES": {"true", "garbage"}, "VAULT_ALLOW_PENDING_REMOVAL_MOUNTS": {"true"},
		"VAULT_CLI_NO_COLOR": {"1"}, "VAULT_FORMAT": {"json"}, "VAULT_DETAILED": {"true"},
	}
}

// Garbage runs test with every variable set but those named: with the first of
// their values, with the second, and so on.
func Garbage(t *testing.T, test func(t *testing.T), but ...string) {
	t.Helper()
	for n, name := range []string{"first values", "second values", "third values"} {
		t.Run(name, func(t *testing.T) {
			for variable, values := range Variables() {
				if !slices.Contains(but, variable) {
					t.Setenv(variable, values[min(n, len(values)-1)])
				}
			}
			test(t)
		})
	}
}
