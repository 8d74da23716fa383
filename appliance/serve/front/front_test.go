package front

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"strongroom.example/appliance/serve/localtls"
	"strongroom.example/config"
)

// echo answers with what has arrived.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("If-None-Match") == `"v1"` {
		w.Header().Set("ETag", `"v1"`)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	n, err := io.Copy(io.Discard, r.Body)
	w.Header().Set("ETag", `"v1"`)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "uri": r.RequestURI, "header": r.Header, "body": n, "fault": fmt.Sprint(err)})
}

func TestFrontPassesToVault(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	f := startFront(t, baseConfig(t, v))

	res, body := f.get("/v1/secret/data/app?version=2",
		"X-Vault-Token", "hvs.aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil",
		"Forwarded", "for=6.6.6.6", "X-Real-Ip", "6.6.6.6")
	if res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Fatalf("got %s %s %s", res.Proto, res.Status, body)
	}
	if res.TLS.Version != tls.VersionTLS13 {
		t.Errorf("TLS version %#x, want 1.3", res.TLS.Version)
	}
	var got struct {
		URI    string
		Header http.Header
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.URI != "/v1/secret/data/app?version=2" || got.Header.Get("X-Vault-Token") == "" {
		t.Errorf("Vault saw %+v", got)
	}
	if xff := got.Header.Values("X-Forwarded-For"); len(xff) != 1 || xff[0] != "127.0.0.1" {
		t.Errorf("X-Forwarded-For is %q, want the connection's address alone", xff)
	}
	if strings.Contains(body, "6.6.6.6") || strings.Contains(body, "evil") {
		t.Errorf("what the client says of itself reaches Vault: %s", body)
	}
	for name, want := range map[string]string{
		"Strict-Transport-Security": hsts, "Etag": `"v1"`, "X-Content-Type-Options": "nosniff", "Server": "", "Via": "",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}

	if res, body = f.get("/v1/apikeys/creds/app", "If-None-Match", `"v1"`); res.StatusCode != 304 || body != "" || res.Header.Get("Etag") != `"v1"` {
		t.Errorf("conditional read: %s, ETag %q, body %q", res.Status, res.Header.Get("Etag"), body)
	}
	for _, method := range []string{"LIST", "PATCH", "DELETE"} {
		req, _ := http.NewRequest(method, f.url+"/v1/secret/metadata/app/", nil)
		if res, body := f.do(req); res.StatusCode != 200 || !strings.Contains(body, `"method":"`+method+`"`) {
			t.Errorf("%s: %s %s", method, res.Status, body)
		}
	}
}

func TestFrontKeepsSystemPathsInside(t *testing.T) {
	reached := make(chan string, 100)
	v := newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached <- r.RequestURI
	}))
	f := startFront(t, baseConfig(t, v))
	if status := f.raw("GET /v1/sys/health"); status != 200 {
		t.Fatalf("health: %d", status)
	}
	<-reached
	for _, tt := range []struct {
		line   string
		header []string
		status int
	}{
		{"PUT /v1/sys/init", nil, 403},
		{"PUT /v1/sys/unseal", nil, 403},
		{"GET /v1/sys/raw/core/keyring", nil, 403},
		{"POST /v1/sys/storage/raft/bootstrap", nil, 403},
		{"GET /v1/sys/storage/raft/snapshot", nil, 403},
		{"PUT /v1/%73ys/init", nil, 403},
		{"PUT /v1/sys%2Finit", nil, 403},
		{"PUT /v1/sys%252Finit", nil, 403},
		{"PUT //v1//sys//init", nil, 403},
		{"PUT /v1/./sys/./init", nil, 403},
		{"PUT /v1/secret/../sys/init", nil, 400},
		{"PUT /v1/secret/%2e%2e/sys/init", nil, 400},
		{"PUT /v1/SYS/INIT", nil, 403},
		{`PUT /v1\sys\init`, nil, 403},
		{"PUT /v1/team/sys/init", nil, 403},
		{"PUT /v1/sys/init", []string{"X-Vault-Namespace", "team"}, 403},
		{"PUT /v1/init", []string{"X-Vault-Namespace", "sys"}, 403},
		{"GET /metrics", nil, 404},
		{"GET /", nil, 404},
		{"TRACE /v1/sys/health", nil, 405},
		{"PUT http://localhost/v1/sys/init", nil, 403},
	} {
		if status := f.raw(tt.line, tt.header...); status != tt.status {
			t.Errorf("%s: %d, want %d", tt.line, status, tt.status)
		}
	}
	select {
	case uri := <-reached:
		t.Fatalf("Vault was asked for %q", uri)
	default:
	}
	res, body := f.get("/v1/sys/init")
	if res.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(body, `{"errors":["`) {
		t.Errorf("refusal is %q, not in the shape of Vault's errors", body)
	}
}

func TestFrontLimits(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	c.Limits = config.FrontLimits{RequestsPerSecond: 0.01, Burst: 4, Concurrent: 10, BodyBytes: 2000, HeaderBytes: 4096}
	f := startFront(t, c)
	post := func(body io.Reader, size int64) (*http.Response, string) {
		req, _ := http.NewRequest(http.MethodPost, f.url+"/v1/secret/data/app", body)
		req.ContentLength = size
		return f.do(req)
	}
	if res, body := post(strings.NewReader(strings.Repeat("x", 2000)), 2000); res.StatusCode != 200 || !strings.Contains(body, `"body":2000`) {
		t.Errorf("a body of the limit: %s %s", res.Status, body)
	}
	if res, body := post(strings.NewReader(strings.Repeat("x", 2001)), 2001); res.StatusCode != 413 || !strings.Contains(body, "2000 bytes") {
		t.Errorf("a body above the limit: %s %s", res.Status, body)
	}
	if res, body := post(strings.NewReader(strings.Repeat("x", 5000)), -1); res.StatusCode != 413 {
		t.Errorf("a body of unknown size above the limit: %s %s", res.Status, body)
	}
	// Headers are refused by the server before anything counts the request.
	if status := f.raw("GET /v1/sys/health", "X-Large", strings.Repeat("x", 20_000)); status != 431 {
		t.Errorf("a header above the limit: %d", status)
	}
	if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
		t.Errorf("the fourth request of the burst: %s", res.Status)
	}
	// At one request in 100 s, less what has passed since the first one.
	res, body := f.get("/v1/sys/health")
	retry, _ := strconv.Atoi(res.Header.Get("Retry-After"))
	if res.StatusCode != 429 || retry < 1 || retry > 100 || !strings.Contains(body, "too many") {
		t.Errorf("the fifth request of a burst of four: %s, Retry-After %q, %s", res.Status, res.Header.Get("Retry-After"), body)
	}
}

func TestFrontLogsNoSecret(t *testing.T) {
	const token = "hvs.CAESIJoY2ySEQGxPAhRwYbCHeFCkAsYyVnBtZ1Q"
	v := newBackend(t, http.HandlerFunc(echo))
	f := startFront(t, baseConfig(t, v))
	headers := []string{"X-Vault-Token", token, "Authorization", "Bearer " + token, "X-Wrapped", token}
	f.get("/v1/secret/data/app?token="+token, headers...)
	f.get("/v1/auth/token/lookup/"+token, headers...)
	f.get("/v1/sys/raw/"+token, headers...)
	v.CloseClientConnections()
	v.Listener.Close()
	res, body := f.get("/v1/secret/data/late/"+token+"?x="+token, headers...)
	if res.StatusCode != 502 || !strings.Contains(body, `{"errors":["Vault does not answer`) {
		t.Errorf("with Vault gone: %s %s", res.Status, body)
	}
	f.stop(t)
	out := f.output()
	for _, want := range []string{`"path":"/v1/secret/data/app"`, `"path":"/v1/auth/token/lookup/[token]"`, `"status":403`, `"status":502`} {
		if !strings.Contains(out, want) {
			t.Errorf("log has no %s:\n%s", want, out)
		}
	}
	if i := strings.Index(out, token[4:]); i >= 0 {
		t.Errorf("a token is in the log: …%s", out[max(0, i-300):min(len(out), i+100)])
	}
}

// stop ends the front as systemd does and wants exit code 0.
func (f *testFront) stop(t *testing.T) {
	t.Helper()
	f.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-f.done:
	case <-time.After(patience):
		t.Fatal("front does not stop")
	}
	if f.err != nil {
		t.Fatalf("front ended with %v:\n%s", f.err, f.output())
	}
}

func TestFrontDrains(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	v := newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		io.WriteString(w, strings.Repeat("late answer ", 10_000))
	}))
	f := startFront(t, baseConfig(t, v))
	type result struct {
		body string
		err  error
	}
	answer := make(chan result, 1)
	go func() {
		res, err := f.client.Get(f.url + "/v1/apikeys/creds/app?wait=60s")
		if err != nil {
			answer <- result{err: err}
			return
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		answer <- result{string(b), err}
	}()
	select {
	case <-entered:
	case got := <-answer:
		t.Fatalf("the request ended before it reached Vault: %v", got.err)
	}
	f.cmd.Process.Signal(syscall.SIGTERM)
	f.waitOutput("servers shutting down")
	select {
	case <-f.done:
		t.Fatal("front ended with a request in flight")
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	got := <-answer
	if got.err != nil || len(got.body) != 120_000 {
		t.Errorf("the request in flight got %d bytes, %v", len(got.body), got.err)
	}
	<-f.done
	if f.err != nil {
		t.Errorf("front ended with %v:\n%s", f.err, f.output())
	}
}

func TestFrontKeepsItsCertificateAuthority(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	f := startFront(t, c)
	first, err := os.ReadFile(c.RootFile)
	if err != nil {
		t.Fatal(err)
	}
	f.stop(t)
	f = startFront(t, c)
	again, err := os.ReadFile(c.RootFile)
	if err != nil || string(first) != string(again) {
		t.Fatalf("a restart made a new CA (%v)", err)
	}
	if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	err = filepath.WalkDir(c.Storage, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "locks" {
			return filepath.SkipDir // they come and go, and hold nothing but times
		}
		if fi, err := d.Info(); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v", path, fi.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFrontSaysWhyItCannotStart(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	tests := []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"port taken", func(c *Config) { c.Listen = []string{v.Listener.Addr().String()} }, "address already in use"},
		{"no client certificate", func(c *Config) { c.Vault.CertFile = "/nonexistent/crt" }, "/nonexistent/crt"},
		{"no socket from systemd", func(c *Config) { c.Listen = []string{"fd:https"} }, "FileDescriptorName=https"},
		{"storage is a file", func(c *Config) { c.Storage = v.ca }, "not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := baseConfig(t, v)
			tt.edit(&c)
			f := launch(t, c).start()
			<-f.done
			if f.err == nil || !strings.Contains(f.output(), "ERROR") || !strings.Contains(f.output(), tt.want) {
				t.Fatalf("ended with %v, want %q:\n%s", f.err, tt.want, f.output())
			}
		})
	}
}

// A certificate that somebody else renews is served as it is.
func TestFrontServesAGivenCertificate(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	certs, err := localtls.New(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c.Issuer, c.Names = config.TLSFiles, []string{"localhost"}
	c.RootFile = ""
	c.Files = config.FrontFiles{Cert: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key")}
	for file, data := range map[string][]byte{c.Files.Cert: certs.ServerCrt, c.Files.Key: certs.ServerKey} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := launch(t, c).start()
	f.waitOutput("READY\n")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certs.CA)
	conn, err := tls.Dial("tcp", c.Listen[0], &tls.Config{RootCAs: pool, ServerName: "localhost"})
	if err != nil {
		t.Fatalf("%v\n%s", err, f.output())
	}
	conn.Close()

	c.Files.Key = c.Files.Cert
	f = launch(t, c).start()
	<-f.done
	if f.err == nil || !strings.Contains(f.output(), "ERROR") {
		t.Errorf("a certificate without its key: %v\n%s", f.err, f.output())
	}
}

// A read that waits a minute for a rotation passes, and its client is told
// what has changed meanwhile.
func TestFrontPassesLongPolls(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 62 seconds")
	}
	t.Parallel()
	v := newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(62 * time.Second):
			io.WriteString(w, "rotated")
		case <-r.Context().Done():
		}
	}))
	f := startFront(t, baseConfig(t, v))
	f.client.Timeout = patience
	if res, body := f.get("/v1/apikeys/creds/app?wait=60s"); res.StatusCode != 200 || body != "rotated" {
		t.Fatalf("%s %q", res.Status, body)
	}
}
