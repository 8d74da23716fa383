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

//go:embed *.service *.socket *.timer *.path
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

	// Nftables is the distribution's, which flushes everybody's tables.
	Nftables = "nftables.service"

	FrontCertificate     = "strongroom-front-certificate.service"
	FrontCertificatePath = "strongroom-front-certificate.path"

	Snapshot      = "strongroom-snapshot.service"
	SnapshotTimer = "strongroom-snapshot.timer"
	SnapshotPath  = "strongroom-snapshot.path"
	SnapshotSoon  = "strongroom-snapshot-soon.service"
	Verify        = "strongroom-verify.service"
	Drill         = "strongroom-drill.service"
	DrillFetch    = "strongroom-drill-fetch.service"
	DrillTimer    = "strongroom-drill.timer"
	Alert         = "strongroom-alert@.service"
	Audit         = "strongroom-audit.service"
	AuditTimer    = "strongroom-audit.timer"
	Metrics       = "strongroom-metrics.service"
	MetricsSocket = "strongroom-metrics.socket"
	Doctor        = "strongroom-doctor.service"
	DoctorNet     = "strongroom-doctor-net.service"
	DoctorTimer   = "strongroom-doctor.timer"
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

// FrontACMERoot is the front's credential with what signs the certificate of an
// ACME authority of one's own.
const FrontACMERoot = "acme-ca.crt"

// FrontACMEDropIn hands the front what [tls.acme] names: the file of roots, if
// any, and sealed credentials by name.
func FrontACMEDropIn(caFile string, credentials []string) []byte {
	out := []byte("# Written by strongroom-installer: what [tls.acme] in appliance.toml names.\n[Service]\n")
	if caFile != "" {
		out = fmt.Appendf(out, "LoadCredential=%s:%s\n", FrontACMERoot, escape(caFile))
	}
	for _, c := range credentials {
		out = fmt.Appendf(out, "LoadCredentialEncrypted=%s:/etc/strongroom/credentials/%s\n", escape(c), escape(c))
	}
	return out
}

// NftablesDropIn has nftables.service load the appliance's rules again once it
// has flushed them. PartOf= in Firewall hears of a stop, a restart and a reload,
// but not of a start, before which all may have been stopped. Where the operator
// has disabled Firewall it is left alone.
func NftablesDropIn() []byte {
	return fmt.Appendf(nil, "# Written by strongroom-installer: it flushes the appliance's rules as well.\n[Service]\nExecStartPost=-/bin/sh -c 'systemctl --quiet is-enabled %[1]s && systemctl --no-block reload-or-restart %[1]s'\n", Firewall)
}

// FrontFilesDropIn has the front start with the operator's newest certificate.
func FrontFilesDropIn() []byte {
	return fmt.Appendf(nil, "# Written by strongroom-installer: the certificate is the operator's own.\n[Unit]\nWants=%s\nAfter=%s\n", FrontCertificate, FrontCertificate)
}

// CertificateDropIn hands FrontCertificate the operator's two files, which root
// may keep to himself.
func CertificateDropIn(cert, key string) []byte {
	return fmt.Appendf(nil, "# Written by strongroom-installer: the certificate that the operator has.\n[Service]\nLoadCredential=tls.crt:%s\nLoadCredential=tls.key:%s\n", escape(cert), escape(key))
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
	esc := func(s string) string { return strings.ReplaceAll(s, "%", "%%") }
	out := []byte("# Written by strongroom-installer: the places of [backup] in appliance.toml.\n[Service]\n")
	for _, d := range dirs {
		// The minus: a disk that is not mounted is for the job to report. Quoted,
		// as a path may hold spaces.
		out = fmt.Appendf(out, "ReadWritePaths=%q\n", "-"+esc(d))
	}
	for _, c := range credentials {
		out = fmt.Appendf(out, "LoadCredentialEncrypted=%s:/etc/strongroom/credentials/%s\n", esc(c), esc(c))
	}
	return out
}

// DropInPath is the place of a unit's drop-in.
func DropInPath(unit, name string) string {
	return "/etc/systemd/system/" + unit + ".d/" + strings.TrimSuffix(name, ".conf") + ".conf"
}
