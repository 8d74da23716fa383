package apikeys

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// tinyService is a service with HTTP whose keys end at expires.
type tinyService struct {
	mu      sync.Mutex
	made    int
	names   map[string]string // by id; of the keys alive
	expires string            // as JSON
	inTest  bool              // told by the test, and not by the list
	revoked []string          // paths
}

func (s *tinyService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method == http.MethodPost:
		var in struct{ Name string }
		json.NewDecoder(r.Body).Decode(&in)
		s.made++
		id := fmt.Sprint(s.made)
		s.names[id] = in.Name
		fmt.Fprintf(w, `{"id":%q,"key":"value-%s"}`, id, id)
	case r.Method == http.MethodDelete:
		s.revoked = append(s.revoked, r.URL.Path)
		id, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/keys/"), "/")
		if s.names[id] != name {
			w.WriteHeader(404)
			return
		}
		delete(s.names, id)
	case r.URL.Path == "/me":
		if _, alive := s.names[strings.TrimPrefix(r.Header.Get("K"), "value-")]; !alive {
			w.WriteHeader(401)
			return
		}
		fmt.Fprintf(w, `{"expires":%s}`, s.expires)
	default:
		items := []string{}
		for id, name := range s.names {
			items = append(items, fmt.Sprintf(`{"id":%q,"name":%q,"expires":%s}`, id, name, s.expires))
		}
		io.WriteString(w, "["+strings.Join(items, ",")+"]")
	}
}

// serve starts s and writes a provider for it.
func (w *world) serve(s *tinyService) {
	w.t.Helper()
	s.names = map[string]string{}
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	w.t.Cleanup(server.Close)
	settings := map[string]any{
		"allow_addresses": "127.0.0.1",
		"ca_certificate":  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
		"create":          map[string]any{"url": server.URL + "/keys", "json": map[string]any{"name": "{{name}}"}, "id": "$.id", "values": map[string]any{"key": "$.key"}},
		"list":            map[string]any{"url": server.URL + "/keys", "items": "$", "id": "$.id", "name": "$.name"},
		"revoke":          map[string]any{"url": server.URL + "/keys/{{id}}/{{name}}"},
	}
	if s.inTest {
		settings["test"] = map[string]any{"url": server.URL + "/me", "auth": map[string]any{"type": "header", "headers": map[string]any{"K": "{{value.key}}"}}, "expires": "$.expires"}
	} else {
		settings["list"].(map[string]any)["expires"] = "$.expires"
	}
	w.write("providers/tiny", map[string]any{"type": "http", "settings": settings})
}

// Where create does not tell when a key ends, the engine asks where it is told,
// before anybody gets the key; a key whose end cannot be read is given to nobody.
func TestEndThatIsToldElsewhere(t *testing.T) {
	for name, inTest := range map[string]bool{"in the list": false, "by the test": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			end := w.clock.Wall().Add(120 * 24 * time.Hour)
			s := &tinyService{inTest: inTest, expires: fmt.Sprintf("%d", end.UnixMilli())}
			w.serve(s)
			w.write("keys/k", map[string]any{"provider": "tiny"})
			w.tick()
			got := w.read("creds/k", nil)
			if got["key"] != "value-1" {
				t.Fatalf("%v", got)
			}
			if v := w.read("versions/k", nil); !strings.Contains(fmt.Sprint(v), end.UTC().Format("2006-01-02T15:04:05")) {
				t.Errorf("the end is not known: %v", v)
			}
			s.mu.Lock()
			s.expires = `"29/11/2026"`
			s.mu.Unlock()
			w.do(logical.UpdateOperation, "rotate/k", nil) // its answer is not the matter
			w.tick()
			if got := w.read("creds/k", nil); got["key"] != "value-1" {
				t.Errorf("a key whose end nobody can read is given out: %v", got)
			}
		})
	}
}

// A service may want the name of a key that is to be revoked.
func TestRevokeByName(t *testing.T) {
	w := newWorld(t, remoteCaps())
	s := &tinyService{expires: "null"}
	w.serve(s)
	w.write("keys/k", map[string]any{"provider": "tiny"})
	w.tick()
	s.mu.Lock()
	name := s.names["1"]
	s.mu.Unlock()
	w.write("rotate/k", map[string]any{"compromised": true})
	w.tick()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.revoked) == 0 || s.revoked[0] != "/keys/1/"+name || s.names["1"] != "" {
		t.Errorf("revoked %v, alive %v", s.revoked, s.names)
	}
}
