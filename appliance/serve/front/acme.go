package front

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"strongroom.example/appliance/serve/dnscheck"
)

// maxNonceRetries bounds orders that fail for a rejected nonce alone (RFC 8555,
// section 6.5).
const maxNonceRetries = 5

const (
	issuerID = "tls.issuance.strongroom_acme"
	probeID  = "http.handlers.strongroom_probe"
)

// probePath is answered with this process's nonce, over plain HTTP. Nobody else knows
// it, and it does not tell what is running here.
func probePath(nonce string) string { return "/.well-known/" + nonce }

// probe is all that plain HTTP is for, beside the challenges that Caddy answers: it
// sends to the first name over HTTPS, and answers the preflight's question whether a
// name leads here.
type probe struct {
	To    string `json:"to"` // https://host[:port]
	nonce string
}

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

// ServeHTTP never fails. Whatever the request's target is, the answer leads to p.To: a
// target that is no path would be taken for the rest of the host.
func (p *probe) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	w.Header().Del("Server")
	if r.URL.Path == probePath(p.nonce) {
		_, _ = w.Write([]byte(p.nonce)) // an error means that the asker has gone
		return nil
	}
	path := r.URL.EscapedPath()
	if r.URL.Opaque != "" || !strings.HasPrefix(path, "/") {
		path = "/"
	}
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", p.To+path)
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusPermanentRedirect)
	return nil
}

const errorsID = "http.handlers.strongroom_errors"

// plainErrors answers what Caddy refuses before our handlers see it, such as a request
// without a host, in the shape of Vault's errors and without Caddy's name.
type plainErrors struct{}

// CaddyModule names the module.
func (plainErrors) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: errorsID, New: func() caddy.Module { return new(plainErrors) }}
}

// ServeHTTP answers with the error's status.
func (plainErrors) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	status := http.StatusInternalServerError
	if he, ok := r.Context().Value(caddyhttp.ErrorCtxKey).(caddyhttp.HandlerError); ok && he.StatusCode >= 400 {
		status = he.StatusCode
	}
	refuse(&recorder{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}, verdict{status: status, text: "the front does not take this request"})
	return nil
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
		return nil, g.state.budget.note(ca, names, fmt.Errorf("preflight: no order placed: %w", g.heed(ca, err)))
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
		cert, err = g.ACMEIssuer.Issue(g.replacing(ctx, names), csr)
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
	if err == nil {
		return g.state.budget.succeed(ca, names)
	}
	err = g.heed(ca, err)
	if !caRefused(err) {
		err = errors.Join(err, g.state.budget.forget(ca, names))
	}
	return g.state.budget.note(ca, names, err)
}

// heed leaves a CA alone for as long as it has asked for when it failed with err.
func (g *guardedACME) heed(ca string, err error) error {
	until := retryAfters.until(ca)
	if !until.After(g.state.budget.now()) {
		return err
	}
	return errors.Join(err, g.state.budget.hold(ca, until))
}

// replaces tells certmagic which certificate an order replaces (RFC 9773, section 5), so
// that the CA counts it against no limit. certmagic itself does so for an issuer of its
// own type alone, and its key for that is not to be had but by its name.
type replaces struct {
	context.Context
	leaf *x509.Certificate
}

// Value implements context.Context.
func (r replaces) Value(key any) any {
	if t := reflect.TypeOf(key); t != nil && t.String() == "certmagic.ctxKey" && reflect.ValueOf(key).Kind() == reflect.String && reflect.ValueOf(key).String() == "ari_replaces" {
		return r.leaf
	}
	return r.Context.Value(key)
}

// replacing adds the certificate for these names that this very CA has issued, if one is
// stored.
func (g *guardedACME) replacing(ctx context.Context, names []string) context.Context {
	if len(names) != 1 {
		return ctx
	}
	text, err := os.ReadFile(filepath.Join(g.state.Dir, filepath.FromSlash(certmagic.StorageKeys.SiteCert(g.IssuerKey(), names[0]))))
	if err != nil {
		return ctx // the first
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return ctx
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || time.Now().After(leaf.NotAfter) {
		return ctx
	}
	return replaces{ctx, leaf}
}

// caRefused says whether a CA may have counted an order that ended with err: it has
// refused it, or what was shown for it. One that is away, or has a fault of its own,
// has not; and a conflict is one of two requests (RFC 8555, section 7.4, RFC 9773,
// section 5).
func caRefused(err error) bool {
	problem := acme.Problem{}
	return errors.As(err, &problem) && problem.Status < 500 && problem.Status != http.StatusConflict
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
