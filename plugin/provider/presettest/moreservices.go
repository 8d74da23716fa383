package presettest

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"strongroom.example/plugin/provider/conformance"
)

// https://grafana.com/docs/grafana/latest/developers/http_api/serviceaccount/
func grafana() Service {
	f := &conformance.Fake{
		Credential: []string{"glsa_canary-grafana"},
		ID:         strconv.Itoa,
		Value:      func(_ int, random string) string { return "glsa_" + random[:32] + "_" + random[32:] },
		Refusal:    func(m string) string { return fmt.Sprintf(`{"message":%s}`, conformance.Quote(m)) },
	}
	s := newService(f, func(r *http.Request) bool { return bearer(r) == f.Credential[0] })
	s.handle("POST /api/serviceaccounts/2/tokens", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Name          string
			SecondsToLive int64
		}
		if !read(r, &in) || in.Name == "" || in.SecondsToLive < 0 {
			s.refuse(w, http.StatusBadRequest, "bad request data")
			return
		}
		if _, taken := f.Find(func(r conformance.Record) bool { return r.Name == in.Name }); taken {
			s.refuse(w, http.StatusBadRequest, "service account token with given name already exists in the organization")
			return
		}
		rec, _ := f.Create(in.Name, nil)
		id, _ := strconv.Atoi(rec.ID)
		conformance.JSON(w, http.StatusOK, map[string]any{"id": id, "name": rec.Name, "key": rec.Value})
	})
	s.handle("GET /api/serviceaccounts/2/tokens", func(w http.ResponseWriter, r *http.Request) {
		var items []any // null when empty, as Go services write it
		for _, rec := range f.All() {
			id, _ := strconv.Atoi(rec.ID)
			items = append(items, map[string]any{"id": id, "name": rec.Name, "created": stamp(rec.Created), "lastUsedAt": stamp(rec.LastUsed),
				"expiration": nil, "secondsUntilExpiration": 0, "hasExpired": false, "isRevoked": false})
		}
		conformance.JSON(w, http.StatusOK, items)
	})
	s.handle("DELETE /api/serviceaccounts/2/tokens/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			s.refuse(w, http.StatusNotFound, "service account token not found")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"message": "Service account token deleted"})
	})
	s.open("GET /api/org", func(w http.ResponseWriter, r *http.Request) {
		if _, ok := f.ByValue(bearer(r)); !ok {
			s.refuse(w, http.StatusUnauthorized, "Invalid API key")
			return
		}
		s.refuse(w, http.StatusForbidden, "You'll need additional permissions to perform this action. Permissions needed: orgs:read")
	})
	return newServer(f, s.mux, func(r *http.Request) bool { return r.URL.Path == "/api/org" })
}

// https://platform.openai.com/docs/api-reference/admin-api-keys
func openai() Service {
	f := &conformance.Fake{
		Credential: []string{"sk-admin-canary"},
		ID:         func(n int) string { return fmt.Sprintf("key_%06d", n) },
		Value:      func(_ int, random string) string { return "sk-admin-" + random },
		Refusal: func(m string) string {
			return fmt.Sprintf(`{"error":{"message":%s,"type":"invalid_request_error","param":null,"code":null}}`, conformance.Quote(m))
		},
	}
	s := newService(f, func(r *http.Request) bool {
		_, own := f.ByValue(bearer(r))
		return bearer(r) == f.Credential[0] || own
	})
	show := func(r conformance.Record) map[string]any {
		return map[string]any{"object": "organization.admin_api_key", "id": r.ID, "name": r.Name, "redacted_value": "sk-admin...xyz",
			"created_at": unix(r.Created), "last_used_at": unix(r.LastUsed), "expires_at": nil, "owner": map[string]any{"type": "user"}}
	}
	const path = "/v1/organization/admin_api_keys"
	s.handle("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Name    string
			Expires int `json:"expires_in_seconds"`
		}
		if !read(r, &in) || in.Name == "" {
			s.refuse(w, http.StatusBadRequest, "Missing required parameter: 'name'.")
			return
		}
		rec, _ := f.Create(in.Name, nil)
		out := show(rec)
		out["value"] = rec.Value
		conformance.JSON(w, http.StatusOK, out)
	})
	s.handle("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		all, limit := f.All(), number(r, "limit", 20)
		if after := r.URL.Query().Get("after"); after != "" {
			for len(all) > 0 && all[0].ID <= after {
				all = all[1:]
			}
		}
		items := []any{}
		out := map[string]any{"object": "list", "first_id": nil, "last_id": nil, "has_more": len(all) > limit}
		for _, rec := range all[:min(limit, len(all))] {
			items = append(items, show(rec))
			out["last_id"] = rec.ID
		}
		out["data"] = items
		conformance.JSON(w, http.StatusOK, out)
	})
	s.handle("DELETE "+path+"/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			s.refuse(w, http.StatusNotFound, "No such key")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"id": r.PathValue("id"), "object": "organization.admin_api_key.deleted", "deleted": true})
	})
	// A test is a list of one, with another key than the credential.
	return newServer(f, s.mux, func(r *http.Request) bool { return r.URL.Query().Get("limit") == "1" })
}

// gitlabFamilies remembers which token came out of which: GitLab revokes the
// whole family when a token is used to rotate that was rotated already.
type gitlabFamilies struct {
	mu     sync.Mutex
	family map[string]string // value to the family's first value
	dead   map[string]bool   // values rotated away
}

// https://docs.gitlab.com/api/personal_access_tokens/
func gitlab() Service {
	f := &conformance.Fake{
		ID:      strconv.Itoa,
		Value:   func(_ int, random string) string { return "glpat-" + random[:20] },
		Refusal: func(m string) string { return fmt.Sprintf(`{"message":%s}`, conformance.Quote(m)) },
	}
	families := gitlabFamilies{family: map[string]string{}, dead: map[string]bool{}}
	s := newService(f, func(r *http.Request) bool { return true })
	s.handle("POST /api/v4/personal_access_tokens/self/rotate", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Expires string `json:"expires_at"`
		}
		if !read(r, &in) || len(in.Expires) != len("2006-01-02") {
			s.refuse(w, http.StatusBadRequest, "expires_at is invalid")
			return
		}
		families.mu.Lock()
		defer families.mu.Unlock()
		value := r.Header.Get("PRIVATE-TOKEN")
		root := value
		if first, ok := families.family[value]; ok {
			root = first
		}
		if families.dead[value] {
			for member, first := range families.family {
				if first == root {
					if rec, ok := f.ByValue(member); ok {
						f.Delete(rec.ID)
					}
				}
			}
			s.refuse(w, http.StatusUnauthorized, "401 Unauthorized")
			return
		}
		old, ok := f.ByValue(value)
		if !ok {
			s.refuse(w, http.StatusUnauthorized, "401 Unauthorized")
			return
		}
		f.Delete(old.ID)
		rec, _ := f.Create(old.Name, nil)
		families.family[rec.Value], families.dead[value] = root, true
		id, _ := strconv.Atoi(rec.ID)
		conformance.JSON(w, http.StatusOK, map[string]any{"id": id, "name": rec.Name, "revoked": false, "active": true,
			"created_at": stamp(rec.Created), "expires_at": in.Expires, "scopes": []any{"self_rotate"}, "token": rec.Value})
	})
	s.open("GET /api/v4/personal_access_tokens/self", func(w http.ResponseWriter, r *http.Request) {
		rec, ok := f.ByValue(r.Header.Get("PRIVATE-TOKEN"))
		if !ok {
			s.refuse(w, http.StatusUnauthorized, "401 Unauthorized")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"id": 1, "name": rec.Name, "revoked": false, "active": true})
	})
	return newServer(f, s.mux, func(r *http.Request) bool { return r.Method == http.MethodGet })
}

// https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/keys
func mailgun() Service {
	f := &conformance.Fake{
		Credential: []string{"canary-mailgun-0815"},
		ID:         func(n int) string { return fmt.Sprintf("%08x-%08x", n, n) },
		Refusal:    func(m string) string { return fmt.Sprintf(`{"message":%s}`, conformance.Quote(m)) },
	}
	s := newService(f, func(r *http.Request) bool {
		user, password, ok := r.BasicAuth()
		return ok && user == "api" && password == f.Credential[0]
	})
	s.handle("POST /v1/keys", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 16); err != nil || r.FormValue("role") == "" ||
			r.FormValue("kind") == "domain" && r.FormValue("domain_name") == "" {
			s.refuse(w, http.StatusBadRequest, "role is required")
			return
		}
		rec, _ := f.Create(r.FormValue("description"), nil)
		conformance.JSON(w, http.StatusOK, map[string]any{"message": "great success", "key": map[string]any{
			"id": rec.ID, "description": rec.Name, "kind": r.FormValue("kind"), "role": r.FormValue("role"),
			"created_at": "2026-11-24T15:04:05", "updated_at": "2026-11-24T15:04:05", "expires_at": nil, "is_disabled": false, "secret": rec.Value}})
	})
	s.handle("GET /v1/keys", func(w http.ResponseWriter, r *http.Request) {
		items := []any{map[string]any{"id": "disabled-1", "description": "sr-a-disabled", "is_disabled": true}}
		for _, rec := range f.All() {
			items = append(items, map[string]any{"id": rec.ID, "description": rec.Name, "kind": r.URL.Query().Get("kind"),
				"created_at": "2026-11-24T15:04:05", "is_disabled": false})
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"total_count": len(items), "items": items})
	})
	s.handle("DELETE /v1/keys/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			s.refuse(w, http.StatusNotFound, "key not found")
			return
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"message": "key deleted"})
	})
	return newServer(f, s.mux, nil)
}

// https://docs.digitalocean.com/reference/api/reference/spaces-keys/
func spaces() Service {
	f := &conformance.Fake{
		Credential: []string{"dop_v1_canary"},
		ID:         func(n int) string { return fmt.Sprintf("DO00EXAMPLEKEY%06d", n) },
		Values: func(r conformance.Record) map[string]string {
			return map[string]string{"key": r.Value, "access_key": r.ID}
		},
		Refusal: func(m string) string {
			return fmt.Sprintf(`{"id":"unprocessable_entity","message":%s}`, conformance.Quote(m))
		},
	}
	s := newService(f, func(r *http.Request) bool { return bearer(r) == f.Credential[0] })
	s.handle("POST /v2/spaces/keys", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Name   string
			Grants []struct{ Bucket, Permission string }
		}
		if !read(r, &in) || in.Name == "" || len(in.Grants) == 0 || in.Grants[0].Permission == "" {
			s.refuse(w, http.StatusBadRequest, "grants are invalid")
			return
		}
		rec, _ := f.Create(in.Name, nil)
		conformance.JSON(w, http.StatusCreated, map[string]any{"key": map[string]any{
			"name": rec.Name, "access_key": rec.ID, "secret_key": rec.Value, "created_at": stamp(rec.Created), "grants": in.Grants}})
	})
	s.handle("GET /v2/spaces/keys", func(w http.ResponseWriter, r *http.Request) {
		const size = 3 // whatever per_page asks: there must be pages
		all, at := f.All(), number(r, "page", 1)
		items := []any{}
		for _, rec := range page(all, at, 1, size) {
			items = append(items, map[string]any{"name": rec.Name, "access_key": rec.ID, "created_at": stamp(rec.Created)})
		}
		pages := map[string]any{}
		if at*size < len(all) {
			pages["next"] = fmt.Sprintf("https://%s/v2/spaces/keys?page=%d&per_page=%d", r.Host, at+1, size)
		}
		conformance.JSON(w, http.StatusOK, map[string]any{"keys": items, "links": map[string]any{"pages": pages}, "meta": map[string]any{"total": len(all)}})
	})
	s.handle("DELETE /v2/spaces/keys/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !f.Delete(r.PathValue("id")) {
			s.refuse(w, http.StatusNotFound, "The resource you were accessing could not be found.")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return newServer(f, s.mux, nil)
}

// testOnly is a service of whose API only the request that tests a key counts.
func testOnly(key func(*http.Request) string, refusal func(string) string, right func(*http.Request) bool) func() Service {
	return func() Service {
		f := &conformance.Fake{ID: strconv.Itoa, Refusal: refusal}
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !right(r) {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			if _, ok := f.ByValue(key(r)); !ok {
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, refusal("Bad credentials"))
				return
			}
			conformance.JSON(w, http.StatusOK, map[string]any{"fine": true})
		})
		return newServer(f, h, func(*http.Request) bool { return true })
	}
}
