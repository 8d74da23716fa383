package config

import (
	_ "embed"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"strings"
	"time"
)

// The versions of Vault that the appliance cares for.
const (
	// VaultVersion is what is installed unless told otherwise.
	VaultVersion = "2.2.2"
	// VaultFloor is the oldest version without a known advisory
	// (CVE-2026-92735); older ones need allow_old.
	VaultFloor = "2.2.2"
)

// Appliance is the content of appliance.toml: what the operator decides. All
// else follows from it.
type Appliance struct {
	Domain   string   `toml:"domain"` // the public name, "vault.example.com"
	Email    string   `toml:"email"`  // for the certificate authority
	Node     Node     `toml:"node"`
	Vault    Vault    `toml:"vault"`
	TLS      TLS      `toml:"tls"`
	Escrow   Escrow   `toml:"escrow"`
	Unseal   Unseal   `toml:"unseal"`
	Firewall Firewall `toml:"firewall"`
	Backup   Backup   `toml:"backup"`
	Alert    Alert    `toml:"alert"`
	Audit    Audit    `toml:"audit"`
}

// Node is this machine among the raft nodes.
type Node struct {
	ID            string `toml:"id"`             // never to be changed
	ClusterListen string `toml:"cluster_listen"` // ip:port
	ClusterAddr   string `toml:"cluster_addr"`   // URL at which other nodes reach cluster_listen
	Peers         []Peer `toml:"peer"`
}

// Peer is another raft node.
type Peer struct {
	APIAddr       string `toml:"api_addr"`
	CACertFile    string `toml:"ca_cert_file"`
	TLSServerName string `toml:"tls_server_name"`
}

// Vault is about the server itself.
type Vault struct {
	Product         Product       `toml:"product"`
	Version         string        `toml:"version"` // the product's own
	AllowOld        bool          `toml:"allow_old"`
	Mirror          string        `toml:"mirror"` // https URL in place of releases.hashicorp.com; Vault's alone
	UI              bool          `toml:"ui"`
	LogLevel        string        `toml:"log_level"`
	DefaultLeaseTTL time.Duration `toml:"default_lease_ttl"`
	MaxLeaseTTL     time.Duration `toml:"max_lease_ttl"`
}

// Server is what it is to be.
func (v Vault) Server() Server { return Server{v.Product.Known(), v.Version} }

// The ways to a certificate.
const (
	TLSACME     = "acme"     // Let's Encrypt or another ACME authority
	TLSInternal = "internal" // the front's own authority
	TLSFiles    = "files"    // a certificate of the operator's own
)

// TLS is where the front's certificate comes from.
type TLS struct {
	Mode     string `toml:"mode"`
	CertFile string `toml:"cert_file"` // with mode "files"
	KeyFile  string `toml:"key_file"`
	ACME     ACME   `toml:"acme"`
}

// Escrow is who gets the keys.
type Escrow struct {
	// Recipients are age or SSH public keys; none: those in the authorized_keys
	// of whoever runs the installer.
	Recipients []string `toml:"recipients"`
	Shares     int      `toml:"shares"`    // of the recovery key
	Threshold  int      `toml:"threshold"` // how many of them are needed
}

// Firewall is about nftables.
type Firewall struct {
	Manage  bool     `toml:"manage"`
	SSHPort int      `toml:"ssh_port"`
	SSHFrom []string `toml:"ssh_from"` // CIDR
	// DatabasePorts are where Vault reaches databases and their poolers, beside
	// the servers' own ports, 3306 and 5432.
	DatabasePorts []int         `toml:"database_ports"`
	ConfirmWithin time.Duration `toml:"confirm_within"`
}

// Default is the appliance before any file: everything but the domain and the
// e-mail address.
func Default() Appliance {
	return Appliance{
		Node:     Node{ID: "node-1", ClusterListen: "127.0.0.1:8201", ClusterAddr: "https://127.0.0.1:8201"},
		Vault:    Vault{Product: ProductVault, Version: VaultVersion, LogLevel: "info", DefaultLeaseTTL: time.Hour, MaxLeaseTTL: 24 * time.Hour},
		TLS:      TLS{Mode: TLSACME},
		Escrow:   Escrow{Shares: 5, Threshold: 3},
		Unseal:   Unseal{Seal: SealAuto},
		Firewall: Firewall{Manage: true, SSHPort: 22, SSHFrom: []string{"0.0.0.0/0", "::/0"}, ConfirmWithin: 2 * time.Minute},
		Backup:   DefaultBackup(),
		Alert:    DefaultAlert(),
		Audit:    DefaultAudit(),
	}
}

// Load reads and validates a file. Its error is Faults: all of them.
func Load(file string) (Appliance, error) {
	data, err := Read(file)
	if err != nil {
		return Appliance{}, err
	}
	a, at, faults := parse(file, data)
	if at == nil {
		// No TOML: nothing in it was understood, so nothing in it is missing.
		return a, faults.Err()
	}
	return a, append(faults, a.faults(file, at)...).Err()
}

// Parse decodes data over the defaults without validating the result, so that
// flags can still fill what is missing; the caller calls Validate then. The
// error is Faults. file is for messages.
func Parse(file string, data []byte) (Appliance, error) {
	a, _, faults := parse(file, data)
	return a, faults.Err()
}

func parse(file string, data []byte) (Appliance, Lines, Faults) {
	a := Default()
	a.Vault.Version = ""
	at, faults := Decode(file, data, &a)
	if a.Vault.Version == "" {
		a.Vault.Version = a.Vault.Product.Release()
	}
	return a, at, faults
}

// Validate reports everything that is wrong with a; file, with its content
// data, is where it came from, and both may be empty. After it, a is trusted.
func (a Appliance) Validate(file string, data []byte) error {
	return a.faults(file, indexLines(string(data))).Err()
}

func (a Appliance) faults(file string, at Lines) Faults {
	var f Faults
	check := f.Check(file, at)
	check("domain", checkDomain(a.Domain))
	check("email", checkEmail(a.Email, a.TLS.Mode))
	a.Node.check(check)
	a.Vault.check(check)
	a.TLS.check(check)
	a.Escrow.check(check)
	a.Unseal.check(check)
	a.Firewall.check(check)
	a.Backup.check(check)
	a.Backup.CheckHidden(check)
	a.Alert.check(check)
	a.Audit.check(check)
	return f
}

func (n Node) check(check func(string, error)) {
	check("node.id", checkName(n.ID))
	check("node.cluster_listen", checkClusterListen(n.ClusterListen))
	check("node.cluster_addr", checkURL(n.ClusterAddr, "https"))
	for i, p := range n.Peers {
		at := fmt.Sprintf("node.peer[%d].", i)
		check(at+"api_addr", checkURL(p.APIAddr, "https"))
		if p.CACertFile != "" {
			check(at+"ca_cert_file", checkPath(p.CACertFile))
		}
		if p.TLSServerName != "" {
			check(at+"tls_server_name", checkDomain(p.TLSServerName))
		}
	}
}

func (v Vault) check(check func(string, error)) {
	if err := checkOneOf(string(v.Product), Products()...); err != nil {
		check("vault.product", err)
	} else {
		old, err := v.Server().Old()
		check("vault.version", err)
		if old && !v.AllowOld {
			check("vault.version", fmt.Errorf("%q is below %s, %s's oldest version without known faults; set allow_old to insist", v.Version, v.Product.Floor(), v.Product))
		}
	}
	if v.Mirror != "" && v.Product == ProductOpenBao {
		check("vault.mirror", errors.New("is HashiCorp's releases, and OpenBao is given by --vault-binary"))
	}
	if v.Mirror != "" && (!strings.HasPrefix(v.Mirror, "https://") || strings.ContainsAny(v.Mirror, " \t\n\"")) {
		check("vault.mirror", fmt.Errorf("%s is not an https URL", shown(v.Mirror)))
	}
	if v.MaxLeaseTTL > longestLife {
		check("vault.max_lease_ttl", fmt.Errorf("%v is more than %s: what lives so long is never rotated", v.MaxLeaseTTL, days(longestLife)))
	}
	check("vault.log_level", checkOneOf(v.LogLevel, "trace", "debug", "info", "warn", "error"))
	if v.DefaultLeaseTTL < time.Second || v.DefaultLeaseTTL > v.MaxLeaseTTL {
		check("vault.default_lease_ttl", fmt.Errorf("%v is not between 1s and max_lease_ttl (%v)", v.DefaultLeaseTTL, v.MaxLeaseTTL))
	}
}

func (t TLS) check(check func(string, error)) {
	check("tls.mode", checkOneOf(t.Mode, TLSACME, TLSInternal, TLSFiles))
	for _, f := range []field{{"tls.cert_file", t.CertFile}, {"tls.key_file", t.KeyFile}} {
		if t.Mode == TLSFiles {
			check(f.name, checkSecretFile(f.value))
		} else if f.value != "" {
			check(f.name, fmt.Errorf("is only for mode %q; the mode is %q", TLSFiles, t.Mode))
		}
	}
	t.ACME.check(t.Mode, check)
}

func (e Escrow) check(check func(string, error)) {
	checkRecipients("escrow.recipients", e.Recipients, check)
	if e.Shares < 1 || e.Shares > 16 {
		check("escrow.shares", fmt.Errorf("%d is not between 1 and 16", e.Shares))
	}
	if e.Threshold < 1 || e.Threshold > e.Shares || e.Shares > 1 && e.Threshold == 1 {
		check("escrow.threshold", fmt.Errorf("%d does not fit %d shares: at least 2 (1 of 1 is allowed), at most all of them", e.Threshold, e.Shares))
	}
}

func (w Firewall) check(check func(string, error)) {
	if w.SSHPort < 1 || w.SSHPort > 65535 {
		check("firewall.ssh_port", fmt.Errorf("%d is not a port", w.SSHPort))
	}
	if w.SSHPort == 80 || w.SSHPort == 443 {
		check("firewall.ssh_port", fmt.Errorf("%d is the front's", w.SSHPort))
	}
	if len(w.SSHFrom) == 0 {
		check("firewall.ssh_from", errors.New("is empty: nobody could log in any more"))
	}
	for i, c := range w.SSHFrom {
		if p, err := netip.ParsePrefix(c); err != nil || p.Masked() != p {
			check(fmt.Sprintf("firewall.ssh_from[%d]", i), fmt.Errorf(`%q is not an address range such as "203.0.113.0/24" or "2001:db8::/32"`, c))
		}
	}
	for i, port := range w.DatabasePorts {
		check(fmt.Sprintf("firewall.database_ports[%d]", i), checkPort(port))
	}
	if w.ConfirmWithin < 30*time.Second || w.ConfirmWithin > time.Hour {
		check("firewall.confirm_within", fmt.Errorf("%v is not between 30s and 1h", w.ConfirmWithin))
	}
}

func checkDomain(s string) error {
	if s == "" {
		return errors.New("is required: the name under which Vault will be reached")
	}
	_, err := netip.ParseAddr(s)
	if err == nil || !strings.Contains(s, ".") || checkLabels(s) != nil {
		return fmt.Errorf(`%q is not a domain name such as "vault.example.com"`, s)
	}
	return nil
}

// checkLabels takes a host name in its normal form (RFC 1123, section 2.1).
func checkLabels(s string) error {
	bad := errors.New("no host name")
	if len(s) > 253 {
		return bad
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return bad
		}
	}
	return nil
}

func checkEmail(s, mode string) error {
	if s == "" {
		if mode != TLSACME {
			return nil
		}
		return errors.New("is required: the certificate authority writes there when something is wrong")
	}
	a, err := mail.ParseAddress(s)
	host := s[strings.LastIndexByte(s, '@')+1:]
	if err != nil || a.Address != s || !strings.Contains(host, ".") {
		return fmt.Errorf(`%q is not an e-mail address such as "ops@example.com"`, s)
	}
	return nil
}
