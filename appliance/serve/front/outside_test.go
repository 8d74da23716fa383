package front

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// plain sends bytes to a port for plain HTTP, and reads the answer.
func plain(t *testing.T, addr, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, request)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return res
}

// Plain HTTP leads to the front's own name, whatever the request's target is, and says
// nothing of what runs here.
func TestRedirectsLeadHere(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	c.Redirect = []string{freePort(t)}
	f := startFront(t, c)
	_, port, _ := net.SplitHostPort(c.Listen[0])
	here := "https://127.0.0.1:" + port + "/"
	for target, want := range map[string]string{
		"/v1/secret/data/x?a=1&b=2": here + "v1/secret/data/x?a=1&b=2", "/": here, "/a%2fb": here + "a%2fb", "//evil.example/x": here + "/evil.example/x",
		"x:.evil.example": here, "x:@evil.example/": here, "x:evil.example:443/": here, "http://evil.example/x": here + "x", "x://evil.example": here, "http:": here,
		"/.well-known/strongroom-preflight": here + ".well-known/strongroom-preflight", `/\evil.example`: here + "%5Cevil.example",
	} {
		res := plain(t, c.Redirect[0], "GET "+target+" HTTP/1.1\r\nHost: evil.example\r\n\r\n")
		if got := res.Header.Get("Location"); res.StatusCode != 400 && (res.StatusCode != 308 || got != want) {
			t.Errorf("%s: %d to %q, want %q", target, res.StatusCode, got, want)
		}
		if res.Header.Get("Server") != "" {
			t.Errorf("%s: Server: %s", target, res.Header.Get("Server"))
		}
	}
	for _, host := range []string{"Host: ...\r\n", "Host: \r\n", "Host: a b\r\n"} {
		if res := plain(t, c.Redirect[0], "GET / HTTP/1.1\r\n"+host+"\r\n"); res.StatusCode != 400 || res.Header.Get("Server") != "" {
			t.Errorf("%q: %d, Server: %s", host, res.StatusCode, res.Header.Get("Server"))
		}
	}
	for _, host := range []string{"..."} {
		req, err := http.NewRequest("GET", f.url+"/v1/sys/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if res, body := f.do(req); res.Header.Get("Server") != "" || res.StatusCode == 400 && !strings.HasPrefix(body, `{"errors":`) {
			t.Errorf("host %q: %s, Server: %s %s", host, res.Status, res.Header.Get("Server"), body)
		}
	}
	if out := f.output(); strings.Contains(out, `"logger":"http.log.error"`) {
		t.Errorf("what Caddy refuses by itself is in the log, as often as a stranger likes:\n%s", out)
	}
}

// What Vault tells anybody is less than what it tells on the machine.
func TestStrangersSeeLess(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/v1/sys/health" {
			w.WriteHeader(429) // a standby
		}
		io.WriteString(w, `{"initialized":true,"sealed":false,"t":3,"is_self":true,"raft_committed_index":12345678901234567890,"raft_applied_index":77,
			"cluster_id":"c0ffee","cluster_name":"name-of-it","version":"2.7.2","build_date":"x","commit_date":"2026-10-26","leader_address":"https://10.0.0.1:8200","leader_cluster_address":"https://10.0.0.1:8201"}`)
	}))
	f := startFront(t, baseConfig(t, v))
	for _, path := range []string{"/v1/sys/leader", "/v1/sys/seal-status", "/v1/team/sys/seal-status", "/v1/sys/health?standbyok=1"} {
		res, body := f.get(path, "X-Vault-Token", "t")
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil || got["initialized"] != true || got["t"] != 3.0 || res.Header.Get("Strict-Transport-Security") != hsts || res.Header.Get("Server") != "" {
			t.Errorf("%s: %v, %v %v", path, err, res.Header, got)
		}
		secrets := []string{"c0ffee", "name-of-it"}
		if strings.HasSuffix(path, "leader") {
			secrets = []string{"12345678901234567890", "raft_applied", "10.0.0.1"}
		}
		if strings.HasSuffix(path, "seal-status") {
			secrets = append(secrets, "2026-10-26") // which tells OpenBao's version
		}
		for _, s := range secrets {
			if strings.Contains(body, s) {
				t.Errorf("%s shows %s: %s", path, s, body)
			}
		}
		if want := map[bool]int{true: 429, false: 200}[strings.Contains(path, "health")]; res.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, res.Status, want)
		}
	}
	if _, body := f.get("/v1/secret/data/leader"); !strings.Contains(body, "c0ffee") {
		t.Errorf("a secret: %s", body)
	}
}

// Strangers' requests leave no more in the journal than a minute's room, and how many
// had none is said; who has a token has each request written down.
func TestJournalIsBounded(t *testing.T) {
	g, _, next := newGate(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/secret/data/none" {
			w.WriteHeader(404)
		}
		_, _ = w.Write(nil)
	})
	now := time.Unix(1_800_000_000, 0)
	g.journal.now = func() time.Time { return now }
	written := 0
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	core, logs := observer.New(zapcore.InfoLevel)
	g.log = zap.New(core)
	send := func(path, token string) {
		t.Helper()
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set(headerToken, token)
		if err := g.ServeHTTP(httptest.NewRecorder(), r, next); err != nil {
			t.Fatal(err)
		}
	}
	size := func() (bytes, lines int) {
		for _, e := range logs.TakeAll() {
			b, err := encoder.EncodeEntry(e.Entry, e.Context)
			if err != nil {
				t.Fatal(err)
			}
			bytes += b.Len()
			lines++
		}
		return bytes, lines
	}
	for i := range 5000 {
		send(fmt.Sprintf("/v1/sys/raw/%d", i), "")                                          // refused
		send("/v1/sys/health", "")                                                          // open
		send("/v1/secret/data/none", "t")                                                   // comes to nothing
		send("/v1/secret/data/x", "")                                                       // without a token
		send("/v1/secret/data/"+strings.Repeat("a/", 900)+"?"+strings.Repeat("b", 900), "") // long
	}
	if written, _ = size(); written > journalBytes+10_000 || written < journalBytes/3 {
		t.Errorf("25,000 requests leave %d bytes, for a room of %d", written, journalBytes)
	}
	for range 1000 {
		send("/v1/secret/data/x", "t")
	}
	if _, lines := size(); lines != 1000 {
		t.Errorf("%d of 1000 requests of who has a token are written down", lines)
	}
	now = now.Add(time.Minute)
	send("/v1/sys/health", "")
	all := logs.All()
	if len(all) != 2 || all[0].ContextMap()["requests"].(int64) < 20_000 {
		t.Errorf("a minute later: %v", all)
	}
}
