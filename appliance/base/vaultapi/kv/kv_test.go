package kv_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
)

func TestFake(t *testing.T) { kvtest.Suite(t, kvtest.NewFake()) }

// What a Vault answers that has no such engine, or says nothing, is an error
// and never "there is none".
func TestNothingIsNotNone(t *testing.T) {
	for name, answer := range map[string]struct {
		status int
		body   string
	}{
		"nothing mounted": {404, `{"errors":["no handler for route \"secret/data/a\". route entry not found."]}`},
		"another server":  {404, `404 page not found`},
		"denied":          {403, `{"errors":["permission denied"]}`},
		"no content":      {204, ``},
		"empty":           {200, `{}`},
		"wrapped":         {200, `{"wrap_info":{"token":"w"}}`},
		"version 1":       {200, `{"data":{"value":"canary-secret"}}`},
		"no version":      {200, `{"data":{"data":{},"metadata":{}}}`},
		"an odd version":  {200, `{"data":{"data":{},"metadata":{"version":"1"}}}`},
		"odd data":        {200, `{"data":{"data":[1],"metadata":{"version":1},"versions":{"1":{}},"current_version":"1"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(answer.status)
				_, _ = w.Write([]byte(answer.body))
			}))
			defer srv.Close()
			c, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			s := kv.New(c)
			if got, err := s.Read(t.Context(), "secret", "a"); err == nil {
				t.Errorf("read version %d", got.Version)
			}
			if got, err := s.Metadata(t.Context(), "secret", "a"); err == nil {
				t.Errorf("metadata %v", got)
			}
			if got, err := kv.Walk(t.Context(), s, "secret", ""); err == nil {
				t.Errorf("walked to %q", got)
			}
			if n, err := s.Write(t.Context(), "secret", "a", nil, 0); err == nil {
				t.Errorf("wrote version %d", n)
			}
		})
	}
}

func TestWalkIsBounded(t *testing.T) {
	for name, list := range map[string]func(folder string) []string{
		"for ever deeper":  func(string) []string { return []string{"a/"} },
		"for ever wider":   func(string) []string { return []string{"a/", "b/", "c"} },
		"an empty name":    func(string) []string { return []string{""} },
		"a slash":          func(string) []string { return []string{"/"} },
		"a name with more": func(string) []string { return []string{"a/b"} },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := kv.WalkBy(t.Context(), func(_ context.Context, f string) ([]string, error) { return list(f), nil }, "")
			if err == nil {
				t.Error("walked to an end")
			}
		})
	}
	failed := fmt.Errorf("no")
	if _, err := kv.WalkBy(t.Context(), func(context.Context, string) ([]string, error) { return nil, failed }, ""); err != failed { //nolint:errorlint // the very same
		t.Error(err)
	}
}
