package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/vaultenv"
)

// answers are those of a Vault that an upgrade finds, by call.
func answers() map[string]string {
	return map[string]string{
		"GET sys/health": `{"initialized":true,"sealed":false,"standby":false,"version":"1.21.1","cluster_name":"n","cluster_id":"c"}`,
		"GET sys/leader": `{"ha_enabled":true,"is_self":true,"raft_applied_index":77}`,

		"GET auth/token/lookup-self": `{"data":{"id":"hidden"}}`,
		"GET sys/mounts":             `{"data":{"apikeys/":{"type":"vault-plugin-secrets-apikeys","plugin_version":"v1.0.0","running_plugin_version":"v1.0.1"},"sys/":{"type":"system"}}}`,
		"GET sys/plugins/catalog":    `{"data":{"detailed":[{"name":"vault-plugin-secrets-apikeys","type":"secret","version":"v1.0.0"},{"name":"vault-plugin-secrets-apikeys","type":"secret","version":"v1.0.1"},{"name":"vault-plugin-secrets-apikeys","type":"auth","version":"v9.0.0"},{"name":"kv","type":"secret","version":"v0.20.0"}]}}`,
		"GET apikeys/status":         `{"data":{"fence":{"closed":true,"reason":"restored"}}}`,
		"GET apikeys/config":         `{"data":{"max_wait":90}}`,
		"GET sys/policies/acl/a":     `{"data":{"name":"a","policy":"path \"x\" {}"}}`,
		"GET sys/policies/acl/none":  ``,
		"PUT apikeys/reconcile":      `{"data":{"done":true,"checked":2}}`,
	}
}

// serve is that Vault; other, if set, answers to calls of its choice.
func serve(t *testing.T, other func(w http.ResponseWriter, call string) bool) Vault {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1/")
		w.Header().Set("Content-Type", "application/json")
		if other != nil && other(w, call) {
			return
		}
		body, ok := answers()[call]
		switch {
		case r.Header.Get("X-Vault-Token") != "mine" || r.Header.Get("X-Vault-Namespace")+r.Header.Get("X-Vault-Wrap-TTL") != "":
			w.WriteHeader(http.StatusForbidden)
			body = `{"errors":["permission denied"]}`
		case call == "PUT sys/capabilities-self":
			var in struct{ Paths []string }
			_ = json.NewDecoder(r.Body).Decode(&in) // as the client sends it
			body = fmt.Sprintf(`{"data":{%q:["read","update"],"capabilities":["read","update"]}}`, in.Paths[0])
		case !ok:
			t.Errorf("asked for %s", call)
			fallthrough
		case body == "":
			w.WriteHeader(http.StatusNotFound)
			body = `{"errors":[]}`
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(srv.Close)
	c, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	return NewVault(c.Once(0))
}

// question is one thing that is asked.
type question struct {
	call, want string
	ask        func(ctx context.Context, v Vault) (any, error)
}

func questions() []question {
	return []question{
		{"GET sys/health", "{c n Vault 1.21.1}", func(ctx context.Context, v Vault) (any, error) { return v.Info(ctx) }},
		{"GET sys/leader", "77", func(ctx context.Context, v Vault) (any, error) { return v.RaftIndex(ctx) }},
		{"GET auth/token/lookup-self", "", func(ctx context.Context, v Vault) (any, error) { return "", v.MayUpgrade(ctx) }},
		{"PUT sys/capabilities-self", "", func(ctx context.Context, v Vault) (any, error) { return "", v.MayUpgrade(ctx) }},
		{"GET sys/mounts", "v1.0.0 v1.0.1", func(ctx context.Context, v Vault) (any, error) {
			pinned, running, err := v.Mounted(ctx)
			return pinned + " " + running, err
		}},
		{"GET sys/plugins/catalog", "[v1.0.0 v1.0.1]", func(ctx context.Context, v Vault) (any, error) { return v.Registered(ctx) }},
		{"GET apikeys/status", "true", func(ctx context.Context, v Vault) (any, error) { return v.Status(ctx) }},
		{"GET apikeys/config", "90", func(ctx context.Context, v Vault) (any, error) { return v.MaxWait(ctx) }},
		{"GET sys/policies/acl/a", `path "x" {}`, func(ctx context.Context, v Vault) (any, error) { return v.Policy(ctx, "a") }},
		{"GET sys/policies/acl/none", "", func(ctx context.Context, v Vault) (any, error) { return v.Policy(ctx, "none") }},
		{"PUT apikeys/reconcile", "", func(ctx context.Context, v Vault) (any, error) { return "", v.Reconcile(ctx) }},
	}
}

// What an upgrade sees in Vault is the same whatever the caller's variables are.
func TestVaultVariables(t *testing.T) {
	vaultenv.Garbage(t, func(t *testing.T) {
		v := serve(t, nil)
		for _, q := range questions() {
			if got, err := q.ask(t.Context(), v); err != nil || fmt.Sprint(got) != q.want {
				t.Errorf("%s: %v, %v; want %s", q.call, got, err, q.want)
			}
		}
	})
}

// An answer without what was asked for is an error: no engine reads as open, no
// catalog as empty, no policy as one that is not there.
func TestAnswersThatSayNothing(t *testing.T) {
	for name, answer := range map[string]struct {
		status int
		body   string
	}{
		"nobody there": {404, `{"errors":["no handler for route \"x\". route entry not found."]}`},
		"unsupported":  {404, `{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}`},
		"not Vault":    {404, `page not found`},
		"empty":        {204, ``},
		"no data":      {200, `{"data":null}`},
		"wrapped":      {200, `{"data":null,"wrap_info":{"token":"w","ttl":60}}`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, q := range questions() {
				v := serve(t, func(w http.ResponseWriter, call string) bool {
					if call != q.call {
						return false
					}
					w.WriteHeader(answer.status)
					if answer.body != "" {
						_, _ = w.Write([]byte(answer.body))
					}
					return true
				})
				if got, err := q.ask(t.Context(), v); err == nil {
					t.Errorf("%s reads as %v", q.call, got)
				}
			}
		})
	}
}

// The catalog and the status of an engine are not read by halves.
func TestAnswersByHalves(t *testing.T) {
	for call, bodies := range map[string][]string{
		"GET apikeys/status":    {`{"data":{}}`, `{"data":{"fence":{}}}`, `{"data":{"fence":{"closed":"no"}}}`},
		"GET apikeys/config":    {`{"data":{}}`, `{"data":{"max_wait":null}}`, `{"data":{"max_wait":"90"}}`},
		"PUT apikeys/reconcile": {`{"data":{}}`, `{"data":{"done":false}}`, `{"data":{"done":false,"checked":1,"finished_time":"2026-01-01T00:00:00Z"}}`},

		"PUT sys/capabilities-self": {`{"data":{}}`, `{"data":{"capabilities":["root"]}}`},
		"GET sys/plugins/catalog":   {`{"data":{}}`, `{"data":{"detailed":[]}}`},
		"GET sys/mounts":            {`{"data":{}}`, `{"data":{"apikeys/":{"type":"kv"}}}`, `{"data":{"apikeys/":{}}}`},
	} {
		i := slices.IndexFunc(questions(), func(q question) bool { return q.call == call })
		for _, body := range bodies {
			v := serve(t, func(w http.ResponseWriter, c string) bool {
				if c == call {
					_, _ = w.Write([]byte(body))
				}
				return c == call
			})
			if got, err := questions()[i].ask(t.Context(), v); err == nil {
				t.Errorf("%s: %s reads as %v", call, body, got)
			}
		}
	}
}
