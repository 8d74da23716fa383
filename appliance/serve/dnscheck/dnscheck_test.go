package dnscheck

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// server answers with the records of a zone file, over UDP and TCP on one port.
// With fault it answers every question with that code; cut sends UDP answers
// without their records, as those that are too long for a packet.
func server(t *testing.T, zone string, fault int, cut bool) string {
	t.Helper()
	var records []dns.RR
	for line := range strings.Lines(zone) {
		rr, err := dns.NewRR(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if rr != nil {
			records = append(records, rr)
		}
	}
	handle := func(udp bool) dns.HandlerFunc {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg)
			m.SetRcode(q, fault)
			for _, rr := range records {
				if fault == dns.RcodeSuccess && strings.EqualFold(rr.Header().Name, q.Question[0].Name) &&
					(rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME) {
					m.Answer = append(m.Answer, rr)
				}
			}
			if cut && udp {
				m.Answer, m.Truncated = nil, true
			}
			if err := w.WriteMsg(m); err != nil {
				t.Log(err)
			}
		}
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", pc.LocalAddr().String())
	if err != nil {
		pc.Close()
		t.Skipf("the port is taken for TCP: %v", err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handle(true)}, {Listener: ln, Handler: handle(false)}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

func TestCheckCAA(t *testing.T) {
	le := CAAIdentities("https://acme-v02.api.letsencrypt.org/directory")
	zerossl := CAAIdentities("https://acme.zerossl.com/v2/DV90")
	if len(le) != 1 || len(zerossl) != 2 || CAAIdentities("https://ca.lan/dir") != nil || CAAIdentities("://") != nil {
		t.Fatalf("identities %q, %q", le, zerossl)
	}
	for name, c := range map[string]struct {
		zone  string
		ids   []string
		fault string // of the error; "": allowed
	}{
		"no records":         {"", le, ""},
		"allowed":            {`vault.example.org. CAA 0 issue "letsencrypt.org"`, le, ""},
		"letters of no case": {`vault.example.org. CAA 0 ISSUE "LetsEncrypt.ORG"`, le, ""},
		"with parameters":    {`vault.example.org. CAA 0 issue "letsencrypt.org; validationmethods=http-01"`, le, ""},
		"one of several":     {"vault.example.org. CAA 0 issue \"ca.example\"\nvault.example.org. CAA 0 issue \"sectigo.com\"", zerossl, ""},
		"another CA":         {`vault.example.org. CAA 0 issue "ca.example"`, le, `those of "vault.example.org" allow ["ca.example"], not "letsencrypt.org"`},
		"nobody":             {`vault.example.org. CAA 0 issue ";"`, le, `allow [""]`},
		"the parent's":       {`example.org. CAA 0 issue "ca.example"`, le, `those of "example.org"`},
		"the root's":         {`org. CAA 0 issue "ca.example"`, le, `those of "org"`},
		"own before parent":  {"example.org. CAA 0 issue \"ca.example\"\nvault.example.org. CAA 0 issue \"letsencrypt.org\"", le, ""},
		"wildcards alone":    {`vault.example.org. CAA 0 issuewild "ca.example"`, le, ""},
		"iodef hides parent": {"example.org. CAA 0 issue \"ca.example\"\nvault.example.org. CAA 0 iodef \"mailto:a@b.org\"", le, ""},
		"through a CNAME":    {"vault.example.org. CNAME other.example.net.\nvault.example.org. CAA 0 issue \"ca.example\"", le, `allow ["ca.example"]`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, cut := range []bool{false, true} {
				err := Resolver{Servers: []string{server(t, c.zone, dns.RcodeSuccess, cut)}}.CheckCAA(t.Context(), "vault.example.org", c.ids)
				if c.fault == "" && err != nil {
					t.Errorf("cut %v: %v", cut, err)
				}
				if c.fault != "" && (!errors.Is(err, ErrCAA) || !strings.Contains(err.Error(), c.fault)) {
					t.Errorf("cut %v: error = %v, want %q", cut, err, c.fault)
				}
			}
		})
	}
}

func TestLookupFaults(t *testing.T) {
	refusing := server(t, "", dns.RcodeRefused, false)
	good := server(t, "a.example.org. A 192.0.2.1", dns.RcodeSuccess, false)
	missing := server(t, "", dns.RcodeNameError, false)
	if _, err := (Resolver{Servers: []string{refusing}}).Lookup(t.Context(), "a.example.org", dns.TypeA); err == nil || !strings.Contains(err.Error(), "REFUSED") {
		t.Errorf("error = %v", err)
	}
	if err := (Resolver{Servers: []string{refusing}}).CheckCAA(t.Context(), "a.example.org", []string{"x"}); err == nil || errors.Is(err, ErrCAA) {
		t.Errorf("a server that does not tell is not a refusal by CAA: %v", err)
	}
	rrs, err := (Resolver{Servers: []string{"127.0.0.1:1", refusing, good}}).Lookup(t.Context(), "a.example.org", dns.TypeA)
	if err != nil || len(rrs) != 1 {
		t.Errorf("the third server answers: %v, %v", rrs, err)
	}
	if rrs, err := (Resolver{Servers: []string{missing}}).Lookup(t.Context(), "a.example.org", dns.TypeA); err != nil || len(rrs) != 0 {
		t.Errorf("a name that is not there: %v, %v", rrs, err)
	}
}
