package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// The authorities that are known by themselves.
const (
	// ACMELetsEncryptStaging signs for nobody, and forgives failures:
	// https://letsencrypt.org/docs/staging-environment/
	ACMELetsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
	ACMELetsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	ACMEZeroSSL            = "https://acme.zerossl.com/v2/DV90"
	// ACMENoStaging is the value of staging for no rehearsal.
	ACMENoStaging = "none"
	// ACMEHetzner is the DNS provider.
	ACMEHetzner = "hetzner"
)

// ACME is how a public certificate is had, where the defaults will not do.
type ACME struct {
	Directory string `toml:"directory"` // URL; default: Let's Encrypt
	CAFile    string `toml:"ca_file"`   // what signs that URL's own certificate
	// Staging is asked first, until it has once succeeded: a URL, or "none".
	// Default: Let's Encrypt's own, for Let's Encrypt.
	Staging string `toml:"staging"`
	// EAB holds key_id and mac_key of an account at the authority (RFC 8555,
	// section 7.3.4), FallbackEAB at the other one: a file's absolute path, or
	// the name of a systemd credential.
	EAB         string `toml:"eab"`
	Fallback    string `toml:"fallback"` // URL of the authority to ask when the first fails
	FallbackEAB string `toml:"fallback_eab"`
	// DNS has ownership proved by DNS records, for a machine that the authority
	// cannot reach; DNSToken is the provider's, as EAB.
	DNS      string `toml:"dns"`
	DNSToken string `toml:"dns_token"`
}

// Rehearsal is the URL of the authority that is asked first, or "".
func (a ACME) Rehearsal() string {
	switch {
	case a.Staging == ACMENoStaging:
		return ""
	case a.Staging != "":
		return a.Staging
	case a.Directory == "":
		return ACMELetsEncryptStaging
	}
	return ""
}

// Ports are those that the authorities listen on, beside 443.
func (a ACME) Ports() []int {
	var ports []int
	for _, dir := range []string{a.Directory, a.Rehearsal(), a.Fallback} {
		u, err := url.Parse(dir)
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(u.Port()); err == nil && n != 443 {
			ports = append(ports, n)
		}
	}
	return ports
}

func (a ACME) check(mode string, check func(string, error)) {
	if mode != TLSACME {
		if a != (ACME{}) {
			check("tls.acme", fmt.Errorf("is only for mode %q; the mode is %q", TLSACME, mode))
		}
		return
	}
	for _, f := range []field{{"directory", a.Directory}, {"staging", a.Staging}, {"fallback", a.Fallback}} {
		if f.value != "" && (f.name != "staging" || f.value != ACMENoStaging) {
			check("tls.acme."+f.name, checkDirectory(f.value))
		}
	}
	if a.CAFile != "" {
		check("tls.acme.ca_file", checkPath(a.CAFile))
	}
	for _, f := range []field{{"eab", a.EAB}, {"fallback_eab", a.FallbackEAB}, {"dns_token", a.DNSToken}} {
		if f.value != "" {
			check("tls.acme."+f.name, checkCredential(f.value))
		}
	}
	if a.FallbackEAB != "" && a.Fallback == "" {
		check("tls.acme.fallback_eab", errors.New("says nothing without fallback"))
	}
	if a.DNS != "" {
		check("tls.acme.dns", checkOneOf(a.DNS, ACMEHetzner))
		if a.DNSToken == "" {
			check("tls.acme.dns_token", fmt.Errorf("is required with dns = %q: %w", a.DNS, checkCredential("")))
		}
	} else if a.DNSToken != "" {
		check("tls.acme.dns_token", errors.New("says nothing without dns"))
	}
}

// checkDirectory wants an ACME directory: https, and nothing secret in it.
func checkDirectory(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.ContainsAny(s, " \t\n\"{") {
		return fmt.Errorf("%s is not an https URL", shown(s))
	}
	if u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%q holds more than an address", u.Redacted())
	}
	return nil
}
