package vaultapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// A new KV of version 2 refuses requests for a moment; whoever has mounted it is
// told when that is over.
func TestEnableKV2WaitsForTheEngine(t *testing.T) {
	refused := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/config") && refused < 3 {
			refused++
			answers(400, `{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."]}`)(w, r)
			return
		}
		answers(204, "")(w, r)
	})
	c := client(t, Options{Address: s.URL, Token: "t"})
	if err := c.EnableKV2(t.Context(), "secret"); err != nil || refused != 3 {
		t.Errorf("after %d refusals: %v", refused, err)
	}
	if got := s.requests()[0]; got.Method != http.MethodPut || got.URL.Path != "/v1/sys/mounts/secret" {
		t.Errorf("it asked %s %s", got.Method, got.URL)
	}

	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	forever := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/config") {
			defer cancel(over)
			answers(400, `{"errors":["Upgrading from non-versioned to versioned data."]}`)(w, r)
			return
		}
		answers(204, "")(w, r)
	})
	if err := client(t, Options{Address: forever.URL, Token: "t"}).EnableKV2(ctx, "secret"); err != nil && !errors.Is(err, over) {
		t.Errorf("it does not end: %v", err)
	}

	// Who may not ask has the mount all the same.
	denied := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/config") {
			answers(403, `{"errors":["permission denied"]}`)(w, r)
			return
		}
		answers(204, "")(w, r)
	})
	if err := client(t, Options{Address: denied.URL, Token: "t"}).EnableKV2(t.Context(), "secret"); err != nil {
		t.Error(err)
	}
}
