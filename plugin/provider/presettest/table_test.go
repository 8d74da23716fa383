package presettest

import "strongroom.example/plugin/provider"

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
			cred: map[string]string{"key": "canary-cf-credential"},
		},
		"databricks": {
			caps:   with(func(c *provider.Capabilities) { c.MaxKeys = 600 }),
			params: map[string]any{"application_id": "12345678-90ab-cdef-1234-567890abcdef"},
			bad: map[string]map[string]any{"no principal": {}, "another form": {"application_id": "me"},
				"too short a life": {"application_id": "12345678-90ab-cdef-1234-567890abcdef", "lifetime_seconds": 60}},
			cred: map[string]string{"client_id": "canary-client", "key": "canary-client-secret"},
		},
		"snowflake-pat": {
			caps:   with(func(c *provider.Capabilities) { c.MaxKeys, c.LastUsed = 15, false }),
			params: map[string]any{"user": "DAGSTER", "role": "LOADER"},
			bad: map[string]map[string]any{"no user": {"role": "LOADER"}, "SQL in the user": {"user": `DAGSTER" DISABLED = TRUE --`, "role": "LOADER"},
				"SQL in the role": {"user": "DAGSTER", "role": "LOADER' DAYS_TO_EXPIRY = 365 --"}, "a user in small letters": {"user": "dagster", "role": "LOADER"},
				"SQL in the days": {"user": "DAGSTER", "role": "LOADER", "days_to_expiry": "1; DROP USER X"}, "too many days": {"user": "DAGSTER", "role": "LOADER", "days_to_expiry": 366}},
			cred: map[string]string{"client_id": "canary-client", "key": "canary-client-secret"},
		},
		"dbt-cloud": {
			caps: with(func(c *provider.Capabilities) { c.LastUsed = false }), host: "https://cloud.getdbt.com/api/v3/accounts/42/",
			params: map[string]any{"account_id": 42, "permissions": []any{map[string]any{"permission_set": "job_admin"}}},
			bad:    map[string]map[string]any{"no permissions": {"account_id": 42}, "account is text": {"account_id": "../1", "permissions": []any{}}},
			cred:   map[string]string{"key": "dbtc_canary-credential"},
		},
		"sendgrid": {
			caps: with(func(c *provider.Capabilities) { c.MaxKeys, c.LastUsed = 100, false }), host: "https://api.sendgrid.com/v3/",
			params: map[string]any{"scopes": []any{"mail.send"}},
			bad:    map[string]map[string]any{"no scopes would be full access": {}},
			cred:   map[string]string{"key": "SG.canary-sendgrid"},
		},
		"datadog": {
			caps: with(func(c *provider.Capabilities) { c.MaxKeys = 50 }), host: "https://api.datadoghq.com/api/",
			cred: map[string]string{"key": "canary-dd-api", "application_key": "canary-dd-app"},
		},
		"grafana": {
			caps: full, params: map[string]any{"service_account_id": 2},
			bad:  map[string]map[string]any{"no account": {}, "account is text": {"service_account_id": "two"}, "path in account": {"service_account_id": "2/../1"}},
			cred: map[string]string{"key": "glsa_canary-grafana"},
		},
		"openai": {
			caps: full, host: "https://api.openai.com/v1/organization/admin_api_keys",
			cred: map[string]string{"key": "sk-admin-canary"},
		},
		"gitlab": {
			caps: provider.Capabilities{Mint: true, Test: true, FromCurrent: true}, host: "https://gitlab.com/api/v4/personal_access_tokens/self",
		},
		"mailgun": {
			caps:   with(func(c *provider.Capabilities) { c.Test, c.LastUsed = false, false }),
			host:   "https://api.mailgun.net/v1/keys",
			params: map[string]any{"role": "sending", "kind": "domain", "domain_name": "mg.example.com"},
			bad:    map[string]map[string]any{"no role": {}, "unknown role": {"role": "root"}},
			cred:   map[string]string{"key": "canary-mailgun-0815"},
		},
		"digitalocean-spaces": {
			caps:   with(func(c *provider.Capabilities) { c.Test, c.LastUsed = false, false }),
			host:   "https://api.digitalocean.com/v2/spaces/keys",
			params: map[string]any{"grants": []any{map[string]any{"bucket": "b", "permission": "read"}}},
			bad:    map[string]map[string]any{"no grants": {}},
			cred:   map[string]string{"key": "dop_v1_canary"},
		},
		"github": {
			caps: byHand, host: "https://api.github.com/rate_limit",
		},
		"pagerduty": {
			caps: byHand, host: "https://api.pagerduty.com/abilities",
		},
		"hetzner-cloud": {
			caps: byHand, host: "https://api.hetzner.cloud/v1/locations",
		},
	}
}
