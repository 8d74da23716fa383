package steps

import (
	"bytes"
	"slices"
	"strings"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/systemd"
)

const frontDropInName = "certificate"

// frontCredential is where systemd puts a credential for the running front.
func frontCredential(name string) string {
	return machine.CredentialsOf(machine.UnitFront) + "/" + name
}

// frontCredentials are the sealed ones that [tls.acme] names.
func (e *Env) frontCredentials() []string {
	a := e.Config.TLS.ACME
	return slices.DeleteFunc([]string{a.EAB, a.FallbackEAB, a.DNSToken}, func(s string) bool { return s == "" })
}

func checkToken(from string, plain []byte) error {
	if t := bytes.TrimSpace(plain); len(t) < 8 || bytes.ContainsAny(t, " \t\r\n") {
		return operator("put one line with the API token into it", "%q holds no token", from)
	}
	return nil
}

// frontTLS is the table [tls] as the front sees it, whose files systemd hands
// over.
func (e *Env) frontTLS() config.TLS {
	t := e.Config.TLS
	if t.Mode == config.TLSFiles {
		t.CertFile, t.KeyFile = machine.FrontPEM, machine.FrontPEM
	}
	for _, name := range []*string{&t.ACME.EAB, &t.ACME.FallbackEAB, &t.ACME.DNSToken} {
		if *name != "" && !strings.Contains(*name, "/") {
			*name = frontCredential(*name)
		}
	}
	if t.ACME.CAFile != "" {
		t.ACME.CAFile = frontCredential(machine.CredFrontACMERoot)
	}
	return t
}

// frontDropIns want what the front's units must be told of the certificate, or
// nothing of the kind.
func (s unitFiles) frontDropIns() (engine.Diff, error) {
	var c collect
	t := s.Config.TLS
	files := t.Mode == config.TLSFiles
	sealed := s.frontCredentials()
	text := systemd.FrontACMEDropIn(t.ACME.CAFile, sealed)
	if files {
		text = systemd.FrontFilesDropIn()
	}
	c.add(s.dropIn(machine.UnitFront, frontDropInName, text, files || t.ACME.CAFile != "" || len(sealed) > 0))
	c.add(s.dropIn(machine.UnitFrontCertificate, frontDropInName, systemd.CertificateDropIn(t.CertFile, t.KeyFile), files))
	c.add(s.dropIn(machine.UnitFrontCertificatePath, frontDropInName, systemd.CertificatePathDropIn(t.CertFile, t.KeyFile), files))
	return c.done()
}
