// Package dnscheck asks the DNS what a certificate authority will ask there.
//
// It is not a general resolver: it follows nothing and keeps nothing, and the
// name servers that it is told of do the rest.
package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	resolvConf = "/etc/resolv.conf"
	timeout    = 5 * time.Second // for one question to one server
	// udpSize is what fits through any network in one packet, in bytes:
	// https://www.dnsflagday.net/2020/
	udpSize = 1232
)

// ErrCAA says that CAA records keep the authority from issuing.
var ErrCAA = errors.New("CAA records do not allow the certificate authority")

// identities are what CAA records call these authorities
// (https://letsencrypt.org/docs/caa/, https://help.zerossl.com/hc/en-us/articles/360060119753).
var identities = map[string][]string{
	"acme-v02.api.letsencrypt.org":         {"letsencrypt.org"},
	"acme-staging-v02.api.letsencrypt.org": {"letsencrypt.org"},
	"acme.zerossl.com":                     {"sectigo.com", "zerossl.com"},
}

// CAAIdentities are the names in CAA records of the authority with this ACME
// directory, or none for one that is not known.
func CAAIdentities(directory string) []string {
	u, err := url.Parse(directory)
	if err != nil {
		return nil
	}
	return slices.Clone(identities[u.Hostname()])
}

// Resolver asks name servers. The zero value asks those of the system.
type Resolver struct{ Servers []string } // host:port

// CheckCAA climbs from name to the root for the first set of CAA records (RFC
// 8659, section 3) and is nil if it lets one of ids issue; else ErrCAA.
func (r Resolver) CheckCAA(ctx context.Context, name string, ids []string) error {
	for domain := strings.TrimSuffix(name, "."); domain != ""; {
		rrs, err := r.Lookup(ctx, domain, dns.TypeCAA)
		if err != nil {
			return err
		}
		allowed, found := issuers(rrs)
		if found {
			if allowed == nil || slices.ContainsFunc(allowed, func(a string) bool { return containsFold(ids, a) }) {
				return nil
			}
			return fmt.Errorf("%w: those of %q allow %q, not %q: add one", ErrCAA, domain, allowed, ids[0])
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
	return nil
}

// issuers are the values of the property "issue", without parameters; nil if
// the set restricts nothing, as one with iodef or issuewild alone.
func issuers(rrs []dns.RR) (allowed []string, found bool) {
	for _, rr := range rrs {
		caa, ok := rr.(*dns.CAA)
		if !ok {
			continue // a CNAME on the way
		}
		found = true
		if strings.EqualFold(caa.Tag, "issue") {
			value, _, _ := strings.Cut(caa.Value, ";")
			allowed = append(allowed, strings.TrimSpace(value))
		}
	}
	return allowed, found
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(l string) bool { return strings.EqualFold(l, s) })
}

// Lookup asks one server after the other, by TCP where UDP's answer is cut
// off. A name that isn't there has no records.
func (r Resolver) Lookup(ctx context.Context, name string, t uint16) ([]dns.RR, error) {
	servers := r.Servers
	if len(servers) == 0 {
		conf, err := dns.ClientConfigFromFile(resolvConf)
		if err != nil {
			return nil, fmt.Errorf("look up %q: %w", name, err)
		}
		for _, s := range conf.Servers {
			servers = append(servers, net.JoinHostPort(s, conf.Port))
		}
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), t)
	q.SetEdns0(udpSize, false)
	var errs []error
	for _, s := range servers {
		for _, network := range []string{"udp", "tcp"} {
			c := &dns.Client{Net: network, Timeout: timeout}
			res, _, err := c.ExchangeContext(ctx, q, s)
			switch {
			case err != nil:
				errs = append(errs, err)
			case res.Rcode != dns.RcodeSuccess && res.Rcode != dns.RcodeNameError:
				errs = append(errs, fmt.Errorf("resolver %s answers %s", s, dns.RcodeToString[res.Rcode]))
			case res.Truncated && network == "udp":
				continue
			default:
				return res.Answer, nil
			}
			break
		}
	}
	return nil, fmt.Errorf("look up %s of %q: %w", dns.TypeToString[t], name, errors.Join(errs...))
}
