package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/vaulttest"
)

// door is a way to the same Vault.
type door struct {
	name  string
	load  load
	child *proc.Child // that stands in between; nil: nobody

	rates, p50 []float64
	cpu        time.Duration
	count      int
}

// Reads through the front over TLS against reads through the stock Caddy of the
// version that the front embeds, with the same proxy, link to Vault, time limits
// and access log, and against Vault's own socket.
func BenchmarkFront(b *testing.B) {
	s := vaulttest.New(b)
	setUpKV(b, s)
	front := &door{name: "front", child: startUnlimited(b, s)}
	front.load = load{socket: listening(b, s), tls: trusting(b, s.Layout.FrontRoot()), token: s.RootToken, conns: 8}
	doors := []*door{front, startStock(b, s), {name: "Vault's socket", load: load{socket: s.Layout.VaultSocket(), token: s.RootToken, conns: 8}}}
	r := request{path: "secret/data/x", status: http.StatusOK}
	for b.Loop() {
		for round := range rounds + 1 {
			for i := range doors {
				d := doors[i]
				if round%2 == 1 {
					d = doors[len(doors)-1-i]
				}
				pid := 0
				if d.child != nil {
					pid = d.child.PID()
				}
				before := usedBy(b, pid)
				got, err := d.load.run(b.Context(), r, perRound)
				if err != nil {
					b.Fatalf("%s: %v", d.name, err)
				}
				if round == 0 {
					continue // warms up
				}
				d.rates = append(d.rates, got.perSecond)
				d.p50 = append(d.p50, float64(got.p50)/float64(time.Millisecond))
				d.cpu += usedBy(b, pid) - before
				d.count += got.count
			}
		}
		var table strings.Builder
		fmt.Fprintf(&table, "\n%-24s %10s %9s %14s %14s\n", "read of a secret", "requests/s", "p50 ms", "to stock Caddy", "µs of its CPU")
		for _, d := range doors {
			fmt.Fprintf(&table, "%-24s %10.0f %9.2f %14.2f %14.0f\n", d.name, median(d.rates), median(d.p50), ratio(d.rates, doors[1].rates), float64(d.cpu.Microseconds())/float64(d.count))
		}
		b.Log(table.String())
		b.ReportMetric(ratio(front.rates, doors[1].rates), "front/stock")
		b.ReportMetric(ratio(front.rates, doors[2].rates), "front/vault")
	}
}

// startUnlimited starts the front of a scratch Vault without the limit on
// requests per client, which a benchmark would only measure.
func startUnlimited(b *testing.B, s *vaulttest.Server) *proc.Child {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), vaulttest.Patience)
	defer cancel()
	first, err := s.StartFront(ctx)
	if err != nil {
		b.Fatal(err)
	}
	if err := first.Stop(); err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(s.Layout.FrontConfig())
	if err != nil {
		b.Fatal(err)
	}
	limit := regexp.MustCompile(`requests_per_second = [0-9.]+`)
	if !limit.Match(text) {
		b.Fatalf("no limit in:\n%s", text)
	}
	if err := os.WriteFile(s.Layout.FrontConfig(), limit.ReplaceAll(text, []byte("requests_per_second = 0.0")), 0o600); err != nil {
		b.Fatal(err)
	}
	return spawn(b, s, "front", listening(b, s), vaulttest.Bin(b, "strongroom"), "front", "--config", s.Layout.FrontConfig())
}

// spawn starts a server and waits until it accepts at addr.
func spawn(b *testing.B, s *vaulttest.Server, name, addr, path string, args ...string) *proc.Child {
	b.Helper()
	child, err := s.Set.Start(proc.Spec{Name: name, Path: path, Args: args,
		Env: []string{"XDG_DATA_HOME=" + filepath.Join(s.Layout.Run(), name), "XDG_CONFIG_HOME=" + s.Layout.Run()}, LogFile: s.Layout.Log(name + "-bench")})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), vaulttest.Patience)
	defer cancel()
	if err := child.WaitUp(ctx, func(ctx context.Context) error {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			// A handshake: the listener may be up before the certificate.
			d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}}
			c, err := d.DialContext(ctx, "tcp", addr)
			if err == nil {
				return c.Close()
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return err
			}
		}
	}); err != nil {
		b.Fatal(err)
	}
	return child
}

// listening is the front's address, from its configuration.
func listening(b *testing.B, s *vaulttest.Server) string {
	b.Helper()
	text, err := os.ReadFile(s.Layout.FrontConfig())
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(`listen = \["([^"]+)"\]`).FindSubmatch(text)
	if m == nil {
		b.Fatalf("no address in:\n%s", text)
	}
	return string(m[1])
}

// trusting is the TLS of a client that trusts the roots in a file and speaks
// HTTP/1.1, as Vault's clients do.
func trusting(b *testing.B, rootFile string) *tls.Config {
	b.Helper()
	pem, err := os.ReadFile(rootFile)
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		b.Fatalf("no certificate in %s", rootFile)
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"http/1.1"}}
}

// startStock starts the stock Caddy with what the front sets: see
// appliance/serve/front/caddyconfig.go.
func startStock(b *testing.B, s *vaulttest.Server) *door {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	crt, key := s.Layout.LinkClient()
	type obj = map[string]any
	second := int64(time.Second)
	policy := obj{"subjects": []string{"localhost"}, "issuers": []obj{{"module": "internal"}}}
	config := obj{
		"admin":   obj{"disabled": true, "config": obj{"persist": false}},
		"logging": obj{"logs": obj{"default": obj{"level": "INFO", "writer": obj{"output": "stderr"}, "encoder": obj{"format": "json"}}}},
		"storage": obj{"module": "file_system", "root": filepath.Join(s.Layout.Run(), "stock")},
		"apps": obj{
			"pki": obj{"certificate_authorities": obj{"local": obj{"install_trust": false}}},
			"tls": obj{"certificates": obj{"automate": []string{"localhost"}}, "automation": obj{"policies": []obj{policy}}},
			"http": obj{"servers": obj{"stock": obj{
				"listen": []string{addr}, "protocols": []string{"h1", "h2"}, "automatic_https": obj{"disable": true}, "logs": obj{},
				"tls_connection_policies": []obj{{"protocol_min": "tls1.2", "default_sni": "localhost"}},
				"read_header_timeout":     10 * second, "read_timeout": 30 * second, "write_timeout": 100 * second, "idle_timeout": 120 * second,
				"max_header_bytes": 16 << 10,
				"routes": []obj{{"handle": []obj{{
					"handler": "reverse_proxy", "upstreams": []obj{{"dial": s.TCPAddress}},
					"load_balancing": obj{"try_duration": 3 * second, "try_interval": second / 10},
					"transport": obj{"protocol": "http", "compression": false, "versions": []string{"1.1"}, "dial_timeout": 2 * second,
						"response_header_timeout": 100 * second,
						"keep_alive":              obj{"idle_timeout": 60 * second, "max_idle_conns_per_host": 128},
						"tls": obj{"server_name": "127.0.0.1", "client_certificate_file": crt, "client_certificate_key_file": key,
							"ca": obj{"provider": "file", "pem_files": []string{s.Layout.LinkCA()}}}},
				}}}},
			}}},
		},
	}
	text, err := json.Marshal(config)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(s.Layout.Run(), "stock.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		b.Fatal(err)
	}
	child := spawn(b, s, "stock", addr, vaulttest.Bin(b, "caddy"), "run", "--config", file)
	root := filepath.Join(s.Layout.Run(), "stock", "pki", "authorities", "local", "root.crt")
	if pem, err := os.ReadFile(root); err != nil || !bytes.Contains(pem, []byte("CERTIFICATE")) {
		b.Fatalf("the stock Caddy's root: %v", err)
	}
	return &door{name: "stock Caddy", child: child, load: load{socket: addr, tls: trusting(b, root), token: s.RootToken, conns: 8}}
}
