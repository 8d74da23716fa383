package vaultapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi/vaultenv"
)

// server answers as h, and notes what it was asked.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
}

func serve(t *testing.T, h http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r)
		s.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// client waits for nothing between its attempts.
func client(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	return c
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// No variable changes what is sent, or stops a client that was told all it needs.
func TestEnvironment(t *testing.T) {
	headers := func(r *http.Request) string {
		h := r.Header.Clone()
		h.Del("Accept-Encoding")
		return r.Host + " " + r.URL.String() + " " + strings.Join(strings.Fields(strings.ReplaceAll(headerText(h), "\n", " ")), " ")
	}
	s := serve(t, answers(200, `{"data":{"a":"b"}}`))
	read := func(t *testing.T) string {
		t.Helper()
		before := len(s.requests())
		c, err := New(Options{Address: s.URL, Token: "mine"})
		if err != nil {
			t.Fatal(err)
		}
		if data, err := c.Read(t.Context(), "sys/mounts"); err != nil || data["a"] != "b" {
			t.Fatalf("%v, %v", data, err)
		}
		if _, err := c.Write(t.Context(), "secret/data/x", map[string]any{"a": 1}); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range s.requests()[before:] {
			out = append(out, headers(r))
		}
		return strings.Join(out, "\n")
	}
	want := read(t)
	for name, values := range vaultenv.Variables() {
		for _, value := range values {
			t.Run(name+"="+value, func(t *testing.T) {
				t.Setenv(name, value)
				if got := read(t); got != want {
					t.Errorf("sends\n%s\nwithout it\n%s", got, want)
				}
			})
		}
	}
}

func headerText(h http.Header) string {
	var b strings.Builder
	_ = h.Write(&b)
	return b.String()
}

// The list above is all that the client's source knows: a newer version of it
// that reads more fails here.
func TestEnvironmentIsComplete(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/hashicorp/vault/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	found := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(f, "_test.go") || strings.HasSuffix(f, "plugin_helpers.go") {
			continue
		}
		for _, word := range strings.Split(string(text), `"`) {
			if !strings.HasPrefix(word, "VAULT_") || strings.ContainsAny(word, " \n%") {
				continue
			}
			found++
			if _, ok := vaultenv.Variables()[word]; !ok {
				t.Errorf("%s knows %s, which is not tried here", filepath.Base(f), word)
			}
		}
	}
	if found < 15 {
		t.Errorf("%d variables found in the source: is it another one?", found)
	}
}

// A proxy gets nothing, whatever the environment says. net/http reads that once,
// and never for a loopback address: hence a process of its own, and a name.
func TestNoProxy(t *testing.T) {
	const marked = "STRONGROOM_TEST_PROXY"
	if os.Getenv(marked) != "" {
		for _, address := range []string{"https://vault.example:8200", "https://192.0.2.1:8200"} {
			c := client(t, Options{Address: address, Token: "canary-token"}).Once(300 * time.Millisecond)
			if _, err := c.Read(t.Context(), "sys/mounts"); err == nil {
				t.Error("there is an answer")
			}
		}
		return
	}
	var mu sync.Mutex
	taken := 0
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			taken++
			mu.Unlock()
			c.Close()
		}
	}()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNoProxy$")
	cmd.Env = append(os.Environ(), marked+"=1")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "VAULT_HTTP_PROXY", "VAULT_PROXY_ADDR"} {
		cmd.Env = append(cmd.Env, name+"=http://"+l.Addr().String(), strings.ToLower(name)+"=http://"+l.Addr().String())
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mu.Lock()
	defer mu.Unlock()
	if taken != 0 {
		t.Errorf("the proxy was asked %d times", taken)
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		address string
		ok      bool
		clear   bool // refused for being in clear
	}{
		{"https://vault.example", true, false}, {"https://vault.example:8200/prefix", true, false}, {"unix:///run/vault/vault.sock", true, false},
		{"http://127.0.0.1:8200", true, false}, {"http://127.8.9.1", true, false}, {"http://[::1]:8200", true, false}, {"http://localhost:8200", true, false},
		{"http://[::ffff:127.0.0.1]:8200", true, false}, {"HTTP://LOCALHOST.", true, false},
		{"http://vault.example", false, true}, {"http://192.0.2.1:8200", false, true}, {"HTTP://vault.example:8200", false, true}, {"http://0.0.0.0:8200", false, true},
		{"http://127.0.0.1.example", false, true}, {"http://localhost.example", false, true}, {"http://127.1:8200", false, true}, {"http://2130706433:8200", false, true},
		{"http://[::ffff:192.0.2.1]:8200", false, true}, {"http://[fe80::1]:8200", false, true},
		{"http://127.0.0.1@vault.example", false, false}, {"https://user:canary-pw@vault.example", false, false},
		{"", false, false}, {"vault.example:8200", false, false}, {"ftp://127.0.0.1", false, false}, {"unix://run/vault.sock", false, false}, {"unix://", false, false}, {"https://", false, false}, {"http:///x", false, false},
		{"https://vault.example?a=b", false, false}, {"https://us er:canary-pw@x", false, false},
	} {
		t.Run(c.address, func(t *testing.T) {
			_, err := New(Options{Address: c.address})
			if (err == nil) != c.ok || errors.Is(err, ErrClear) != c.clear {
				t.Errorf("New: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "canary-pw") {
				t.Errorf("the error quotes a password: %v", err)
			}
		})
	}
}

// A name of this machine may be anybody's: the address that it has counts.
func TestLocalhostElsewhere(t *testing.T) {
	c := client(t, Options{Address: "http://localhost:8200", Token: "canary-token"})
	dial := c.http.Transport.(*http.Transport).DialContext
	if conn, err := dial(t.Context(), "tcp", "192.0.2.1:8200"); !errors.Is(err, ErrClear) {
		t.Errorf("dialled %v, %v", conn, err)
	}
	s := serve(t, answers(200, `{"data":{}}`))
	if conn, err := dial(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://")); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
}

// An answer that points elsewhere takes no token there.
func TestNoRedirect(t *testing.T) {
	other := serve(t, answers(200, `{"data":{}}`))
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})
	c := client(t, Options{Address: s.URL, Token: "canary-token"})
	if _, err := c.Read(t.Context(), "sys/mounts"); err == nil || !strings.Contains(err.Error(), "another node leads") {
		t.Errorf("read: %v", err)
	}
	if err := c.Snapshot(t.Context(), &strings.Builder{}); err == nil {
		t.Error("a snapshot of a redirect")
	}
	if n := len(other.requests()); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

func TestTokenAndPath(t *testing.T) {
	s := serve(t, answers(200, `{"data":{}}`))
	c := client(t, Options{Address: s.URL, Token: "one"})
	for _, path := range []string{"secret/data/../../sys/mounts", "a//b", "", "/a", "./a", "a/."} {
		if _, err := c.Read(t.Context(), path); err == nil {
			t.Errorf("path %q was asked", path)
		}
	}
	for _, token := range []string{"canary\ntoken", "canary token", "canäry"} {
		if _, err := c.As(token).Read(t.Context(), "a"); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("a token that is none: %v", err)
		}
	}
	if n := len(s.requests()); n != 0 {
		t.Fatalf("%d requests", n)
	}
	if _, err := c.Read(t.Context(), "secret/data/a b/ü?x=1#%2e"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.As("two").List(t.Context(), "secret/metadata/a/"); err == nil {
		t.Error("a list without keys is none")
	}
	got := s.requests()
	if p := got[0].URL.Path; p != "/v1/secret/data/a b/ü?x=1#%2e" || got[0].Header.Get("X-Vault-Token") != "one" {
		t.Errorf("asked %q", p)
	}
	if got[1].Header.Get("X-Vault-Token") != "two" || got[1].URL.String() != "/v1/secret/metadata/a?list=true" || c.Token() != "one" {
		t.Errorf("asked %q", got[1].URL)
	}
}
