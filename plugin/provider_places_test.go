package apikeys

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// place is an HTTP service whose ids begin with 1, as those of every other.
type place struct {
	*httptest.Server
	mu    sync.Mutex
	alive map[string]string // values by id
}

func newPlace(t *testing.T, name string) *place {
	t.Helper()
	p := &place{alive: map[string]string{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		id := strings.TrimPrefix(req.URL.Path, "/keys/")
		switch {
		case req.Method == http.MethodPost:
			id = fmt.Sprint(len(p.alive) + 1)
			p.alive[id] = name + "-value-" + id
			_ = json.NewEncoder(rw).Encode(map[string]any{"id": id, "key": p.alive[id]})
		case req.Method == http.MethodDelete && p.alive[id] != "":
			p.alive[id] = ""
		case req.URL.Path == "/keys":
			_ = json.NewEncoder(rw).Encode([]any{})
		case req.URL.Path == "/me" && p.worksLocked(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")):
		case req.URL.Path == "/me":
			rw.WriteHeader(http.StatusUnauthorized)
		default:
			rw.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *place) worksLocked(value string) bool {
	for _, v := range p.alive {
		if v != "" && v == value {
			return true
		}
	}
	return false
}

func (p *place) lives(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive[id] != ""
}

// A provider that moves ends the versions of the old place there, wherever its
// settings name the place: at the new one an id is somebody else's key, and a
// key that is not known there says nothing of the old place.
func TestVersionsAreEndedAtTheirPlace(t *testing.T) {
	settings := func(base string, more ...map[string]any) map[string]any {
		s := map[string]any{
			"allow_addresses": []any{"127.0.0.1"}, "allow_http": true,
			"auth":   map[string]any{"type": "bearer", "token": "{{credential.key}}"},
			"create": map[string]any{"url": base + "/keys", "id": "$.id", "values": map[string]any{"key": "$.key"}},
			"test":   map[string]any{"url": base + "/me", "auth": map[string]any{"type": "bearer", "token": "{{value.key}}"}},
			"revoke": map[string]any{"url": base + "/keys/{{id}}"},
		}
		for _, one := range more {
			for name, v := range one {
				s[name] = v
			}
		}
		return s
	}
	inVariable := func(base string) map[string]any {
		return settings("{{var.url}}", map[string]any{"variables": map[string]any{"url": base}})
	}
	inline := func(base string) map[string]any { return settings(base) }
	withList := func(base string) map[string]any {
		return settings(base, map[string]any{"list": map[string]any{"url": base + "/keys", "items": "$", "id": "$.id"}})
	}
	for name, tc := range map[string]struct {
		before, after func(base string) map[string]any
	}{
		"a variable":                     {inVariable, inVariable},
		"in each URL":                    {inline, inline},
		"from a variable into each URL":  {inVariable, inline},
		"from each URL into a variable":  {inline, inVariable},
		"with a request that is new":     {inline, withList},
		"with a request that is no more": {withList, inline},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			a, b := newPlace(t, "a"), newPlace(t, "b")
			credential := map[string]any{"key": "admin"}
			w.write("providers/web", map[string]any{"type": "http", "credential": credential, "settings": tc.before(a.URL)})
			w.write("keys/k", map[string]any{"provider": "web"})
			b.alive["1"] = "a key of others"
			w.write("providers/web", map[string]any{"credential": credential, "settings": tc.after(b.URL)})
			resp := w.write("rotate/k", map[string]any{"compromised": true})
			if a.lives("1") || !b.lives("1") || !b.lives("2") {
				t.Errorf("old place: alive %v; the new one's key of others: %v, ours: %v; said: %v %v", a.lives("1"), b.lives("1"), b.lives("2"), resp.Data, resp.Warnings)
			}
		})
	}
}

// A mistake in where one request goes is put right for the versions of before, too.
func TestMistakeInOneRequestIsPutRight(t *testing.T) {
	w := newWorld(t, remoteCaps())
	a, wrong := newPlace(t, "a"), newPlace(t, "wrong")
	credential := map[string]any{"key": "admin"}
	settings := func(revoke string) map[string]any {
		return map[string]any{
			"allow_addresses": []any{"127.0.0.1"}, "allow_http": true,
			"auth":   map[string]any{"type": "bearer", "token": "{{credential.key}}"},
			"create": map[string]any{"url": a.URL + "/keys", "id": "$.id", "values": map[string]any{"key": "$.key"}},
			"revoke": map[string]any{"url": revoke + "/keys/{{id}}"},
		}
	}
	w.write("providers/web", map[string]any{"type": "http", "credential": credential, "settings": settings(wrong.URL)})
	w.write("keys/k", map[string]any{"provider": "web"})
	w.write("providers/web", map[string]any{"credential": credential, "settings": settings(a.URL)})
	w.write("rotate/k", map[string]any{"compromised": true})
	if a.lives("1") {
		t.Error("the version of before is alive")
	}
}
