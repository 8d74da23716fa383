// Package systemd holds the appliance's units as they are installed into
// /etc/systemd/system. What differs between machines is not in them but in a
// drop-in that the installer writes.
package systemd

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.service *.socket
var files embed.FS

// The units by name.
const (
	Vault      = "vault.service"
	KMS        = "strongroom-kms.service"
	KMSSocket  = "strongroom-kms.socket"
	Front      = "strongroom-front.service"
	FrontHTTPS = "strongroom-front-https.socket"
	FrontHTTP  = "strongroom-front-http.socket"
	FrontHTTP3 = "strongroom-front-http3.socket"
	Firewall   = "strongroom-firewall.service"
)

// Names are all units, sorted.
func Names() []string {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		panic(fmt.Sprintf("systemd: the embedded folder can't be read: %v", err))
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

// Unit is the content of one of Names.
func Unit(name string) ([]byte, error) {
	b, err := files.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("unit %q: %w", name, err)
	}
	return b, nil
}

// KMSDropIn is what strongroom-kms.service must be told about the machine: the
// uid of Vault, the only one that it answers.
func KMSDropIn(vaultUID int) []byte {
	return fmt.Appendf(nil, "# Written by strongroom-installer: the only uid that the KMS answers.\n[Service]\nEnvironment=VAULT_UID=%d\n", vaultUID)
}

// FrontDropIn hands the front a certificate of the operator's own, which root
// may keep to himself: as the credentials tls.crt and tls.key.
func FrontDropIn(cert, key string) []byte {
	esc := func(path string) string { return strings.ReplaceAll(path, "%", "%%") }
	return fmt.Appendf(nil, "# Written by strongroom-installer: the certificate that the operator has.\n[Service]\nLoadCredential=tls.crt:%s\nLoadCredential=tls.key:%s\n", esc(cert), esc(key))
}

// DropInPath is the place of a unit's drop-in.
func DropInPath(unit, name string) string {
	return "/etc/systemd/system/" + unit + ".d/" + strings.TrimSuffix(name, ".conf") + ".conf"
}
