package vps_test

import (
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
)

// testFrontStorage damages the front's storage as a power cut does; and gives the root up,
// with the words of docs/certificates.md.
func testFrontStorage(t *testing.T, m *machine) {
	const storage, root = "/var/lib/strongroom-front", "/var/lib/strongroom-front/root.crt"
	served := func() string {
		t.Helper()
		pem := m.read(t, root)
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			t.Fatalf("%s holds no certificate", root)
		}
		if status, body := m.vault(t, m.client(pool), http.MethodGet, "sys/health", "", nil); status != http.StatusOK {
			t.Fatalf("answers %d: %v", status, body)
		}
		return string(pem)
	}
	first := served()
	for _, files := range []string{"certificates/local/*/*", "pki/authorities/local/intermediate.*", "pki/authorities/local/root.crt"} {
		m.sh(t, "systemctl stop strongroom-front && for f in "+storage+"/"+files+"; do head -c 300 /dev/zero >$f; done && mkdir -p "+storage+
			"/locks && head -c 40 /dev/zero >"+storage+"/locks/issue_cert_"+domain+".lock && systemctl start strongroom-front")
		if served() != first {
			t.Errorf("after %s was damaged clients are given another root", files)
		}
	}
	if out := m.sh(t, "journalctl -u strongroom-front -p warning -o cat --no-pager"); !strings.Contains(out, "intermediate.crt is damaged or not valid now: moved to ") {
		t.Errorf("the journal does not say what was moved: %s", out)
	}

	if r := m.in(t, "strongroom", "front", "new-root"); r.code != 4 || !strings.Contains(r.stderr, "say --yes if that is meant") {
		t.Errorf("without a word: %s", r)
	}
	if out := m.sh(t, "find "+storage+" -name root.key; cat /etc/strongroom/authority/root.crt"); out != first {
		t.Errorf("the root's key is not its job's alone: %s", out)
	}
	m.sh(t, onPage(t, "certificates.md", "new-root"))
	if served() == first {
		t.Error("the root is the one of before")
	}
}
