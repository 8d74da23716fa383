package vaultapi

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"
)

// A client without a token sends what the table has, and nothing else.
func TestWithoutToken(t *testing.T) {
	s := serve(t, answers(200, `{}`))
	send := func(method, path, token string) error {
		_, _, err := client(t, Options{Address: s.URL, Token: token}).do(t.Context(), request{method: method, path: path})
		return err
	}
	for _, c := range []struct {
		method, path string
		needs        bool
	}{
		{http.MethodGet, "sys/health", false},
		{http.MethodGet, "sys/seal-status", false},
		{http.MethodGet, "sys/leader", false},
		{http.MethodGet, "sys/init", false},
		{http.MethodPut, "sys/init", false},
		{http.MethodPut, "sys/wrapping/lookup", false},
		{http.MethodPut, "auth/approle/login", false},
		{http.MethodPut, "auth/userpass/login/a", false},
		{http.MethodPut, "auth/of/a/folder/login/a", false},
		{http.MethodGet, "sys/generate-root/attempt", false},
		{http.MethodPut, "sys/generate-root/attempt", false},
		{http.MethodDelete, "sys/generate-root/attempt", false},
		{http.MethodPut, "sys/generate-root/update", false},

		{http.MethodDelete, "sys/init", true},
		{http.MethodPut, "sys/health", true},
		{http.MethodGet, "sys/health/x", true},
		{http.MethodGet, "x/sys/health", true},
		{http.MethodGet, "SYS/HEALTH", true},
		{http.MethodPut, "auth/login", true},
		{http.MethodGet, "auth/approle/login", true},
		{http.MethodPut, "auth/userpass/login/a/b", true},
		{http.MethodPut, "auth/token/create", true},
		{http.MethodPut, "sys/unseal", true},
		{http.MethodPut, "sys/rekey/init", true},
		{http.MethodPut, "sys/rekey-recovery-key/init", true},
		{http.MethodPut, "sys/decode-token", true},
		{http.MethodPut, "sys/storage/raft/join", true},
		{http.MethodPut, "sys/wrapping/unwrap", true},
		{http.MethodGet, "sys/metrics", true},
		{http.MethodGet, "sys/mounts", true},
		{http.MethodGet, "sys/internal/ui/mounts", true},
		{http.MethodGet, "pki/cert/ca", true},
	} {
		before := len(s.requests())
		err := send(c.method, c.path, "")
		if sent := len(s.requests()) > before; sent == c.needs || errors.Is(err, ErrNoToken) != c.needs || IsDenied(err) != c.needs || WantsToken(err) != c.needs {
			t.Errorf("%s %s: sent %v: %v", c.method, c.path, sent, err)
		}
		if err := send(c.method, c.path, "t"); err != nil {
			t.Errorf("%s %s, with a token: %v", c.method, c.path, err)
		}
	}
	for _, c := range WithoutToken() {
		if c.Why == "" {
			t.Errorf("%s %s: the table does not say why it needs none", c.Method, c.Path)
		}
	}
	// It is no answer that may be lost, nor one to wait for.
	c := client(t, Options{Address: s.URL})
	if _, err := c.Write(t.Context(), "a/b", nil); !errors.Is(err, ErrNoToken) || IsUncertain(err) || IsNoAnswer(err) || IsRefusal(err) {
		t.Errorf("a write: %v", err)
	}
	if _, err := c.Wrap(t.Context(), "a/b", nil, time.Minute); !errors.Is(err, ErrNoToken) {
		t.Errorf("a wrap: %v", err)
	}
	if err := c.Snapshot(t.Context(), io.Discard); !errors.Is(err, ErrNoToken) {
		t.Errorf("a snapshot: %v", err)
	}
}
