package liar

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"strongroom.example/plugin/provider"
)

// Credential is what the service asks for over HTTP.
const Credential = "liar-admin-credential"

// Settings are what a provider of type http needs for the service at url, on this
// machine. They say what the service can do, as Capabilities does.
func (s *Service) Settings(url string) map[string]any {
	keys, bearer := url+"/keys", func(token string) map[string]any { return map[string]any{"type": "bearer", "token": token} }
	out := map[string]any{
		"allow_http": true, "allow_addresses": []any{"127.0.0.1/32"}, "auth": bearer("{{credential.token}}"),
		"overlap": s.caps.Overlap, "max_keys": s.caps.MaxKeys,
		"create": map[string]any{"url": keys, "json": map[string]any{"name": "{{name}}"},
			"id": "$.id", "values": map[string]any{provider.PrimaryValue: "$.value"}, "expires": "$.expires_at"},
	}
	if s.caps.Revoke {
		out["revoke"] = map[string]any{"url": keys + "/{{id}}"}
	}
	if s.caps.Test {
		out["test"] = map[string]any{"url": url + "/whoami", "auth": bearer("{{value.key}}")}
	}
	if s.caps.List {
		list := map[string]any{"url": keys, "items": "$.keys", "id": "$.id", "created": "$.created_at"}
		if s.caps.Named {
			list["name"] = "$.name"
		}
		out["list"] = list
	}
	return out
}

// Handler is the service over HTTP.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /keys", asAdmin(s.serveCreate))
	mux.HandleFunc("GET /keys", asAdmin(s.serveList))
	mux.HandleFunc("DELETE /keys/{id}", asAdmin(func(w http.ResponseWriter, r *http.Request) {
		answer(w, s.Revoke(r.Context(), nil, r.PathValue("id")), http.StatusNoContent, nil)
	}))
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		key := provider.Key{Values: map[string]string{provider.PrimaryValue: token(r)}}
		answer(w, s.Test(r.Context(), nil, key), http.StatusOK, map[string]any{"ok": true})
	})
	return mux
}

func (s *Service) serveCreate(w http.ResponseWriter, r *http.Request) {
	var in struct{ Name string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Name == "" {
		http.Error(w, `{}`, http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.settle()
	var before []*Key
	for _, k := range s.keys {
		if k.Asked != "" && Identity(k.Asked) == Identity(in.Name) {
			before = append(before, k)
		}
	}
	made := s.create(in.Name, before)
	var key Key
	if made != nil {
		key = *made
	}
	lies := s.lies
	s.mu.Unlock()
	switch {
	case made == nil:
		answer(w, &provider.Error{Status: http.StatusUnprocessableEntity}, 0, nil)
	case lies.NoAnswer:
		panic(http.ErrAbortHandler) // the connection ends
	case lies.AfterMade != 0:
		w.Header().Set("Retry-After", "1")
		answer(w, &provider.Error{Status: statuses[lies.AfterMade]}, 0, nil)
	default:
		answer(w, nil, http.StatusCreated, map[string]any{"id": key.ID, "value": key.Value, "expires_at": stamp(key.Told)})
	}
}

// statuses are what AfterMade is over HTTP.
var statuses = map[provider.Kind]int{
	provider.KindRateLimited: http.StatusTooManyRequests, provider.KindTransient: http.StatusServiceUnavailable,
	provider.KindUnauthorized: http.StatusUnauthorized, provider.KindRejected: http.StatusConflict,
}

func (s *Service) serveList(w http.ResponseWriter, r *http.Request) {
	list, err := s.List(r.Context(), nil, "")
	s.mu.Lock()
	dateOnly := s.lies.DateOnly
	s.mu.Unlock()
	items := []map[string]any{}
	for _, k := range list {
		item := map[string]any{"id": k.ID, "name": k.Name, "created_at": stamp(k.Created)}
		if dateOnly {
			item["created_at"] = k.Created.UTC().Format(time.DateOnly)
		}
		items = append(items, item)
	}
	answer(w, err, http.StatusOK, map[string]any{"keys": items})
}

// stamp is a time as the service tells it; null: never.
func stamp(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at.UTC().Format(time.RFC3339Nano)
}

func token(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func asAdmin(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if token(r) != Credential {
			answer(w, &provider.Error{Status: http.StatusUnauthorized}, 0, nil)
			return
		}
		h(w, r)
	}
}

func answer(w http.ResponseWriter, err error, status int, body any) {
	var refused *provider.Error
	if errors.As(err, &refused) {
		status, body = refused.Status, map[string]any{"error": refused.Msg}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if body != nil {
		_ = json.NewEncoder(w).Encode(body) // an error means that who asked was killed, which is the point
	}
}
