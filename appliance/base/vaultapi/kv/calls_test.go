package kv_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
)

// Each call asks what Vault's documentation says; a refusal names the secret and
// never what was in it.
func TestCalls(t *testing.T) {
	for name, c := range map[string]struct {
		call   func(context.Context, kv.Store) error
		answer string
		asks   []string
	}{
		"a version": {
			call: func(ctx context.Context, s kv.Store) error {
				got, err := s.ReadVersion(ctx, "m", "a/b", 2)
				if err == nil && (got.Version != 2 || got.Data["x"] != "y" || got.Notes["k"] != "v") {
					t.Errorf("read %+v", got)
				}
				return err
			},
			answer: `{"data":{"data":{"x":"y"},"metadata":{"version":2,"custom_metadata":{"k":"v"}}}}`, asks: []string{"GET /v1/m/data/a/b?version=2"},
		},
		"write": {
			call: func(ctx context.Context, s kv.Store) error {
				n, err := s.Write(ctx, "m", "a/b", map[string]any{"x": "canary"}, 2)
				if err == nil && n != 3 {
					t.Errorf("wrote version %d", n)
				}
				return err
			},
			answer: `{"data":{"version":3}}`, asks: []string{`PUT /v1/m/data/a/b {"data":{"x":"canary"},"options":{"cas":2}}`},
		},
		"settings": {
			call: func(ctx context.Context, s kv.Store) error {
				return s.PutSettings(ctx, "m", "a/b", kv.Settings{MaxVersions: 3, CASRequired: true, DeleteVersionAfter: "1h", CustomMetadata: map[string]string{"k": "canary"}})
			},
			asks: []string{`PUT /v1/m/metadata/a/b {"cas_required":true,"custom_metadata":{"k":"canary"},"delete_version_after":"1h","max_versions":3}`},
		},
		"annotate": {
			call: func(ctx context.Context, s kv.Store) error {
				return s.Annotate(ctx, "m", "a/b", map[string]string{"k": "canary"})
			},
			asks: []string{`PATCH /v1/m/metadata/a/b {"custom_metadata":{"k":"canary"}}`},
		},
		"delete": {
			call: func(ctx context.Context, s kv.Store) error { return s.DeleteVersion(ctx, "m", "a/b", 2) },
			asks: []string{`PUT /v1/m/delete/a/b {"versions":[2]}`},
		},
		"destroy": {
			call: func(ctx context.Context, s kv.Store) error { return s.Destroy(ctx, "m", "a/b", []int{1, 2}) },
			asks: []string{`PUT /v1/m/destroy/a/b {"versions":[1,2]}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := http.StatusOK, c.answer
			if answer == "" {
				status = http.StatusNoContent
			}
			var asked []string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				in, _ := io.ReadAll(r.Body)
				asked = append(asked, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(in)))
				w.WriteHeader(status)
				_, _ = w.Write([]byte(answer))
			}))
			defer srv.Close()
			v, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.call(t.Context(), kv.New(v)); err != nil || !slices.Equal(asked, c.asks) {
				t.Errorf("asked %q, %v", asked, err)
			}
			status, answer = http.StatusForbidden, `{"errors":["permission denied"]}`
			if err := c.call(t.Context(), kv.New(v)); !vaultapi.IsDenied(err) || !strings.Contains(err.Error(), "m/a/b") || strings.Contains(err.Error(), "canary") {
				t.Errorf("denied: %v", err)
			}
		})
	}
}

// Where there is no metadata to add to, it is made; that is the only refusal
// after which another call follows.
func TestAnnotateWithoutMetadata(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method)
		if r.Method == http.MethodPatch {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"errors":[]}`))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	v, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.New(v).Annotate(t.Context(), "m", "a", map[string]string{"k": "v"}); err != nil || !slices.Equal(asked, []string{"PATCH", "PUT"}) {
		t.Errorf("asked %q, %v", asked, err)
	}
}
