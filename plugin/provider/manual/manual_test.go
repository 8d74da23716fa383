package manual

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
)

// console is a service whose keys a person makes, and which can still be asked
// about them.
func console(t *testing.T) (provider.Provider, *conformance.Fake) {
	t.Helper()
	f := &conformance.Fake{
		Credential: []string{"canary-console"},
		ID:         func(n int) string { return fmt.Sprintf("c-%d", n) },
		Refusal:    func(m string) string { return fmt.Sprintf(`{"error":%s}`, conformance.Quote(m)) },
	}
	mux := http.NewServeMux()
	refuse := func(w http.ResponseWriter, status int) {
		w.WriteHeader(status)
		fmt.Fprint(w, f.Refusal("no"))
	}
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := f.ByValue(r.Header.Get("X-Key")); !ok {
			refuse(w, http.StatusUnauthorized)
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{})
	})
	admin := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if f.Denied() || r.Header.Get("Authorization") != "Bearer "+f.Credential[0] {
				refuse(w, http.StatusUnauthorized)
				return
			}
			h(w, r)
		}
	}
	mux.HandleFunc("GET /keys", admin(func(w http.ResponseWriter, r *http.Request) {
		items := []any{}
		for _, rec := range f.All() {
			used := ""
			if !rec.LastUsed.IsZero() {
				used = rec.LastUsed.Format(time.RFC3339)
			}
			items = append(items, map[string]any{"id": rec.ID, "used": used})
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"items": items})
	}))
	mux.HandleFunc("DELETE /keys/{id}", admin(func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			refuse(w, http.StatusNotFound)
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{})
	}))
	url, ca := f.Serve(t, mux, conformance.ByMethod(func(r *http.Request) bool { return r.URL.Path == "/me" }))
	auth := map[string]any{"type": "bearer", "token": "{{credential.key}}"}
	p, err := New(provider.Config{
		Now: time.Now, Credential: map[string]string{"key": f.Credential[0]},
		Settings: map[string]any{
			"allow_addresses": "127.0.0.1", "ca_certificate": ca, "console_url": "https://console.example.com/keys",
			"instructions": "Make one with the role reader.",
			"variables":    map[string]any{"url": url},
			"test":         map[string]any{"url": "{{var.url}}/me", "headers": map[string]any{"X-Key": "{{value.key}}"}},
			"list":         map[string]any{"url": "{{var.url}}/keys", "auth": auth, "items": "$.items", "id": "$.id", "last_used": "$.used"},
			"revoke":       map[string]any{"url": "{{var.url}}/keys/{{id}}", "auth": auth},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Subject{
		New: func(t *testing.T) (provider.Provider, conformance.Service) { return console(t) },
	})
}

func TestForPeople(t *testing.T) {
	p, _ := console(t)
	m := p.(*Provider)
	if m.ConsoleURL != "https://console.example.com/keys" || m.Instructions == "" {
		t.Fatalf("%q, %q", m.ConsoleURL, m.Instructions)
	}
	if caps := p.Capabilities(); caps.Mint || caps.Named || !caps.Overlap {
		t.Fatalf("%+v", caps)
	}
}

func TestNothingDeclared(t *testing.T) {
	p, err := New(provider.Config{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if caps := p.Capabilities(); caps != (provider.Capabilities{Overlap: true}) {
		t.Fatalf("%+v", caps)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		settings   map[string]any
	}{
		{"minting", "settings.create: is not for this type", map[string]any{"create": map[string]any{"url": "https://x.example.com"}}},
		{"unknown", "settings.console: is not known", map[string]any{"console": "x"}},
		{"script as console", "must be an https URL", map[string]any{"console_url": "javascript:alert(1)"}},
		{"password in console", "must be an https URL", map[string]any{"console_url": "https://a:b@example.com"}},
		{"empty console", "must be an https URL", map[string]any{"console_url": ""}},
		{"unreadable console", "must be an https URL", map[string]any{"console_url": "https://%zz"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(provider.Config{Settings: tc.settings, Now: time.Now})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("%v, want %q in it", err, tc.want)
			}
		})
	}
}
