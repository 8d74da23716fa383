package restorepath

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
)

// kvVault is a Vault with one KV engine that answers from a table.
func kvVault(t *testing.T, answers map[string]string) *vaultapi.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "kv-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			body = `{"errors":["permission denied"]}`
		}
		_, _ = io.WriteString(w, body)
	}))
	srv.Listener = l
	srv.Start()
	t.Cleanup(func() { srv.Close(); _ = os.RemoveAll(dir) })
	c, err := vaultapi.New(vaultapi.Options{Address: "unix://" + filepath.Join(dir, "s"), Token: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A secret that was wholly gone comes back, whatever becomes of its metadata.
func TestCopySecret(t *testing.T) {
	const mount = `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`
	const at, meta = " /v1/secret/data/app/name", "PUT /v1/secret/metadata/app/name"
	from := kvVault(t, map[string]string{
		"GET /v1/sys/internal/ui/mounts/secret/app/name": mount,
		"GET" + at: `{"data":{"data":{"k":"v"},"metadata":{"version":3,"custom_metadata":{"owner":"anna"}}}}`,
	})
	live := func(write, metadata bool) *vaultapi.Client {
		answers := map[string]string{
			"GET /v1/sys/internal/ui/mounts/secret/app/name": mount,
			"GET" + at: `{"data":null}`,
		}
		if write {
			answers["PUT"+at] = `{"data":{"version":1}}`
		}
		if metadata {
			answers[meta] = `{"data":{}}`
		}
		return kvVault(t, answers)
	}
	for _, tt := range []struct {
		name            string
		write, metadata bool
		want            error
		copied          Copied
	}{
		{"whole", true, true, nil, Copied{From: 3, To: 1}},
		{"metadata refused", true, false, ErrNoMetadata, Copied{From: 3, To: 1, NoMetadata: true}},
		{"secret refused", false, true, errRefused, Copied{From: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := copySecret(t.Context(), from, live(tt.write, tt.metadata), "secret/app/name")
			tt.copied.Path = "secret/app/name"
			if got != tt.copied {
				t.Errorf("got %+v, want %+v", got, tt.copied)
			}
			if tt.want == errRefused {
				if !isForbidden(err) || errors.Is(err, ErrNoMetadata) {
					t.Errorf("got %v", err)
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

var errRefused = errors.New("refused")
