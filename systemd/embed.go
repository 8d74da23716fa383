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

	"strongroom.example/config/machine"
)

//go:embed *.service *.socket *.timer *.path
var files embed.FS

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

// FrontACMEDropIn hands the front what [tls.acme] names: the file of roots, if
// any, and sealed credentials by name.
func FrontACMEDropIn(caFile string, credentials []string) []byte {
	out := []byte("# Written by strongroom-installer: what [tls.acme] in appliance.toml names.\n[Service]\n")
	if caFile != "" {
		out = fmt.Appendf(out, "LoadCredential=%s:%s\n", machine.CredFrontACMERoot, escape(caFile))
	}
	for _, c := range credentials {
		out = fmt.Appendf(out, "LoadCredentialEncrypted=%s:%s\n", escape(c), escape(machine.CredentialFile(c)))
	}
	return out
}

// NftablesDropIn has nftables.service load the appliance's rules again once it
// has flushed them. PartOf= in Firewall hears of a stop, a restart and a reload,
// but not of a start, before which all may have been stopped. Where the operator
// has disabled Firewall it is left alone.
func NftablesDropIn() []byte {
	return fmt.Appendf(nil, "# Written by strongroom-installer: it flushes the appliance's rules as well.\n[Service]\nExecStartPost=-/bin/sh -c 'systemctl --quiet is-enabled %[1]s && systemctl --no-block reload-or-restart %[1]s'\n", machine.UnitFirewall)
}

// FrontFilesDropIn has the front start with the operator's newest certificate.
func FrontFilesDropIn() []byte {
	return fmt.Appendf(nil, "# Written by strongroom-installer: the certificate is the operator's own.\n[Unit]\nWants=%s\nAfter=%s\n", machine.UnitFrontCertificate, machine.UnitFrontCertificate)
}

// CertificateDropIn hands FrontCertificate the operator's two files, which root
// may keep to himself.
func CertificateDropIn(cert, key string) []byte {
	return fmt.Appendf(nil, "# Written by strongroom-installer: the certificate that the operator has.\n[Service]\nLoadCredential=%s:%s\nLoadCredential=%s:%s\n",
		machine.CredTLSCrt, escape(cert), machine.CredTLSKey, escape(key))
}

// CertificatePathDropIn has FrontCertificatePath watch them.
func CertificatePathDropIn(cert, key string) []byte {
	return fmt.Appendf(nil, "# Written by strongroom-installer: the certificate that the operator has.\n[Path]\nPathChanged=%s\nPathChanged=%s\n", escape(cert), escape(key))
}

// escape keeps systemd from reading a specifier in s.
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// JobDropIn is what a job that stores or reads backups must be told about the
// machine: the directories that it may write to, and the credentials, by name,
// that the configuration names beside those of the unit itself.
func JobDropIn(dirs, credentials []string) []byte {
	out := []byte("# Written by strongroom-installer: the places of [backup] in appliance.toml.\n[Service]\n")
	for _, d := range dirs {
		// The minus: a disk that is not mounted is for the job to report. Quoted,
		// as a path may hold spaces.
		out = fmt.Appendf(out, "ReadWritePaths=%q\n", "-"+escape(d))
	}
	for _, c := range credentials {
		out = fmt.Appendf(out, "LoadCredentialEncrypted=%s:%s\n", escape(c), escape(machine.CredentialFile(c)))
	}
	return out
}
