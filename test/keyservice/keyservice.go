// Package keyservice is a service that issues API keys, as the outside world
// has them: over HTTP, each key shown once, many alive at a time. It lives in
// the test's process, so it survives every kill of Vault, and it knows what is
// really alive.
package keyservice

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Service is one running key service.
type Service struct {
	URL string

	mux *http.ServeMux

	mu     sync.Mutex
	next   int
	alive  map[string]Key // by id
	minted int
}

// Key is one key at the service.
type Key struct{ ID, Name, Value string }

// Credential is what the engine authenticates with.
const Credential = "service-admin-credential"

// New starts a service that ends with the test.
func New(t testing.TB) *Service {
	s := &Service{alive: map[string]Key{}}
	mux := http.NewServeMux()
	s.mux = mux
	mux.HandleFunc("POST /keys", s.create)
	mux.HandleFunc("GET /keys", s.list)
	mux.HandleFunc("DELETE /keys/{id}", s.revoke)
	mux.HandleFunc("GET /whoami", s.whoami)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// Serve answers at another listener too, say in another network, until that is
// closed; url is how the service is reached there from now on.
func (s *Service) Serve(l net.Listener, url string) {
	s.URL = url
	srv := &http.Server{Handler: s.mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }() // ends with the listener
}

// Settings are what providers/NAME needs for this service, type http.
func (s *Service) Settings() map[string]any {
	return map[string]any{
		"allow_http":      true,
		"allow_addresses": []any{"127.0.0.1/32"},
		"auth":            map[string]any{"type": "bearer", "token": "{{credential.token}}"},
		"create": map[string]any{
			"url": s.URL + "/keys", "json": map[string]any{"name": "{{name}}"},
			"id": "$.id", "values": map[string]any{"key": "$.value"},
		},
		"list":   map[string]any{"url": s.URL + "/keys", "items": "$.keys", "id": "$.id", "name": "$.name"},
		"test":   map[string]any{"url": s.URL + "/whoami", "auth": map[string]any{"type": "bearer", "token": "{{value.key}}"}},
		"revoke": map[string]any{"url": s.URL + "/keys/{{id}}"},
	}
}

// Alive is every key that works now, by value.
func (s *Service) Alive() map[string]Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Key, len(s.alive))
	for _, k := range s.alive {
		out[k.Value] = k
	}
	return out
}

// Minted is how many keys were ever made.
func (s *Service) Minted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.minted
}

func (s *Service) create(w http.ResponseWriter, r *http.Request) {
	if !admin(w, r) {
		return
	}
	var in struct{ Name string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, `{}`, http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.next++
	s.minted++
	k := Key{ID: fmt.Sprintf("id-%d", s.next), Name: in.Name, Value: "svc_" + rand.Text()}
	s.alive[k.ID] = k
	s.mu.Unlock()
	answer(w, http.StatusCreated, map[string]any{"id": k.ID, "name": k.Name, "value": k.Value})
}

func (s *Service) list(w http.ResponseWriter, r *http.Request) {
	if !admin(w, r) {
		return
	}
	keys := []map[string]any{}
	for _, k := range s.Alive() {
		keys = append(keys, map[string]any{"id": k.ID, "name": k.Name})
	}
	answer(w, http.StatusOK, map[string]any{"keys": keys})
}

func (s *Service) revoke(w http.ResponseWriter, r *http.Request) {
	if !admin(w, r) {
		return
	}
	s.mu.Lock()
	_, there := s.alive[r.PathValue("id")]
	delete(s.alive, r.PathValue("id"))
	s.mu.Unlock()
	if !there {
		answer(w, http.StatusNotFound, map[string]any{})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) whoami(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.Alive()[bearer(r)]; !ok {
		answer(w, http.StatusUnauthorized, map[string]any{})
		return
	}
	answer(w, http.StatusOK, map[string]any{"ok": true})
}

func bearer(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func admin(w http.ResponseWriter, r *http.Request) bool {
	if bearer(r) == Credential {
		return true
	}
	answer(w, http.StatusUnauthorized, map[string]any{})
	return false
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error means that the client was killed, which is the point.
	_ = json.NewEncoder(w).Encode(body)
}
