package kms

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom.example/config/machine"
)

// serve runs a server on a socket in a folder of its own and gives a client for
// it and what it has logged.
func serve(t *testing.T, s *Server) (*http.Client, *logBuffer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kms") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "kms.sock")
	ln, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var log logBuffer
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	client := &http.Client{Timeout: 3 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server ended with %v", err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("server left its socket behind")
		}
	})
	return client, &log
}

// logBuffer is a bytes.Buffer for a writer and a reader at once.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

type answer struct {
	Data   map[string]any `json:"data"`
	Errors []string       `json:"errors"`
}

func call(t *testing.T, c *http.Client, method, path, body string) (int, answer) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://kms"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", "dummy")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatalf("%s %s: %d, body %q is not JSON", method, path, res.StatusCode, b)
	}
	return res.StatusCode, a
}

func TestServerEncryptsAndDecrypts(t *testing.T) {
	k := newKeyset(t)
	client, log := serve(t, &Server{Keyset: k})
	secret := base64.StdEncoding.EncodeToString([]byte("the barrier's root key"))
	for _, method := range []string{http.MethodPut, http.MethodPost} {
		status, a := call(t, client, method, "/v1/transit/encrypt/strongroom", `{"plaintext":"`+secret+`"}`)
		if status != 200 || a.Data["key_version"] != 1.0 {
			t.Fatalf("%s encrypt: %d %v", method, status, a)
		}
		c := a.Data["ciphertext"].(string)
		if strings.Count(c, ":") != 2 {
			t.Fatalf("ciphertext %q has not three parts, as the seal wants", c)
		}
		if status, a = call(t, client, method, "/v1/transit/decrypt/strongroom", `{"ciphertext":"`+c+`"}`); status != 200 || a.Data["plaintext"] != secret {
			t.Fatalf("%s decrypt: %d %v", method, status, a)
		}
	}
	if strings.Contains(log.String(), secret) {
		t.Fatal("a plaintext is in the log")
	}
}

func TestServerRefuses(t *testing.T) {
	k := newKeyset(t)
	foreign, err := newKeyset(t).Encrypt([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	client, log := serve(t, &Server{Keyset: k, KeyName: "unseal"})
	enc, dec := "/v1/transit/encrypt/unseal", "/v1/transit/decrypt/unseal"
	tests := []struct {
		name, method, path, body string
		status                   int
		text                     string
	}{
		{"another engine", "PUT", "/v1/secret/data/x", `{}`, 404, ""},
		{"another transit call", "PUT", "/v1/transit/keys/unseal", `{}`, 404, ""},
		{"key export", "GET", "/v1/transit/export/encryption-key/unseal", ``, 404, ""},
		{"another key", "PUT", "/v1/transit/encrypt/other", `{"plaintext":"YQ=="}`, 400, `"other" not found`},
		{"a read", "GET", enc, ``, 405, "unsupported"},
		{"a delete", "DELETE", dec, ``, 405, "unsupported"},
		{"no body", "PUT", enc, ``, 400, "JSON"},
		{"not JSON", "PUT", enc, `plaintext=c2VjcmV0`, 400, "JSON"},
		{"two objects", "PUT", enc, `{"plaintext":"YQ=="}{}`, 400, "JSON"},
		{"a field it does not know", "PUT", enc, `{"plaintext":"YQ==","context":"YQ=="}`, 400, "JSON"},
		{"no plaintext", "PUT", enc, `{}`, 400, "missing plaintext"},
		{"plaintext not base64", "PUT", enc, `{"plaintext":"c2VjcmV0!"}`, 400, "base64"},
		{"an older key version", "PUT", enc, `{"plaintext":"YQ==","key_version":7}`, 400, "key_version 7"},
		{"body too large", "PUT", enc, `{"plaintext":"` + strings.Repeat("A", maxBody) + `"}`, 413, "65536 bytes"},
		{"no ciphertext", "PUT", dec, `{}`, 400, "missing ciphertext"},
		{"another keyset's ciphertext", "PUT", dec, `{"ciphertext":"` + foreign + `"}`, 400, "not made with this keyset"},
		{"a version it lacks", "PUT", dec, `{"ciphertext":"vault:v9:AAAA"}`, 400, "v9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, a := call(t, client, tt.method, tt.path, tt.body)
			got := fmt.Sprint(a.Errors)
			if status != tt.status || !strings.Contains(got, tt.text) || a.Data != nil {
				t.Fatalf("got %d %s, want %d with %q", status, got, tt.status, tt.text)
			}
			for _, word := range []string{"c2VjcmV0", "AAAAAAAA"} {
				if strings.Contains(got, word) || strings.Contains(log.String(), word) {
					t.Fatalf("the request's content %q is in the answer or the log", word)
				}
			}
		})
	}
}

func TestServerRefusesForeignUid(t *testing.T) {
	client, log := serve(t, &Server{Keyset: newKeyset(t), Allow: []uint32{uint32(os.Geteuid()) + 1}})
	_, err := client.Post("http://kms/v1/transit/encrypt/strongroom", "application/json", strings.NewReader(`{"plaintext":"YQ=="}`))
	if err == nil {
		t.Fatal("a uid that is not allowed was answered")
	}
	want := fmt.Sprintf("uid=%d", os.Geteuid())
	if !strings.Contains(log.String(), want) {
		t.Fatalf("log %q does not name %s", log, want)
	}
}

func TestServerRefusesNetworkListeners(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Server{Keyset: newKeyset(t)}).Serve(t.Context(), ln); err == nil || !strings.Contains(err.Error(), "unix socket") {
		t.Fatalf("got %v", err)
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Fatal("the listener is still open")
	}
}

func TestListen(t *testing.T) {
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	ln, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("socket's mode: %v, %v", fi.Mode(), err)
	}
	if _, err := Listen(path, 0o600); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Fatalf("a socket in use: %v", err)
	}
	// What a killed server leaves: a socket that nobody answers.
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	ln, err = Listen(path, 0o600)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	ln.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, 0o600); err == nil {
		t.Fatal("a file was replaced by a socket")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Fatalf("the file is now %q, %v", b, err)
	}
}

// Others than this process's own user can connect only where they are let in: the
// kernel wants write permission for that.
func TestListenFor(t *testing.T) {
	dir, err := os.MkdirTemp("", "kms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	own := uint32(os.Geteuid())
	for _, tt := range []struct {
		name string
		uids []uint32
		want os.FileMode
	}{
		{"own", []uint32{own}, 0o600}, {"another", []uint32{own + 1}, 0o666}, {"both", []uint32{own, own + 1}, 0o666},
	} {
		ln, err := ListenFor(filepath.Join(dir, tt.name), tt.uids)
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Lstat(ln.Addr().String()); err != nil || fi.Mode().Perm() != tt.want {
			t.Errorf("%s: mode %v, %v", tt.name, fi.Mode(), err)
		}
		ln.Close()
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	k := newKeyset(t)
	whole := marshal(t, k)
	tests := []struct {
		name string
		data []byte
		mode os.FileMode
		want string // in the error; empty for success
	}{
		{"good", whole, 0o600, ""},
		{"good, read-only", whole, 0o400, ""},
		{"readable by all", whole, 0o644, "mode 0644"},
		{"readable by the group", whole, 0o640, "mode 0640"},
		{"truncated", whole[:200], 0o600, "truncated"},
		{"empty", nil, 0o600, "empty"},
		{"larger than any keyset", bytes.Repeat([]byte{'a'}, maxKeyset+100), 0o600, "not a strongroom"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-"))
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			got, err := LoadFile(path)
			if tt.want == "" {
				if err != nil || got.Fingerprint() != k.Fingerprint() {
					t.Fatalf("got %v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v, want %q and the path", err, tt.want)
			}
		})
	}
	if _, err := LoadFile(filepath.Join(dir, "absent")); err == nil || !strings.Contains(err.Error(), "no master key") {
		t.Fatalf("a missing file: %v", err)
	}
	if _, err := LoadFile(dir); err == nil {
		t.Fatal("a folder was taken for a key file")
	}
	if err := os.WriteFile(filepath.Join(dir, machine.CredMasterKey), whole, 0o440); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCredential(dir); err != nil {
		t.Fatalf("systemd's credential: %v", err)
	}
	if _, err := LoadCredential(""); err == nil {
		t.Fatal("no credential folder, no error")
	}
}

func BenchmarkServerDecrypt(b *testing.B) {
	k := newKeyset(b)
	c, err := k.Encrypt(bytes.Repeat([]byte{7}, 64))
	if err != nil {
		b.Fatal(err)
	}
	h := (&Server{Keyset: k}).Handler()
	body := `{"ciphertext":"` + c + `"}`
	b.ReportAllocs()
	for b.Loop() {
		req, _ := http.NewRequest(http.MethodPut, "/v1/transit/decrypt/strongroom", strings.NewReader(body))
		w := discard{header: http.Header{}}
		h.ServeHTTP(&w, req)
		if w.status != 0 {
			b.Fatal(w.status)
		}
	}
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
