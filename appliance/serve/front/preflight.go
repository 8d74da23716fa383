package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/miekg/dns"

	"strongroom.example/appliance/serve/dnscheck"
)

const (
	maxSkew       = 5 * time.Minute
	probeTimeout  = 10 * time.Second
	maxProbeReply = 1 << 10 // bytes
)

// preflight asks what a CA will ask, before the CA does: each of its findings
// would otherwise be a failed order.
type preflight struct {
	Resolvers []string `json:"resolvers,omitempty"` // host:port
	CAA       []string `json:"caa,omitempty"`       // the CA's names in CAA records; empty to pass over them
	HTTPPort  int      `json:"http_port"`           // 0 if nothing listens for plain HTTP
	HTTPSPort int      `json:"https_port"`
	DNSOnly   bool     `json:"dns_only,omitempty"` // the CA does not come here

	nonce  string
	client *http.Client // to the CA
}

// caClient trusts the system's roots and those of the files.
func caClient(rootFiles []string) (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(rootFiles) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, f := range rootFiles {
			pem, err := os.ReadFile(f)
			if err != nil {
				return nil, fmt.Errorf("trusted root: %w", err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("trusted root %q holds no certificate", f)
			}
		}
		conf.RootCAs = pool
	}
	return &http.Client{Timeout: probeTimeout, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, DisableKeepAlives: true,
	}}, nil
}

// run gives everything that would make an order for names fail at the CA with
// this directory.
func (p *preflight) run(ctx context.Context, names []string, directory string) error {
	errs := []error{p.checkCA(ctx, directory)}
	for _, name := range names {
		errs = append(errs, p.checkCAA(ctx, name))
		if !p.DNSOnly {
			errs = append(errs, p.checkAddresses(ctx, name))
		}
	}
	return errors.Join(errs...)
}

// checkCA asks for the directory: is the CA up, and does its clock agree?
func (p *preflight) checkCA(ctx context.Context, directory string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, directory, nil)
	if err != nil {
		return fmt.Errorf("CA %q: %w", directory, err)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("CA does not answer: %w", err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		retryAfters.note(caName(directory), res.Header)
		return fmt.Errorf("CA %q answers %s", directory, res.Status)
	}
	date, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return nil // no clock to compare with is no fault of ours
	}
	if skew := time.Since(date).Round(time.Second); skew.Abs() > maxSkew {
		return fmt.Errorf("system clock is %s off the CA's (%s): set it first", skew, date.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkAddresses follows the name to each of its addresses and looks whether
// this process is there. CAs prefer IPv6, so a forgotten AAAA record is the
// classic failure.
func (p *preflight) checkAddresses(ctx context.Context, name string) error {
	var addrs []net.IP
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		rrs, err := p.lookup(ctx, name, t)
		if err != nil {
			return err
		}
		for _, rr := range rrs {
			switch rr := rr.(type) {
			case *dns.A:
				addrs = append(addrs, rr.A)
			case *dns.AAAA:
				addrs = append(addrs, rr.AAAA)
			}
		}
	}
	if len(addrs) == 0 {
		return fmt.Errorf("%q has no A or AAAA record: create one that points to this machine", name)
	}
	var errs []error
	for _, ip := range addrs {
		if p.HTTPPort != 0 {
			errs = append(errs, p.probeHTTP(ctx, name, ip))
		} else {
			errs = append(errs, p.probeTCP(ctx, name, ip))
		}
	}
	return errors.Join(errs...)
}

func (p *preflight) probeHTTP(ctx context.Context, name string, ip net.IP) error {
	where := net.JoinHostPort(ip.String(), strconv.Itoa(p.HTTPPort))
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+where+probePath(p.nonce), nil)
	if err != nil {
		return fmt.Errorf("%q at %s: %w", name, where, err)
	}
	req.Host = name
	direct := &http.Client{Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := direct.Do(req)
	if err != nil {
		return fmt.Errorf("%q leads to %s, which cannot be reached: open port %d in the firewall, or correct the record (%w)", name, where, p.HTTPPort, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProbeReply))
	if err != nil || res.StatusCode != http.StatusOK || string(body) != p.nonce {
		return fmt.Errorf("%q leads to %s, where another server answers (%s): correct the record", name, where, res.Status)
	}
	return nil
}

func (p *preflight) probeTCP(ctx context.Context, name string, ip net.IP) error {
	where := net.JoinHostPort(ip.String(), strconv.Itoa(p.HTTPSPort))
	c, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "tcp", where)
	if err != nil {
		return fmt.Errorf("%q leads to %s, which cannot be reached: open port %d in the firewall, or correct the record (%w)", name, where, p.HTTPSPort, err)
	}
	return c.Close()
}

// checkCAA looks whether CAA records let this CA issue.
func (p *preflight) checkCAA(ctx context.Context, name string) error {
	if len(p.CAA) == 0 {
		return nil
	}
	return dnscheck.Resolver{Servers: p.Resolvers}.CheckCAA(ctx, name, p.CAA)
}

func (p *preflight) lookup(ctx context.Context, name string, t uint16) ([]dns.RR, error) {
	return dnscheck.Resolver{Servers: p.Resolvers}.Lookup(ctx, name, t)
}
