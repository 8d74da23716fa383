package steps

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"strongroom.example/appliance/serve/dnscheck"
)

// nameServer answers with the records of a zone file, over UDP.
func nameServer(t *testing.T, zone string) string {
	t.Helper()
	var records []dns.RR
	for line := range strings.Lines(zone) {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, rr)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(q)
			m.RecursionAvailable = true
			if !slices.ContainsFunc(records, func(rr dns.RR) bool { return strings.EqualFold(rr.Header().Name, q.Question[0].Name) }) {
				m.Rcode = dns.RcodeNameError
			}
			for _, rr := range records {
				if strings.EqualFold(rr.Header().Name, q.Question[0].Name) && rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
			if err := w.WriteMsg(m); err != nil {
				t.Log(err)
			}
		})}
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return pc.LocalAddr().String()
}

// TestLookup has one name server stand in for a resolver that reads /etc/hosts,
// and another for the DNS.
func TestLookup(t *testing.T) {
	for name, c := range map[string]struct {
		hosts, dns string
		want       string
		fault      string
	}{
		"plain":                  {hosts: "vault.example.com. A 203.0.113.5", want: "203.0.113.5"},
		"cloud-init's line":      {hosts: "vault.example.com. A 127.0.1.1", dns: "vault.example.com. A 203.0.113.5\nvault.example.com. AAAA 2001:db8::5", want: "203.0.113.5 2001:db8::5"},
		"loopback of IPv6":       {hosts: "vault.example.com. AAAA ::1", dns: "vault.example.com. A 203.0.113.5", want: "203.0.113.5"},
		"loopback beside others": {hosts: "vault.example.com. A 127.0.1.1\nvault.example.com. A 203.0.113.5", want: "203.0.113.5"},
		"nowhere else":           {hosts: "vault.example.com. A 127.0.1.1", dns: "other.example.com. A 203.0.113.5", fault: `"vault.example.com" is in /etc/hosts alone`},
		"loopback in the DNS":    {hosts: "vault.example.com. A 127.0.0.1", dns: "vault.example.com. A 127.0.0.1", want: "127.0.0.1"},
		"no such name":           {hosts: "other.example.com. A 203.0.113.5", fault: "no such host"},
	} {
		t.Run(name, func(t *testing.T) {
			hosts := nameServer(t, c.hosts)
			o := OSNetwork{
				Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					var d net.Dialer
					return d.DialContext(ctx, "udp", hosts)
				}},
				Direct: dnscheck.Resolver{Servers: []string{nameServer(t, c.dns)}},
			}
			got, err := o.Lookup(t.Context(), "vault.example.com")
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("%v, error = %v, want %q", got, err, c.fault)
				}
				return
			}
			var want []netip.Addr
			for _, a := range strings.Fields(c.want) {
				want = append(want, netip.MustParseAddr(a))
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%v, %v, want %v", got, err, want)
			}
		})
	}
}

func TestNameServers(t *testing.T) {
	for name, c := range map[string]struct {
		conf, behind string // "-": no such file
		want         string
		fails        bool
	}{
		"plain":               {"nameserver 192.0.2.1\nnameserver 2001:db8::1\n", "nameserver 192.0.2.9\n", "192.0.2.1:53 [2001:db8::1]:53", false},
		"systemd-resolved":    {"nameserver 127.0.0.53\n", "nameserver 192.0.2.9\n", "192.0.2.9:53", false},
		"own server":          {"nameserver 127.0.0.1\n", "-", "127.0.0.1:53", false},
		"nobody behind":       {"nameserver 127.0.0.53\n", "# none\n", "127.0.0.53:53", false},
		"one of them is here": {"nameserver 127.0.0.1\nnameserver 192.0.2.1\n", "nameserver 192.0.2.9\n", "127.0.0.1:53 192.0.2.1:53", false},
		"no file":             {"-", "-", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"conf": c.conf, "behind": c.behind} {
				if text == "-" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := nameServers(filepath.Join(dir, "conf"), filepath.Join(dir, "behind"))
			if (err != nil) != c.fails || strings.Join(got, " ") != c.want {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// Who listens on loopback alone is in the way too.
func TestTakenOnLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if taken, err := (OSNetwork{}).Taken("tcp", port); !taken || err != nil {
		t.Errorf("Taken(tcp, %d) = %t, %v", port, taken, err)
	}
}
