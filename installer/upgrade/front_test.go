package upgrade

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"strongroom.example/installer/host"
)

func TestFrontAt(t *testing.T) {
	status := http.StatusOK
	var asked string
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Host + r.URL.Path
		w.WriteHeader(status)
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for _, c := range []struct {
		name, domain string
		status       int
		want         string // in the error; empty for none
	}{
		{"active", "example.com", http.StatusOK, ""}, // httptest's certificate is for it
		{"sealed", "example.com", http.StatusServiceUnavailable, "503"},
		{"another name", "vault.example.org", http.StatusOK, "not vault.example.org"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status = c.status
			err := FrontAt(c.domain, addr)(t.Context())
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: %v", err)
			}
		})
	}
	if asked != "example.com/v1/sys/health" {
		t.Errorf("asked for %q", asked)
	}
	srv.Close()
	if err := FrontAt("example.com", addr)(t.Context()); err == nil {
		t.Error("a front that is down is well")
	}
}

func FuzzLoad(f *testing.F) {
	for _, s := range []string{`{"format":1,"phase":"quiet"}`, `{"format":2}`, `{"format":1,"kept":[{"path":"/x","attr":{"Mode":420}}]}`, `[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := host.NewMemory()
		m.Files[RecordPath] = &host.Node{Data: data}
		r, err := Load(m.Host(), RecordPath)
		if (r == nil) == (err == nil) {
			t.Errorf("record %v, error %v", r, err)
		}
		if r != nil && r.Format != recordFormat {
			t.Errorf("format %d is let in", r.Format)
		}
	})
}
