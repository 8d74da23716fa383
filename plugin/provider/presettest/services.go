// Package presettest has a service for each preset of config/providers, which
// behaves as the provider's documentation says, and tests each preset with it.
//
// The services are no more than that: what the documentation leaves open they
// leave out, and nothing here was compared with the services themselves.
package presettest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider/conformance"
)

// Service is one of them, ready to be served.
type Service struct {
	*conformance.Fake
	handler  http.Handler
	classify func(*http.Request) string
}

func newServer(f *conformance.Fake, h http.Handler, test func(*http.Request) bool) Service {
	return newServerBy(f, h, conformance.ByMethod(test))
}

// newServerBy is for services whose requests are not told apart by the method.
func newServerBy(f *conformance.Fake, h http.Handler, classify func(*http.Request) string) Service {
	return Service{Fake: f, handler: h, classify: classify}
}

// Start serves it over TLS and gives its URL and the certificate, in PEM, that
// a client must trust.
func (s Service) Start(t *testing.T) (url, ca string) {
	t.Helper()
	return s.Serve(t, s.handler, s.classify)
}

// Services are the constructors, by the preset's name.
func Services() map[string]func() Service {
	return map[string]func() Service{
		"cloudflare": cloudflare, "sendgrid": sendgrid, "datadog": datadog, "grafana": grafana, "openai": openai,
		"databricks": databricks, "snowflake-pat": snowflake, "dbt-cloud": dbtCloud,
		"gitlab": gitlab, "mailgun": mailgun, "digitalocean-spaces": spaces,
		"github": testOnly(bearer,
			func(m string) string { return fmt.Sprintf(`{"message":%s,"status":"401"}`, conformance.Quote(m)) },
			func(r *http.Request) bool {
				return r.URL.Path == "/rate_limit" && r.Header.Get("X-GitHub-Api-Version") == "2022-11-28" && r.UserAgent() != ""
			}),
		"pagerduty": testOnly(
			func(r *http.Request) string { return after(r.Header.Get("Authorization"), "Token token=") },
			func(m string) string {
				return fmt.Sprintf(`{"error":{"message":%s,"code":2006}}`, conformance.Quote(m))
			},
			func(r *http.Request) bool { return r.URL.Path == "/abilities" }),
		"hetzner-cloud": testOnly(bearer,
			func(m string) string {
				return fmt.Sprintf(`{"error":{"code":"unauthorized","message":%s}}`, conformance.Quote(m))
			},
			func(r *http.Request) bool { return r.URL.Path == "/v1/locations" }),
	}
}

func after(s, prefix string) string {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return ""
	}
	return rest
}

func bearer(r *http.Request) string { return after(r.Header.Get("Authorization"), "Bearer ") }

// stamp is a time, or null for never.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Format(time.RFC3339)
}

func unix(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Unix()
}

// service answers requests; a refusal is its status and message.
type service struct {
	*conformance.Fake
	mux *http.ServeMux
	// allowed tells whether a request shows the credential.
	allowed func(r *http.Request) bool
	// unauthorized is the status for who does not.
	unauthorized int
}

func newService(f *conformance.Fake, allowed func(*http.Request) bool) *service {
	return &service{Fake: f, mux: http.NewServeMux(), allowed: allowed, unauthorized: http.StatusUnauthorized}
}

func (s *service) refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprint(w, s.Refusal(message))
}

func (s *service) handle(pattern string, h http.HandlerFunc) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if s.Denied() || !s.allowed(r) {
			s.refuse(w, s.unauthorized, "not authenticated")
			return
		}
		h(w, r)
	})
}

// open is handle for requests that show a key.
func (s *service) open(pattern string, h http.HandlerFunc) { s.mux.HandleFunc(pattern, h) }

func read(r *http.Request, into any) bool {
	return r.Header.Get("Content-Type") == "application/json" && json.NewDecoder(r.Body).Decode(into) == nil
}

// page is the part of the records that page (counted from first) of size shows.
func page(all []conformance.Record, number, first, size int) []conformance.Record {
	from := min(max(number-first, 0)*size, len(all))
	return all[from:min(from+size, len(all))]
}

func number(r *http.Request, name string, def int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil {
		return def
	}
	return n
}

// https://developers.cloudflare.com/api/resources/user/subresources/tokens/
func cloudflare() Service {
	f := &conformance.Fake{
		Credential: []string{"canary-cf-credential"}, Limit: 50,
		ID:    func(n int) string { return fmt.Sprintf("ed17574386854bf78a67040be0a7%04x", n) },
		Value: func(_ int, random string) string { return random },
		Refusal: func(m string) string {
			return fmt.Sprintf(`{"success":false,"errors":[{"code":1000,"message":%s}],"messages":[],"result":null}`, conformance.Quote(m))
		},
	}
	s := newService(f, func(r *http.Request) bool { return bearer(r) == f.Credential[0] })
	envelope := func(result any, info any) map[string]any {
		return map[string]any{"success": true, "errors": []any{}, "messages": []any{}, "result": result, "result_info": info}
	}
	show := func(r conformance.Record) map[string]any {
		return map[string]any{"id": r.ID, "name": r.Name, "status": "active", "issued_on": stamp(r.Created),
			"modified_on": stamp(r.Created), "last_used_on": stamp(r.LastUsed), "policies": []any{}}
	}
	s.handle("POST /user/tokens", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Name     string
			Policies []struct {
				Effect           string
				Resources        map[string]any
				PermissionGroups []any `json:"permission_groups"`
			}
		}
		if !read(r, &in) || in.Name == "" || len(in.Policies) == 0 || in.Policies[0].Effect == "" || len(in.Policies[0].PermissionGroups) == 0 {
			s.refuse(w, http.StatusBadRequest, "Invalid request body")
			return
		}
		rec, ok := f.Create(in.Name, nil)
		if !ok {
			s.refuse(w, http.StatusBadRequest, "You have reached the maximum number of API tokens")
			return
		}
		out := show(rec)
		out["value"] = rec.Value
		conformance.JSON(w, http.StatusOK, envelope(out, nil))
	})
	s.handle("GET /user/tokens", func(w http.ResponseWriter, r *http.Request) {
		size := min(max(number(r, "per_page", 20), 5), 50)
		all, at := f.All(), number(r, "page", 1)
		items := []any{}
		for _, rec := range page(all, at, 1, size) {
			items = append(items, show(rec))
		}
		conformance.JSON(w, http.StatusOK, envelope(items, map[string]any{
			"page": at, "per_page": size, "count": len(items), "total_count": len(all), "total_pages": (len(all) + size - 1) / size}))
	})
	s.open("GET /user/tokens/verify", func(w http.ResponseWriter, r *http.Request) {
		rec, ok := f.ByValue(bearer(r))
		if !ok {
			s.refuse(w, http.StatusUnauthorized, "Invalid API Token")
			return
		}
		conformance.JSON(w, http.StatusOK, envelope(map[string]any{"id": rec.ID, "status": "active"}, nil))
	})
	s.handle("DELETE /user/tokens/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			s.refuse(w, http.StatusNotFound, "API token not found")
			return
		}
		conformance.JSON(w, http.StatusOK, envelope(map[string]any{"id": r.PathValue("id")}, nil))
	})
	return newServer(f, s.mux, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/verify") })
}

// https://www.twilio.com/docs/sendgrid/api-reference/api-keys
func sendgrid() Service {
	f := &conformance.Fake{
		Credential: []string{"SG.canary-sendgrid"}, Limit: 100,
		ID:    func(n int) string { return fmt.Sprintf("xxxxxxxxxxxxxxxx%06d", n) },
		Value: func(n int, random string) string { return "SG." + random[:22] + "." + random },
		Refusal: func(m string) string {
			return fmt.Sprintf(`{"errors":[{"field":null,"message":%s}]}`, conformance.Quote(m))
		},
	}
	s := newService(f, func(r *http.Request) bool { return bearer(r) == f.Credential[0] })
	s.handle("POST /v3/api_keys", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Name   string
			Scopes []string
		}
		if !read(r, &in) || in.Name == "" || len(in.Scopes) == 0 {
			s.refuse(w, http.StatusBadRequest, "missing required argument")
			return
		}
		rec, ok := f.Create(in.Name, nil)
		if !ok {
			s.refuse(w, http.StatusForbidden, "Cannot create more than 100 API Keys")
			return
		}
		conformance.JSON(w, http.StatusCreated, map[string]any{"api_key": rec.Value, "api_key_id": rec.ID, "name": rec.Name, "scopes": in.Scopes})
	})
	s.handle("GET /v3/api_keys", func(w http.ResponseWriter, r *http.Request) {
		items := []any{}
		for _, rec := range page(f.All(), 0, 0, number(r, "limit", 50)) {
			items = append(items, map[string]any{"name": rec.Name, "api_key_id": rec.ID})
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"result": items})
	})
	s.open("GET /v3/scopes", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := f.ByValue(bearer(r)); !ok {
			s.refuse(w, http.StatusUnauthorized, "The provided authorization grant is invalid, expired, or revoked")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"scopes": []any{"mail.send"}})
	})
	s.handle("DELETE /v3/api_keys/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			s.refuse(w, http.StatusNotFound, "unable to find API Key")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return newServer(f, s.mux, func(r *http.Request) bool { return r.URL.Path == "/v3/scopes" })
}

// https://docs.datadoghq.com/api/latest/key-management/
func datadog() Service {
	f := &conformance.Fake{
		Credential: []string{"canary-dd-api", "canary-dd-app"}, Limit: 50,
		ID:      func(n int) string { return fmt.Sprintf("a1b2c3d4-e5f6-47a8-b9c0-d1e2f3a4%04x", n) },
		Value:   func(_ int, random string) string { return random[:32] },
		Refusal: func(m string) string { return fmt.Sprintf(`{"errors":[%s]}`, conformance.Quote(m)) },
	}
	s := newService(f, func(r *http.Request) bool {
		return r.Header.Get("DD-API-KEY") == f.Credential[0] && r.Header.Get("DD-APPLICATION-KEY") == f.Credential[1]
	})
	s.unauthorized = http.StatusForbidden
	show := func(r conformance.Record) map[string]any {
		return map[string]any{"type": "api_keys", "id": r.ID, "attributes": map[string]any{
			"name": r.Name, "created_at": stamp(r.Created), "date_last_used": stamp(r.LastUsed), "last4": r.Value[28:]}}
	}
	s.handle("POST /api/v2/api_keys", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Data struct {
				Type       string
				Attributes struct{ Name string }
			}
		}
		if !read(r, &in) || in.Data.Type != "api_keys" || in.Data.Attributes.Name == "" {
			s.refuse(w, http.StatusBadRequest, "Bad Request")
			return
		}
		rec, ok := f.Create(in.Data.Attributes.Name, nil)
		if !ok {
			s.refuse(w, http.StatusBadRequest, "API key limit reached")
			return
		}
		out := show(rec)
		out["attributes"].(map[string]any)["key"] = rec.Value
		conformance.JSON(w, http.StatusCreated, map[string]any{"data": out})
	})
	s.handle("GET /api/v2/api_keys", func(w http.ResponseWriter, r *http.Request) {
		items := []any{}
		for _, rec := range page(f.All(), number(r, "page[number]", 0), 0, min(number(r, "page[size]", 10), 100)) {
			items = append(items, show(rec))
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"data": items, "meta": map[string]any{"max_allowed": 50}})
	})
	s.open("GET /api/v1/validate", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := f.ByValue(r.Header.Get("DD-API-KEY")); !ok {
			s.refuse(w, http.StatusForbidden, "Forbidden")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"valid": true})
	})
	s.handle("DELETE /api/v2/api_keys/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			s.refuse(w, http.StatusNotFound, "Not Found")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return newServer(f, s.mux, func(r *http.Request) bool { return r.URL.Path == "/api/v1/validate" })
}
