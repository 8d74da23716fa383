package httpprov

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
)

// acme is a service with every capability: names, pages, a test with the key,
// last use by a request of its own, several values.
func acme(t *testing.T, change func(settings map[string]any)) (provider.Provider, *conformance.Fake) {
	t.Helper()
	f := &conformance.Fake{
		Credential: []string{"canary-token-0815"},
		Limit:      25,
		ID:         func(n int) string { return fmt.Sprintf("k-%03d", n) },
		Values: func(r conformance.Record) map[string]string {
			return map[string]string{"key": r.Value, "secret": "s." + r.Value}
		},
		Refusal: func(m string) string { return fmt.Sprintf(`{"error":{"message":%s}}`, conformance.Quote(m)) },
	}
	mux := http.NewServeMux()
	refuse := func(w http.ResponseWriter, code int, m string) {
		w.WriteHeader(code)
		fmt.Fprint(w, f.Refusal(m))
	}
	guard := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if f.Denied() || r.Header.Get("Authorization") != "Bearer "+f.Credential[0] {
				refuse(w, http.StatusUnauthorized, "who are you?")
				return
			}
			h(w, r)
		}
	}
	mux.HandleFunc("POST /v1/teams/{team}/keys", guard(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Label  string
			Scopes []string
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Label == "" || len(in.Scopes) == 0 {
			refuse(w, http.StatusBadRequest, "label or scopes missing")
			return
		}
		rec, ok := f.Create(in.Label, nil)
		if !ok {
			refuse(w, http.StatusConflict, "too many keys")
			return
		}
		conformance.JSON(w, http.StatusCreated, map[string]any{"data": map[string]any{
			"id": rec.ID, "token": rec.Value, "secret": "s." + rec.Value, "expires": "2030-01-02T03:04:05Z"}})
	}))
	mux.HandleFunc("GET /v1/teams/{team}/keys", guard(func(w http.ResponseWriter, r *http.Request) {
		const size = 10
		page, err := strconv.Atoi(r.URL.Query().Get("page"))
		if err != nil {
			refuse(w, http.StatusBadRequest, "page missing")
			return
		}
		items := []any{}
		for i, rec := range f.All() {
			if i/size+1 == page {
				items = append(items, map[string]any{"id": rec.ID, "label": rec.Name, "created": rec.Created.Unix()})
			}
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"data": items})
	}))
	mux.HandleFunc("DELETE /v1/teams/{team}/keys/{id}", guard(func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			refuse(w, http.StatusNotFound, "no such key")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	mux.HandleFunc("GET /v1/teams/{team}/keys/{id}/usage", guard(func(w http.ResponseWriter, r *http.Request) {
		rec, ok := f.Find(func(rec conformance.Record) bool { return rec.ID == r.PathValue("id") })
		if !ok {
			refuse(w, http.StatusNotFound, "no such key")
			return
		}
		at := ""
		if !rec.LastUsed.IsZero() {
			at = rec.LastUsed.Format(time.RFC3339)
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"at": at})
	}))
	mux.HandleFunc("GET /v1/whoami", func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("X-Key")
		if rec, ok := f.ByValue(key); !ok || r.Header.Get("X-Secret") != "s."+rec.Value {
			refuse(w, http.StatusUnauthorized, "no such key")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"ok": true})
	})
	url, ca := f.Serve(t, mux, func(r *http.Request) string {
		if strings.HasSuffix(r.URL.Path, "/usage") {
			return "last_used"
		}
		return conformance.ByMethod(func(r *http.Request) bool { return r.URL.Path == "/v1/whoami" })(r)
	})
	settings := acmeSettings(url, ca)
	if change != nil {
		change(settings)
	}
	p, err := New(provider.Config{
		Name: "acme", Settings: settings, Now: time.Now, Credential: map[string]string{"token": f.Credential[0]},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

func acmeSettings(url, ca string) map[string]any {
	return map[string]any{
		"allow_addresses": []any{"127.0.0.1/32"},
		"ca_certificate":  ca,
		"max_keys":        25,
		"error_message":   "$.error.message",
		"variables":       map[string]any{"url": url + "/"},
		"parameters": map[string]any{
			"team":   map[string]any{"required": true, "description": "whose keys"},
			"scopes": map[string]any{"type": "list", "default": []any{"read"}},
			"note":   map[string]any{},
		},
		"auth": map[string]any{"type": "bearer", "token": "{{credential.token}}"},
		"create": map[string]any{
			"url": "{{var.url}}/v1/teams/{{param.team}}/keys",
			"json": map[string]any{
				"label": "{{name}}", "scopes": "{{param.scopes}}", "note": "{{param.note}}",
				"text": "made by strongroom for {{param.team}}",
			},
			"id": "$.data.id", "expires": "$.data.expires",
			"values": map[string]any{"key": "$.data.token", "secret": "$.data.secret"},
		},
		"list": map[string]any{
			"url":   "{{var.url}}/v1/teams/{{param.team}}/keys",
			"items": "$.data", "id": "$.id", "name": "$.label", "created": "$.created",
			"paging": map[string]any{"type": "page", "parameter": "page"},
		},
		"test": map[string]any{
			"url":     "{{var.url}}/v1/whoami",
			"auth":    map[string]any{"type": "header", "headers": map[string]any{"X-Key": "{{value.key}}"}},
			"headers": map[string]any{"X-Secret": "{{value.secret}}"},
		},
		"revoke":    map[string]any{"url": "{{var.url}}/v1/teams/{{param.team}}/keys/{{id}}"},
		"last_used": map[string]any{"url": "{{var.url}}/v1/teams/{{param.team}}/keys/{{id}}/usage", "time": "$.at"},
	}
}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Subject{
		New: func(t *testing.T) (provider.Provider, conformance.Service) {
			p, f := acme(t, nil)
			return p, f
		},
		Params: map[string]any{"team": "data/eng 1"},
		BadParams: map[string]map[string]any{
			"missing":       {},
			"empty segment": {"team": ""},
			"dot segment":   {"team": ".."},
			"wrong type":    {"team": "x", "scopes": 3},
		},
	})
}
