package front

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"strongroom.example/config"
)

// hetznerAPI is the documented part of Hetzner's API that DNS-01 needs, with
// its records in the DNS server that the test CA asks.
type hetznerAPI struct {
	t      *testing.T
	dns    *pebble
	server *httptest.Server

	mu   sync.Mutex
	sets map[string][]string
}

const hetznerToken = "AAAABBBBCCCCDDDDEEEEFFFFGGGGHHHHIIIIJJJJKKKKLLLLMMMMNNNNOOOOPPPP"

func newHetznerAPI(t *testing.T) *hetznerAPI {
	a := &hetznerAPI{t: t, sets: map[string][]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /zones/{zone}/rrsets/{name}/{type}/actions/{action}", a.change)
	a.server = httptest.NewServer(mux)
	t.Cleanup(a.server.Close)
	return a
}

func (a *hetznerAPI) change(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	fail := func(status int, code string) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": code}})
	}
	if r.Header.Get("Authorization") != "Bearer "+hetznerToken {
		fail(401, "unauthorized")
		return
	}
	var in struct {
		Records []struct{ Value string } `json:"records"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Records) != 1 || r.PathValue("type") != "TXT" {
		fail(422, "invalid_input")
		return
	}
	value := in.Records[0].Value
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		fail(422, "invalid_input") // Hetzner wants TXT values in quotes
		return
	}
	value = strings.Trim(value, `"`)
	host := r.PathValue("name") + "." + r.PathValue("zone") + "."
	switch r.PathValue("action") {
	case "add_records":
		a.sets[host] = append(a.sets[host], value)
		a.dns.record("set-txt", map[string]any{"host": host, "value": value})
	case "remove_records":
		delete(a.sets, host)
		a.dns.record("clear-txt", map[string]any{"host": host})
	default:
		fail(404, "not_found")
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"action": map[string]any{"id": 1, "status": "success", "progress": 100}})
}

// resolver answers for the zone example.org, and asks p's DNS server for the
// rest, which knows no zones.
func resolver(t *testing.T, p *pebble) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	soa, err := dns.NewRR("example.org. 60 IN SOA ns.example.org. admin.example.org. 1 60 60 60 60")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		res := new(dns.Msg)
		res.SetReply(q)
		switch {
		case q.Question[0].Qtype != dns.TypeSOA:
			if up, err := dns.Exchange(q, p.dns); err == nil {
				res = up
			}
		case q.Question[0].Name == "example.org.":
			res.Answer = []dns.RR{soa}
		default:
			res.Ns = []dns.RR{soa}
		}
		_ = w.WriteMsg(res) // a lost answer is asked for again
	})}
	go srv.ActivateAndServe()
	t.Cleanup(func() { srv.Shutdown() })
	return pc.LocalAddr().String()
}

// The CA cannot reach this front at all; the record at Hetzner is the proof,
// and is gone afterwards.
func TestACMEByDNS(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := acmeConfig(t, v, "vault.example.org")
	c.Redirect = nil
	api := newHetznerAPI(t)
	api.dns = newPebble(t, "1", "1")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(hetznerToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ACME = &config.FrontACME{CA: api.dns.directory, TrustedRoots: []string{api.dns.root}, Resolvers: []string{resolver(t, api.dns)},
		DNS: config.FrontDNS{Provider: config.ACMEHetzner, TokenFile: token, Endpoint: api.server.URL}}
	f := launch(t, c).start()
	f.waitOutput("certificate obtained successfully")
	f.useACME(api.dns, c.Listen[0])
	if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	api.mu.Lock()
	defer api.mu.Unlock()
	if len(api.sets) != 0 {
		t.Errorf("records are left at the provider: %v", api.sets)
	}
	if strings.Contains(f.output(), hetznerToken) {
		t.Error("the provider's token is in the log")
	}
}
