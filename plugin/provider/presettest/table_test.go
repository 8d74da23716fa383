package presettest

import (
	"fmt"
	"net/http"
	"testing"

	"strongroom/plugin/provider"
	"strongroom/plugin/provider/conformance"
)

func presets() map[string]preset {
	full := provider.Capabilities{Mint: true, List: true, Named: true, Test: true, Revoke: true, LastUsed: true, Overlap: true}
	with := func(change func(*provider.Capabilities)) provider.Capabilities {
		c := full
		change(&c)
		return c
	}
	byHand := provider.Capabilities{Test: true, Overlap: true}
	return map[string]preset{
		"cloudflare": {
			caps: with(func(c *provider.Capabilities) { c.MaxKeys = 50 }), host: "https://api.cloudflare.com/client/v4/user/tokens",
			params: map[string]any{"policies": []any{map[string]any{"effect": "allow",
				"resources": map[string]any{"com.cloudflare.api.account.zone.1": "*"}, "permission_groups": []any{map[string]any{"id": "g1"}}}}},
			bad:  map[string]map[string]any{"no policies": {}, "policies are text": {"policies": "all"}},
			fake: cloudflare, cred: map[string]string{"key": "canary-cf-credential"},
		},
		"sendgrid": {
			caps: with(func(c *provider.Capabilities) { c.MaxKeys, c.LastUsed = 100, false }), host: "https://api.sendgrid.com/v3/",
			params: map[string]any{"scopes": []any{"mail.send"}},
			bad:    map[string]map[string]any{"no scopes would be full access": {}},
			fake:   sendgrid, cred: map[string]string{"key": "SG.canary-sendgrid"},
		},
		"datadog": {
			caps: with(func(c *provider.Capabilities) { c.MaxKeys = 50 }), host: "https://api.datadoghq.com/api/",
			fake: datadog, cred: map[string]string{"key": "canary-dd-api", "application_key": "canary-dd-app"},
		},
		"grafana": {
			caps: full, params: map[string]any{"service_account_id": 2},
			bad:  map[string]map[string]any{"no account": {}, "account is text": {"service_account_id": "two"}, "path in account": {"service_account_id": "2/../1"}},
			fake: grafana, cred: map[string]string{"key": "glsa_canary-grafana"},
		},
		"openai": {
			caps: full, host: "https://api.openai.com/v1/organization/admin_api_keys",
			fake: openai, cred: map[string]string{"key": "sk-admin-canary"},
		},
		"gitlab": {
			caps: provider.Capabilities{Mint: true, Test: true}, host: "https://gitlab.com/api/v4/personal_access_tokens/self",
			fake: gitlab,
		},
		"mailgun": {
			caps:   with(func(c *provider.Capabilities) { c.Test, c.LastUsed = false, false }),
			host:   "https://api.mailgun.net/v1/keys",
			params: map[string]any{"role": "sending", "kind": "domain", "domain_name": "mg.example.com"},
			bad:    map[string]map[string]any{"no role": {}, "unknown role": {"role": "root"}},
			fake:   mailgun, cred: map[string]string{"key": "canary-mailgun-0815"},
		},
		"digitalocean-spaces": {
			caps:   with(func(c *provider.Capabilities) { c.Test, c.LastUsed = false, false }),
			host:   "https://api.digitalocean.com/v2/spaces/keys",
			params: map[string]any{"grants": []any{map[string]any{"bucket": "b", "permission": "read"}}},
			bad:    map[string]map[string]any{"no grants": {}},
			fake:   spaces, cred: map[string]string{"key": "dop_v1_canary"},
		},
		"github": {
			caps: byHand, host: "https://api.github.com/rate_limit",
			fake: testOnly(func(r *http.Request) string { return bearer(r) },
				func(m string) string { return fmt.Sprintf(`{"message":%s,"status":"401"}`, conformance.Quote(m)) },
				func(r *http.Request) bool {
					return r.URL.Path == "/rate_limit" && r.Header.Get("X-GitHub-Api-Version") == "2022-11-28" && r.UserAgent() != ""
				}),
		},
		"pagerduty": {
			caps: byHand, host: "https://api.pagerduty.com/abilities",
			fake: testOnly(func(r *http.Request) string { return after(r.Header.Get("Authorization"), "Token token=") },
				func(m string) string {
					return fmt.Sprintf(`{"error":{"message":%s,"code":2006}}`, conformance.Quote(m))
				},
				func(r *http.Request) bool { return r.URL.Path == "/abilities" }),
		},
		"hetzner-cloud": {
			caps: byHand, host: "https://api.hetzner.cloud/v1/locations",
			fake: testOnly(func(r *http.Request) string { return bearer(r) },
				func(m string) string {
					return fmt.Sprintf(`{"error":{"code":"unauthorized","message":%s}}`, conformance.Quote(m))
				},
				func(r *http.Request) bool { return r.URL.Path == "/v1/locations" }),
		},
	}
}

type fakeService = func() (*conformance.Fake, func(t *testing.T) (url, ca string))

// serve ties a fake's handler and its way to tell operations apart.
func serve(f *conformance.Fake, h http.Handler, test func(*http.Request) bool) func(t *testing.T) (string, string) {
	return func(t *testing.T) (string, string) { return f.Serve(t, h, conformance.ByMethod(test)) }
}
