package config

import (
	"bytes"
	"errors"
	"fmt"
)

// FrontParams is what the front's configuration depends on.
type FrontParams struct {
	Names   []string // of the certificate
	Storage string   // folder of certificates, absolute
	TLS     TLS
	Email   string // of the operator, for the certificate authority
	UI      bool
	Metrics string // unix socket, absolute; empty for none
	// Authority is the socket of the job that has the internal CA's root; empty for none.
	Authority string
	// VaultAddress is Vault's own listener, and the files are the front's end
	// of the link to it, absolute, PEM.
	VaultAddress              string
	CAFile, CertFile, KeyFile string
}

// RenderFront gives front.toml for a front whose sockets systemd holds, under
// the names https and http.
func RenderFront(p FrontParams) ([]byte, error) {
	var f faults
	if len(p.Names) == 0 {
		f.add("Names", errors.New("is empty"))
	}
	for _, n := range p.Names {
		f.add("Names", checkDomain(n))
	}
	f.add("VaultAddress", checkLoopback(p.VaultAddress))
	for _, s := range []field{{"Storage", p.Storage}, {"CAFile", p.CAFile}, {"CertFile", p.CertFile}, {"KeyFile", p.KeyFile}} {
		f.add(s.name, checkPath(s.value))
	}
	for _, s := range []field{{"Metrics", p.Metrics}, {"Authority", p.Authority}} {
		if s.value != "" {
			f.add(s.name, checkPath(s.value))
		}
	}
	p.TLS.check(f.add)
	if err := f.err(); err != nil {
		return nil, fmt.Errorf("front configuration: %w", err)
	}
	out := Front{
		Listen: []string{FrontSocket + "https"}, Redirect: []string{FrontSocket + "http"},
		Names: p.Names, Storage: p.Storage, Issuer: p.TLS.Mode, Metrics: p.Metrics, UI: p.UI,
		Vault: FrontVault{Address: p.VaultAddress, CAFile: p.CAFile, CertFile: p.CertFile, KeyFile: p.KeyFile},
	}
	switch p.TLS.Mode {
	case TLSInternal:
		out.RootFile, out.Authority = p.Storage+"/root.crt", p.Authority
	case TLSFiles:
		out.Files = FrontFiles{Cert: p.TLS.CertFile, Key: p.TLS.KeyFile}
	case TLSACME:
		a := p.TLS.ACME
		out.ACME = &FrontACME{
			Email: p.Email, CA: a.Directory, Staging: a.Rehearsal(), Fallback: a.Fallback,
			EABFile: a.EAB, FallbackEABFile: a.FallbackEAB, DNS: FrontDNS{Provider: a.DNS, TokenFile: a.DNSToken},
		}
		if a.CAFile != "" {
			out.ACME.TrustedRoots = []string{a.CAFile}
		}
	}
	var b bytes.Buffer
	b.WriteString("# The front's configuration, written by strongroom. Changes by hand are drift.\n\n")
	if err := out.Encode(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
