package config

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/BurntSushi/toml"
)

// FrontParams is what the front's configuration depends on.
type FrontParams struct {
	Names   []string // of the certificate
	Storage string   // folder of certificates, absolute
	TLS     TLS
	Email   string // of the operator, for the certificate authority
	UI      bool
	Metrics string // unix socket, absolute; empty for none
	// VaultAddress is Vault's own listener, and the files are the front's end
	// of the link to it, absolute, PEM.
	VaultAddress              string
	CAFile, CertFile, KeyFile string
}

// RenderFront gives front.toml for a front whose sockets systemd holds, under
// the names https, http and http3.
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
	if p.Metrics != "" {
		f.add("Metrics", checkPath(p.Metrics))
	}
	p.TLS.check(f.add)
	if err := f.err(); err != nil {
		return nil, fmt.Errorf("front configuration: %w", err)
	}
	type vault struct {
		Address  string `toml:"address"`
		CAFile   string `toml:"ca_file"`
		CertFile string `toml:"cert_file"`
		KeyFile  string `toml:"key_file"`
	}
	type files struct {
		Cert string `toml:"cert"`
		Key  string `toml:"key"`
	}
	type dns struct {
		Provider  string `toml:"provider"`
		TokenFile string `toml:"token_file"`
	}
	type acme struct {
		Email       string   `toml:"email"`
		CA          string   `toml:"ca,omitempty"`
		Staging     string   `toml:"staging"`
		EAB         string   `toml:"eab_file,omitempty"`
		Fallback    string   `toml:"fallback,omitempty"`
		FallbackEAB string   `toml:"fallback_eab_file,omitempty"`
		Roots       []string `toml:"trusted_roots,omitempty"`
		DNS         *dns     `toml:"dns"`
	}
	out := struct {
		Listen   []string `toml:"listen"`
		Redirect []string `toml:"redirect"`
		HTTP3    []string `toml:"http3"`
		Names    []string `toml:"names"`
		Storage  string   `toml:"storage"`
		Issuer   string   `toml:"issuer"`
		RootFile string   `toml:"root_file,omitempty"`
		Metrics  string   `toml:"metrics,omitempty"`
		UI       bool     `toml:"ui"`
		Vault    vault    `toml:"vault"`
		Files    *files   `toml:"files"`
		ACME     *acme    `toml:"acme"`
	}{
		Listen: []string{"fd:https"}, Redirect: []string{"fd:http"}, HTTP3: []string{"fd:http3"},
		Names: p.Names, Storage: p.Storage, Issuer: p.TLS.Mode, Metrics: p.Metrics, UI: p.UI,
		Vault: vault{p.VaultAddress, p.CAFile, p.CertFile, p.KeyFile},
	}
	switch p.TLS.Mode {
	case TLSInternal:
		out.RootFile = p.Storage + "/root.crt"
	case TLSFiles:
		out.Files = &files{p.TLS.CertFile, p.TLS.KeyFile}
	case TLSACME:
		a := p.TLS.ACME
		out.ACME = &acme{Email: p.Email, CA: a.Directory, Staging: a.Rehearsal(), EAB: a.EAB, Fallback: a.Fallback, FallbackEAB: a.FallbackEAB}
		if a.CAFile != "" {
			out.ACME.Roots = []string{a.CAFile}
		}
		if a.DNS != "" {
			out.ACME.DNS = &dns{a.DNS, a.DNSToken}
		}
	}
	var b bytes.Buffer
	b.WriteString("# The front's configuration, written by strongroom. Changes by hand are drift.\n\n")
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("front configuration: %w", err)
	}
	return b.Bytes(), nil
}

// Encode gives a as a file that Parse reads back to the same.
func Encode(a Appliance) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# What this appliance was told, written by strongroom-installer. To change it,\n# edit a copy and run: strongroom-installer install --config COPY\n\n")
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(a); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return b.Bytes(), nil
}
