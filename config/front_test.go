package config

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

const goodFront = `
listen = ["fd:https"]
redirect = ["fd:http"]
names = ["vault.example.org"]
storage = "/var/lib/strongroom-front"
issuer = "acme"
drain = "10s"

[vault]
address = "127.0.0.1:8200"
ca_file = "/etc/strongroom/tls/ca.crt"
cert_file = "/etc/strongroom/tls/front.crt"
key_file = "/etc/strongroom/tls/front.key"
`

func TestParseFront(t *testing.T) {
	c, err := ParseFront("F", []byte(goodFront))
	if err != nil {
		t.Fatal(err)
	}
	if c.ACME.CA != ACMELetsEncrypt || c.ACME.Staging != ACMELetsEncryptStaging || c.Limits.BodyBytes != 1<<20 || c.Drain != 10*time.Second {
		t.Errorf("defaults are not kept: %+v", c)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"unknown key", `issuer = "acme"`, `issuer = "acme"` + "\ncolour = 1", "colour: unknown key"},
		{"unknown key in a table", "[vault]", "[vault]\nport = 1", "vault.port: unknown key"},
		{"not TOML", `issuer = "acme"`, `issuer = acme`, "F:6: "},
		{"no address", `listen = ["fd:https"]`, `listen = []`, "listen: no address"},
		{"address without a port", `"fd:https"`, `"127.0.0.1"`, `"127.0.0.1" is neither`},
		{"socket without a name", `"fd:https"`, `"fd:"`, "names no socket"},
		{"no name", `["vault.example.org"]`, `[]`, "names: no name"},
		{"URL as a name", "vault.example.org", "https://vault.example.org", "neither a DNS name"},
		{"wildcard", "vault.example.org", "*.example.org", "neither a DNS name"},
		{"address of a public certificate", "vault.example.org", "192.0.2.1", "not a public DNS name"},
		{"local name of a public certificate", "vault.example.org", "vault", "not a public DNS name"},
		{"capital letters", "vault.example.org", "Vault.example.org", `write "vault.example.org"`},
		{"dot at the end", "vault.example.org", "vault.example.org.", `write "vault.example.org"`},
		{"umlaut", "vault.example.org", "vault.münchen.example", "with xn--"},
		{"dot in the middle", "vault.example.org", "vault..org", "neither a DNS name"},
		{"underscore", "vault.example.org", "vault_1.example.org", "neither a DNS name"},
		{"address in a long form", "vault.example.org", "2001:0db8::0001", `write "2001:db8::1"`},
		{"address of IPv4 in IPv6", "vault.example.org", "::ffff:192.0.2.1", `write "192.0.2.1"`},
		{"address with a zone", "vault.example.org", "fe80::1%eth0", `write "fe80::1"`},
		{"relative storage", "/var/lib/strongroom-front", "data", "storage"},
		{"unknown issuer", `issuer = "acme"`, `issuer = "acmee"`, `"acmee" is none of`},
		{"files without files", `issuer = "acme"`, `issuer = "files"`, "needs cert and key"},
		{"root of a public CA", `issuer = "acme"`, "issuer = \"acme\"\nroot_file = \"/x\"", "has no root of its own"},
		{"endless drain", `"10s"`, `"20m"`, "drain: 20m0s"},
		{"drain without a unit", `"10s"`, `"10"`, `drain: "10" is not a duration`},
		{"Vault on the network", "127.0.0.1:8200", "10.0.0.1:8200", "vault.address"},
		{"Vault by name", "127.0.0.1:8200", "localhost:8200", "vault.address"},
		{"no client key", `key_file = "/etc/strongroom/tls/front.key"`, "", "vault.key_file"},
		{"limits that let nobody in", "[vault]", "[limits]\nrequests_per_second = 1\nburst = 0\n[vault]", "lets nobody in"},
		{"tiny bodies", "[vault]", "[limits]\nbody_bytes = 1\n[vault]", "limits.body_bytes"},
		{"huge headers", "[vault]", "[limits]\nheader_bytes = 10000000\n[vault]", "limits.header_bytes"},
		{"negative concurrency", "[vault]", "[limits]\nconcurrent = -1\n[vault]", "limits.concurrent"},
		{"CA over plain HTTP", "[vault]", "[acme]\nca = \"http://ca\"\n[vault]", "acme.ca"},
		{"ZeroSSL without an address", "[vault]", "[acme]\nfallback = \"" + ACMEZeroSSL + "\"\n[vault]", "acme.email"},
		{"unknown DNS provider", "[vault]", "[acme.dns]\nprovider = \"x\"\n[vault]", "acme.dns.provider"},
		{"DNS provider without a token", "[vault]", "[acme.dns]\nprovider = \"hetzner\"\n[vault]", "acme.dns.token_file"},
		{"DNS token without a provider", "[vault]", "[acme.dns]\ntoken_file = \"/x\"\n[vault]", "acme.dns.provider"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(goodFront, tt.old, tt.new, 1)
			if text == goodFront {
				t.Fatalf("%q is not in the good configuration", tt.old)
			}
			if _, err := ParseFront("F", []byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
	t.Run("all faults at once", func(t *testing.T) {
		_, err := ParseFront("F", []byte("issuer = \"x\"\ncolour = 1\n"))
		for _, want := range []string{"colour", "listen", "names", "storage", "issuer", "vault.address", "vault.ca_file"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not name %s", err, want)
			}
		}
	})
}

// A front that is restarted in the middle of an upgrade reads the file of a version
// that spoke HTTP/3.
func TestFrontFileOfAnEarlierVersion(t *testing.T) {
	for _, line := range []string{`http3 = ["fd:http3"]`, `http3_enabled = true`} {
		if _, err := ParseFront("F", []byte(line+goodFront)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func FuzzParseFront(f *testing.F) {
	f.Add(goodFront)
	f.Add("[limits]\nburst = 1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseFront("F", []byte(text))
		if err != nil {
			return
		}
		// What is taken is taken again as it is written.
		var b bytes.Buffer
		if err := c.Encode(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFront("F", b.Bytes()); err != nil {
			t.Fatalf("%q is taken once only: %v", text, err)
		}
	})
}

// The same file always reads the same, however many things are wrong with it.
func TestFaultsHaveOneOrder(t *testing.T) {
	first := ""
	for range 20 {
		_, err := ParseFront("front.toml", nil)
		if err == nil {
			t.Fatal("an empty file is taken")
		}
		if first == "" {
			first = err.Error()
		}
		if err.Error() != first {
			t.Fatalf("once:\n%s\nonce:\n%v", first, err)
		}
	}
}
