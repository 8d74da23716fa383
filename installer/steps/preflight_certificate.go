package steps

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/serve/dnscheck"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// letsEncrypt is the directory that no directory stands for.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// certificate asks whether the front will have one.
func (s preflight) certificate(ctx context.Context) error {
	switch t := s.Config.TLS; t.Mode {
	case config.TLSFiles:
		return s.ownCertificate(t)
	case config.TLSInternal:
		return s.internalRoot()
	case config.TLSACME:
		return errors.Join(s.acmeRoot(t.ACME.CAFile), s.caa(ctx, t.ACME))
	}
	return nil
}

// internalRoot wants a root of the front's own authority that may sign for the domain, or
// none yet: with another the front does not start. What is damaged the front tells.
func (s preflight) internalRoot() error {
	text, err := s.Host.ReadFile(machine.FrontRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(root.PermittedDNSDomains) == 0 {
		return nil //nolint:nilerr // one of before may sign for all names
	}
	domain := s.Config.Domain
	if slices.ContainsFunc(root.PermittedDNSDomains, func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) }) {
		return nil
	}
	return operator("systemctl stop strongroom-front; strongroom front new-root --yes; then run the same command again, and give every client the new root (docs/certificates.md)",
		"certificate: the root of the front's own authority, which clients have, was made for %s and may not sign for %q", strings.Join(root.PermittedDNSDomains, ", "), domain)
}

// ownCertificate wants a pair that clients of the domain can use.
func (s preflight) ownCertificate(t config.TLS) error {
	cert, err := s.Host.ReadFile(t.CertFile)
	if err != nil {
		return fmt.Errorf("certificate: tls.cert_file: %w", err)
	}
	key, err := s.Host.ReadFile(t.KeyFile)
	if err != nil {
		return fmt.Errorf("certificate: tls.key_file: %w", err)
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("certificate: %q and %q: %w", t.CertFile, t.KeyFile, err)
	}
	if err := pair.Leaf.VerifyHostname(s.Config.Domain); err != nil {
		return fmt.Errorf("certificate: %q: %w", t.CertFile, err)
	}
	if now := s.Host.Now(); now.After(pair.Leaf.NotAfter) {
		return fmt.Errorf("certificate: %q ended on %s", t.CertFile, pair.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return nil
}

func (s preflight) acmeRoot(file string) error {
	if err := s.authority("tls.acme.ca_file", file); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

// authorities looks at those of the places for backups and of the mail server,
// which the jobs would miss only at the very end of the installation.
func (s preflight) authorities(context.Context) error {
	var errs []error
	for i, to := range s.Config.Backup.To {
		errs = append(errs, s.authority(fmt.Sprintf("backup.to[%d].ca_file", i), to.CAFile))
	}
	return errors.Join(append(errs, s.authority("alert.mail.ca_file", s.Config.Alert.Mail.CAFile))...)
}

func (s preflight) authority(field, file string) error {
	if file == "" {
		return nil
	}
	b, err := s.Host.ReadFile(file)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(b) {
		return fmt.Errorf("%s: %q holds no certificate in PEM", field, file)
	}
	return nil
}

// caa looks whether the domain's owner lets the authority issue, which would
// otherwise show as a failed order long after the installation.
func (s preflight) caa(ctx context.Context, a config.ACME) error {
	directory := a.Directory
	if directory == "" {
		directory = letsEncrypt
	}
	ids := dnscheck.CAAIdentities(directory)
	if s.SkipDNS || len(ids) == 0 {
		return nil
	}
	if err := s.Network.CAA(ctx, s.Config.Domain, ids); err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	return nil
}
