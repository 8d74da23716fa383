package safehttp

import (
	"crypto/x509"
	"time"

	"strongroom.example/plugin/provider/internal/fields"
)

// maxTimeout leaves the engine time to act within a request's 90 seconds.
const maxTimeout = 80 * time.Second

// ReadOptions reads the settings that every provider with a network shares:
//
//	timeout          of one request; default 25s, 1s to 80s
//	max_body         bytes of an answer; default 1 MiB, 1 KiB to 16 MiB
//	allow_addresses  CIDRs or addresses allowed beyond the public ones
//	allow_http       http, too, but to allow_addresses only
//	ca_certificate   PEM; in place of the system's authorities
func ReadOptions(m *fields.Map) Options {
	o := Options{
		AllowHTTP: m.Bool("allow_http", false),
		Timeout:   m.Duration("timeout", DefaultTimeout, time.Second, maxTimeout),
		MaxBody:   int64(m.Int("max_body", DefaultMaxBody, 1<<10, 16<<20)),
	}
	allow, err := ParsePrefixes(m.Strings("allow_addresses", 50))
	if err != nil {
		m.Fail("allow_addresses", "%v", err)
	}
	o.Allow = allow
	if o.AllowHTTP && len(o.Allow) == 0 {
		m.Fail("allow_http", "needs allow_addresses: http is for explicitly allowed addresses only")
	}
	pem := m.String("ca_certificate", "", 256<<10)
	if m.Has("ca_certificate") {
		o.RootCAs = x509.NewCertPool()
		if !o.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			m.Fail("ca_certificate", "holds no certificate in PEM")
		}
	}
	return o
}
