package steps

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"strongroom.example/appliance/serve/localtls"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// linkCertificates makes the certificates of the link from the front to Vault.
type linkCertificates struct{ *Env }

func (linkCertificates) ID() string    { return "link-certificates" }
func (linkCertificates) Title() string { return "certificates between front and Vault" }

// linkRenew is how long before their end they are made anew.
const linkRenew = 365 * 24 * time.Hour

func (s linkCertificates) Check(context.Context) (engine.Diff, error) {
	why, err := s.fault()
	if err != nil {
		return nil, err
	}
	if why == "" {
		return nil, nil
	}
	return engine.Diff{{What: machine.TLSDir, From: why, To: "new certificates for both ends", Apply: func(context.Context) error {
		b, err := localtls.New(s.Host.Now(), s.Rand)
		if err != nil {
			return err
		}
		// A kill in between leaves files that don't fit each other, which
		// fault finds.
		for _, f := range []struct {
			name string
			data []byte
		}{
			{machine.CredCA, b.CA},
			{machine.CredServerCrt, b.ServerCrt}, {machine.CredServerKey, b.ServerKey},
			{machine.CredFrontCrt, b.ClientCrt}, {machine.CredFrontKey, b.ClientKey},
		} {
			if err := s.Host.Write(machine.TLSDir+"/"+f.name, bytes.NewReader(f.data), root(0o600)); err != nil {
				return err
			}
		}
		return nil
	}}}, nil
}

// fault says what is wrong with the certificates that are there; "" for
// nothing.
func (s linkCertificates) fault() (string, error) {
	files := map[string][]byte{}
	for _, name := range []string{machine.CredCA, machine.CredServerCrt, machine.CredServerKey, machine.CredFrontCrt, machine.CredFrontKey} {
		b, err := s.Host.ReadFile(machine.TLSDir + "/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			return name + " is missing", nil
		}
		if err != nil {
			return "", err
		}
		info, err := s.Host.Stat(machine.TLSDir + "/" + name)
		if err != nil {
			return "", err
		}
		if info.Attr != root(0o600) {
			return name + " can be read by others", nil
		}
		files[name] = b
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(files[machine.CredCA]) {
		return "ca.crt is no certificate", nil
	}
	for name, usage := range map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "front": x509.ExtKeyUsageClientAuth} {
		pair, err := tls.X509KeyPair(files[name+".crt"], files[name+".key"])
		if err != nil {
			return name + ": certificate and key don't fit", nil
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: s.Host.Now().Add(linkRenew), KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			return fmt.Sprintf("%s.crt will not do for another year (%v)", name, err), nil
		}
	}
	return "", nil
}
