package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/config"
)

const (
	filesID = "tls.issuance.strongroom_files"
	// filesPoll is how soon a renewed certificate is served.
	filesPoll = 5 * time.Second
)

// Faults of a certificate that somebody else renews.
var (
	// ErrPair says that certificate and key do not belong together: as between
	// the two writes of a renewal, so trying again may help.
	ErrPair = errors.New("certificate and key do not belong together")
	// ErrCertificate says that the certificate would not do for clients.
	ErrCertificate = errors.New("certificate is not fit to be served")
)

// CheckPair is nil if certPEM, with its chain, and keyPEM can be served for all
// of names at the time now. Its errors quote no key.
func CheckPair(certPEM, keyPEM []byte, names []string, now time.Time) error {
	leaf, err := checkPair(certPEM, keyPEM, names)
	switch {
	case err != nil:
		return err
	case now.After(leaf.NotAfter):
		return fmt.Errorf("%w: it ended on %s", ErrCertificate, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("%w: it begins on %s", ErrCertificate, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

func checkPair(certPEM, keyPEM []byte, names []string) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPair, err)
	}
	for _, name := range names {
		if err := pair.Leaf.VerifyHostname(name); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
		}
	}
	return pair.Leaf, nil
}

// TakeCertificate checks a pair as CheckPair and writes it into the one file
// that c names for both certificate and key, so that a front never sees half a
// renewal. It says whether the file was changed.
func TakeCertificate(c Config, certPEM, keyPEM []byte, now time.Time) (changed bool, err error) {
	if c.Issuer != config.TLSFiles || c.Files.Cert != c.Files.Key {
		return false, fmt.Errorf("issuer is %q, with certificate %q and key %q: there is no one file to write", c.Issuer, c.Files.Cert, c.Files.Key)
	}
	if err := CheckPair(certPEM, keyPEM, c.Names, now); err != nil {
		return false, err
	}
	// Only the blocks: what stands around them may be anything.
	both := append(blocks(certPEM, func(t string) bool { return t == "CERTIFICATE" }), blocks(keyPEM, isKey)...)
	defer clear(both)
	old, err := os.ReadFile(c.Files.Cert)
	defer clear(old)
	if err == nil && bytes.Equal(old, both) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("certificate that is served: %w", err)
	}
	return true, atomicfile.Write(c.Files.Cert, both, 0o600)
}

func isKey(t string) bool {
	return t == "PRIVATE KEY" || t == "EC PRIVATE KEY" || t == "RSA PRIVATE KEY"
}

func blocks(text []byte, want func(kind string) bool) []byte {
	var out []byte
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if want(b.Type) {
			out = append(out, pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: b.Bytes})...)
		}
	}
	return out
}

// filesIssuer issues nothing. It stands in for an issuer so that Caddy hands it
// the settings that go with its cache of certificates, where the operator's own
// is put, and picks the one to serve: nothing can be taken out of that cache
// from here, so renewed ones stay in it until the next start.
type filesIssuer struct {
	magic   *certmagic.Config
	current atomic.Pointer[x509.Certificate]
}

var (
	_ certmagic.Issuer              = (*filesIssuer)(nil)
	_ certmagic.CertificateSelector = (*filesIssuer)(nil)
	_ caddytls.ConfigSetter         = (*filesIssuer)(nil)
)

// CaddyModule names the module.
func (*filesIssuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: filesID, New: func() caddy.Module { return new(filesIssuer) }}
}

// Provision makes it known to Run.
func (f *filesIssuer) Provision(ctx caddy.Context) error {
	s, err := sharedState(ctx)
	if err == nil {
		s.files = f
	}
	return err
}

// SetConfig is how Caddy hands over cache and settings.
func (f *filesIssuer) SetConfig(cfg *certmagic.Config) {
	boundOCSP(cfg)
	cfg.CertSelection = f
	f.magic = cfg
}

// SelectCertificate implements certmagic.CertificateSelector.
func (f *filesIssuer) SelectCertificate(_ *tls.ClientHelloInfo, choices []certmagic.Certificate) (certmagic.Certificate, error) {
	if now := f.current.Load(); now != nil {
		for _, c := range choices {
			if c.Leaf != nil && c.Leaf.Equal(now) {
				return c, nil
			}
		}
	}
	return certmagic.Certificate{}, errors.New("the certificate is not loaded")
}

// boundOCSP gives questions to an OCSP responder the time limit that certmagic
// knows for a proxy alone: a responder that never answers would otherwise keep
// the front from starting.
func boundOCSP(cfg *certmagic.Config) { cfg.OCSP.HTTPProxy = http.ProxyFromEnvironment }

// IssuerKey implements certmagic.Issuer.
func (*filesIssuer) IssuerKey() string { return "strongroom_files" }

// Issue implements certmagic.Issuer.
func (*filesIssuer) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	return nil, errors.New("the certificate is renewed by the operator")
}

// use serves a pair from now on, with an OCSP response where its CA has a
// responder.
func (f *filesIssuer) use(ctx context.Context, certPEM, keyPEM []byte) error {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPair, err)
	}
	if _, err := f.magic.CacheUnmanagedTLSCertificate(ctx, pair, nil); err != nil {
		return err
	}
	f.current.Store(pair.Leaf) // the commit point: handshakes from here on
	return nil
}

// fileWatch serves what is in two files, and what is in them later.
type fileWatch struct {
	files config.FrontFiles
	names []string
	now   func() time.Time
	use   func(ctx context.Context, certPEM, keyPEM []byte) error

	seen [2]stamp // of what was looked at last, good or not
}

// stamp tells one content of a file from another.
type stamp struct {
	modified time.Time
	size     int64
	inode    fs.FileInfo
}

func stampOf(path string) (stamp, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{fi.ModTime(), fi.Size(), fi}, nil
}

func (s stamp) equal(o stamp) bool {
	return s.inode != nil && o.inode != nil && s.modified.Equal(o.modified) && s.size == o.size && os.SameFile(s.inode, o.inode)
}

// load serves the files as they are, for the start. One that has expired is
// served too: the front still answers then, and says why it is not trusted.
func (w *fileWatch) load(ctx context.Context) error {
	if _, err := w.look(); err != nil {
		return err
	}
	cert, key, err := w.read()
	if err != nil {
		return err
	}
	defer clear(key)
	if _, err := checkPair(cert, key, w.names); err != nil {
		return fmt.Errorf("%q and %q: %w", w.files.Cert, w.files.Key, err)
	}
	return w.use(ctx, cert, key)
}

// poll looks whether the files have changed, and serves the new ones if they
// will do; what is served stays otherwise. A file that changes while it is read
// is looked at again the next time.
func (w *fileWatch) poll(ctx context.Context) (changed bool, err error) {
	changed, err = w.look()
	if err != nil || !changed {
		return false, err
	}
	cert, key, err := w.read()
	if err != nil {
		return true, err
	}
	defer clear(key)
	if err := CheckPair(cert, key, w.names, w.now()); err != nil {
		return true, fmt.Errorf("%q and %q: %w", w.files.Cert, w.files.Key, err)
	}
	return true, w.use(ctx, cert, key)
}

// look notes the files' stamps, before they are read.
func (w *fileWatch) look() (changed bool, err error) {
	for i, path := range []string{w.files.Cert, w.files.Key} {
		s, err := stampOf(path)
		if err != nil {
			// Gone for a moment, as in a renewal that removes first.
			w.seen[i] = stamp{}
			return false, fmt.Errorf("certificate of the operator's: %w", err)
		}
		if !s.equal(w.seen[i]) {
			changed = true
		}
		w.seen[i] = s
	}
	return changed, nil
}

func (w *fileWatch) read() (cert, key []byte, err error) {
	if cert, err = os.ReadFile(w.files.Cert); err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	if key, err = os.ReadFile(w.files.Key); err != nil {
		return nil, nil, fmt.Errorf("key of the certificate: %w", err)
	}
	return cert, key, nil
}

// watch polls at each tick until ctx ends, and says each fault once.
func (w *fileWatch) watch(ctx context.Context, tick <-chan time.Time, s *state, log *zap.Logger) {
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		changed, err := w.poll(ctx)
		switch {
		case err != nil && err.Error() != said:
			s.reloadFailed.Add(1)
			log.Error("the certificate stays as it was: the new one cannot be served", zap.Error(err))
			said = err.Error()
		case err == nil && changed:
			s.reloaded.Add(1)
			log.Info("another certificate is served", zap.Strings("names", w.names))
			said = ""
		}
	}
}
