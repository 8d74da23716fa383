package vaultapi

import (
	"net/http"
	"strings"
	"testing"
)

// A new KV of version 2 refuses requests for a moment; whoever has mounted it is told
// when that is over. So is whoever writes to one.
func TestNewKV2IsWaitedFor(t *testing.T) {
	const upgrades = `{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."]}`
	for name, c := range map[string]struct {
		refusals int
		then     http.HandlerFunc
		fails    string
	}{
		"it is ready at once":           {0, answers(200, `{"data":{"max_versions":0}}`), ""},
		"it is ready soon":              {2, answers(200, `{"data":{"max_versions":0}}`), ""},
		"it takes long":                 {3, nil, "Upgrading"},
		"who mounts it may not read it": {1, answers(403, `{"errors":["permission denied"]}`), ""},
		"it has gone":                   {0, answers(404, `{"errors":["no handler for route"]}`), "takes no requests"},
		"it says nothing":               {0, answers(200, ""), "takes no requests"},
	} {
		t.Run(name, func(t *testing.T) {
			refused := 0
			h := func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(r.URL.Path, "/v1/sys/mounts/"):
					answers(204, "")(w, r)
				case refused < c.refusals:
					refused++
					answers(400, upgrades)(w, r)
				default:
					c.then(w, r)
				}
			}
			s := serve(t, h)
			err := client(t, Options{Address: s.URL, Token: "t"}).EnableKV2(t.Context(), "secret")
			if (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) || refused != c.refusals {
				t.Errorf("after %d refusals: %v", refused, err)
			}
			if got := s.requests()[0]; got.Method != http.MethodPut || got.URL.Path != "/v1/sys/mounts/secret" {
				t.Errorf("it asked %s %s", got.Method, got.URL)
			}
			if c.refusals == 0 || c.then == nil {
				return
			}
			refused = 0
			s = serve(t, h)
			if _, err := client(t, Options{Address: s.URL, Token: "t"}).Write(t.Context(), "secret/data/a", map[string]any{}); Status(err) == http.StatusBadRequest {
				t.Errorf("a write: %v", err)
			}
		})
	}
}
