package front

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"strongroom.example/appliance/serve/dnscheck"
)

// Public CAs, by their ACME directories.
const (
	LetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	LetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
	ZeroSSL            = "https://acme.zerossl.com/v2/DV90"
)

// ACME is how a public certificate is had (RFC 8555). Challenges are HTTP-01,
// where there is a listener for plain HTTP, and TLS-ALPN-01; or DNS-01 alone,
// where a DNS provider is given.
type ACME struct {
	Email string `toml:"email"` // the CA's contact; ZeroSSL needs one
	CA    string `toml:"ca"`    // directory URL
	// Staging is tried first until it has succeeded once for these names, so
	// that what is wrong shows where failures cost nothing. Empty for none.
	Staging string `toml:"staging"`
	// Fallback is asked when CA fails. Empty for none.
	Fallback string `toml:"fallback"`
	// EABFile binds the account at CA to one that the operator has there
	// (RFC 8555, section 7.3.4): TOML with key_id and mac_key. FallbackEABFile
	// is that of Fallback.
	EABFile         string `toml:"eab_file"`
	FallbackEABFile string `toml:"fallback_eab_file"`
	// TrustedRoots are PEM files to trust for the CAs' own HTTPS beside the
	// system's roots, for a CA in one's own network.
	TrustedRoots []string `toml:"trusted_roots"`
	// Resolvers are asked in the preflight, "host:port"; default: the system's.
	Resolvers []string `toml:"resolvers"`
	// HTTPPort and HTTPSPort are the ports as the internet sees them; 0 for
	// those of the listeners.
	HTTPPort  int `toml:"http_port"`
	HTTPSPort int `toml:"https_port"`
	DNS       DNS `toml:"dns"`
}

// DNS proves ownership by DNS-01 in place of the other challenges: for a
// machine that the CA cannot reach.
type DNS struct {
	Provider  string `toml:"provider"`   // "hetzner", or empty for none
	TokenFile string `toml:"token_file"` // mode 0600, or a systemd credential
	Endpoint  string `toml:"endpoint"`   // of the provider's API; default: its own
}

// maxNonceRetries bounds orders that fail for a rejected nonce alone (RFC 8555,
// section 6.5).
const maxNonceRetries = 5

const (
	issuerID = "tls.issuance.strongroom_acme"
	probeID  = "http.handlers.strongroom_probe"
	// probePath is answered with this process's nonce, over plain HTTP.
	probePath = "/.well-known/strongroom-preflight"
)

// probe answers the preflight's question whether a name leads here.
type probe struct{ nonce string }

// CaddyModule names the module.
func (*probe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: probeID, New: func() caddy.Module { return new(probe) }}
}

// Provision prepares it.
func (p *probe) Provision(ctx caddy.Context) error {
	s, err := sharedState(ctx)
	if err == nil {
		p.nonce = s.nonce
	}
	return err
}

// ServeHTTP answers with the nonce.
func (p *probe) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Path != probePath {
		return next.ServeHTTP(w, r)
	}
	_, err := w.Write([]byte(p.nonce))
	return err
}

// guardedACME is Caddy's ACME issuer that never asks a CA before it has looked
// whether the order can succeed, nor more often than the CA's limits allow.
type guardedACME struct {
	caddytls.ACMEIssuer
	StagingCA string    `json:"staging_ca"`
	EABFile   string    `json:"eab_file,omitempty"` // the secret itself is in no configuration
	Check     preflight `json:"preflight"`

	staging *caddytls.ACMEIssuer
	state   *state
	log     *zap.Logger
}

var (
	_ certmagic.Issuer            = (*guardedACME)(nil)
	_ certmagic.PreChecker        = (*guardedACME)(nil)
	_ certmagic.Revoker           = (*guardedACME)(nil)
	_ certmagic.RenewalInfoGetter = (*guardedACME)(nil)
	_ caddytls.ConfigSetter       = (*guardedACME)(nil)
	_ caddy.Provisioner           = (*guardedACME)(nil)
)

// CaddyModule names the module.
func (*guardedACME) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: issuerID, New: func() caddy.Module { return new(guardedACME) }}
}

// Provision prepares both issuers.
func (g *guardedACME) Provision(ctx caddy.Context) error {
	var err error
	g.log = ctx.Logger()
	if g.state, err = sharedState(ctx); err != nil {
		return err
	}
	g.Check.nonce = g.state.nonce
	if g.Check.client, err = caClient(g.TrustedRootsPEMFiles); err != nil {
		return err
	}
	if g.StagingCA != "" {
		s := g.ACMEIssuer
		s.CA = g.StagingCA
		g.staging = &s
		if err := g.staging.Provision(ctx); err != nil {
			return err
		}
	}
	if g.EABFile != "" {
		if g.ExternalAccount, err = readEAB(g.EABFile); err != nil {
			return err
		}
	}
	return g.ACMEIssuer.Provision(ctx)
}

// SetConfig is how Caddy hands over the storage and its settings.
func (g *guardedACME) SetConfig(cfg *certmagic.Config) {
	boundOCSP(cfg)
	g.ACMEIssuer.SetConfig(cfg)
	if g.staging != nil {
		g.staging.SetConfig(cfg)
	}
}

// Issue orders a certificate, if the budget and the preflight let it. An error
// leaves certmagic to try again later, or to ask the next issuer.
func (g *guardedACME) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	ca := caName(g.CA)
	names := csr.DNSNames
	if err := g.state.budget.check(ca, names); err != nil {
		return nil, err
	}
	if err := g.Check.run(ctx, names, g.CA); err != nil {
		return nil, g.state.budget.note(ca, names, fmt.Errorf("preflight: no order placed: %w", err))
	}
	if g.staging != nil && !g.state.budget.rehearsed(names) {
		if err := g.order(ctx, csr, g.staging, caName(g.StagingCA)); err != nil {
			return nil, fmt.Errorf("rehearsal at the staging CA: %w", err)
		}
		if err := g.state.budget.setRehearsed(names); err != nil {
			return nil, err
		}
	}
	var cert *certmagic.IssuedCertificate
	err := g.counted(ca, names, func() (err error) {
		cert, err = g.ACMEIssuer.Issue(ctx, csr)
		return err
	})
	return cert, err
}

func (g *guardedACME) order(ctx context.Context, csr *x509.CertificateRequest, iss *caddytls.ACMEIssuer, ca string) error {
	if err := g.state.budget.check(ca, csr.DNSNames); err != nil {
		return err
	}
	return g.counted(ca, csr.DNSNames, func() error {
		_, err := iss.Issue(ctx, csr)
		return err
	})
}

// counted writes the attempt down as a failure before it is made, and takes it
// back when it succeeds: a process that dies in an order has used the CA's
// patience too.
func (g *guardedACME) counted(ca string, names []string, order func() error) error {
	if err := g.state.budget.begin(ca, names); err != nil {
		return err
	}
	err := order()
	for range maxNonceRetries {
		if problem := (acme.Problem{}); !errors.As(err, &problem) || problem.Type != acme.ProblemTypeBadNonce {
			break
		}
		// The CA has lost count of the requests: no limit of its counts that,
		// and the next order may well succeed.
		err = order()
	}
	if err != nil {
		return g.state.budget.note(ca, names, err)
	}
	return g.state.budget.succeed(ca, names)
}

// caName is the CA's host: what limits are counted by.
func caName(directory string) string {
	u, err := url.Parse(directory)
	if err != nil {
		return directory
	}
	return u.Host
}

// acmePolicy is the automation of the front's names.
func acmePolicy(c Config, ports ports) *caddytls.AutomationPolicy {
	p := &caddytls.AutomationPolicy{SubjectsRaw: c.Names}
	for _, at := range []struct{ ca, eab string }{{c.ACME.CA, c.ACME.EABFile}, {c.ACME.Fallback, c.ACME.FallbackEABFile}} {
		ca := at.ca
		if ca == "" {
			continue
		}
		g := guardedACME{
			EABFile: at.eab,
			ACMEIssuer: caddytls.ACMEIssuer{
				CA: ca, Email: c.ACME.Email, TrustedRootsPEMFiles: rootFiles(c.ACME.TrustedRoots),
				Challenges: &caddytls.ChallengesConfig{
					HTTP:    &caddytls.HTTPChallengeConfig{Disabled: ports.http == 0, AlternatePort: ports.http},
					TLSALPN: &caddytls.TLSALPNChallengeConfig{AlternatePort: ports.https},
				},
			},
			Check: preflight{
				Resolvers: c.ACME.Resolvers, CAA: dnscheck.CAAIdentities(ca),
				HTTPPort: either(c.ACME.HTTPPort, ports.http), HTTPSPort: either(c.ACME.HTTPSPort, ports.https),
			},
		}
		if c.ACME.DNS.Provider != "" {
			g.Challenges.DNS = &caddytls.DNSChallengeConfig{
				ProviderRaw: caddyconfig.JSONModuleObject(&hetznerDNS{TokenFile: c.ACME.DNS.TokenFile, Endpoint: c.ACME.DNS.Endpoint},
					"name", "strongroom_hetzner", nil),
				Resolvers: c.ACME.Resolvers,
			}
			g.Check.DNSOnly = true
		}
		if ca == c.ACME.CA {
			g.StagingCA = c.ACME.Staging
		}
		p.IssuersRaw = append(p.IssuersRaw, issuerJSON(g))
	}
	return p
}

// issuerJSON encodes a guardedACME. Its embedded issuer has methods that a
// plain encoder would not mind, but JSONModuleObject wants a name key.
func issuerJSON(g guardedACME) json.RawMessage {
	return caddyconfig.JSONModuleObject(&g, "module", "strongroom_acme", nil)
}

func either(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

func validateACME(c *Config, fail func(key, format string, args ...any)) {
	for key, dir := range map[string]string{"acme.ca": c.ACME.CA, "acme.staging": c.ACME.Staging, "acme.fallback": c.ACME.Fallback} {
		if dir == "" && key != "acme.ca" {
			continue
		}
		if u, err := url.Parse(dir); err != nil || u.Scheme != "https" || u.Host == "" {
			fail(key, "%q is not the https:// URL of an ACME directory", dir)
		}
	}
	switch d := c.ACME.DNS; {
	case d.Provider == "" && (d.TokenFile != "" || d.Endpoint != ""):
		fail("acme.dns.provider", "is missing")
	case d.Provider != "" && d.Provider != DNSHetzner:
		fail("acme.dns.provider", "%q is not %q, the only one there is", d.Provider, DNSHetzner)
	case d.Provider != "" && !filepath.IsAbs(d.TokenFile):
		fail("acme.dns.token_file", "%q is not an absolute path", d.TokenFile)
	}
	for _, ca := range []string{c.ACME.CA, c.ACME.Fallback} {
		if caName(ca) == caName(ZeroSSL) && c.ACME.Email == "" {
			fail("acme.email", "is missing: ZeroSSL wants one")
		}
	}
	for key, file := range map[string]string{"acme.eab_file": c.ACME.EABFile, "acme.fallback_eab_file": c.ACME.FallbackEABFile} {
		if file != "" && !filepath.IsAbs(file) {
			fail(key, "%q is not an absolute path", file)
		}
	}
	if c.ACME.FallbackEABFile != "" && c.ACME.Fallback == "" {
		fail("acme.fallback_eab_file", "says nothing without fallback")
	}
}
