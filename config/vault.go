package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"
)

// VaultParams is all that differs between one Vault of ours and another: the
// appliance's, the demo's and a scratch one in a drill. What is not here is the
// same in each. See https://developer.hashicorp.com/vault/docs/configuration.
type VaultParams struct {
	// Product is whose server reads it. Default Vault.
	Product Product
	// ClusterName is what `vault status` shows. Default "strongroom".
	ClusterName string
	// NodeID names this node in raft; it must never change. Default "node-1".
	NodeID string
	// APIAddr is the URL at which clients reach this node, the front's.
	APIAddr string
	// ClusterAddr is the URL at which other nodes reach this one; its port is
	// that of ClusterListen. Raft needs it for a single node too.
	ClusterAddr string
	// Peers are the other nodes that this one may join; none on a single node.
	Peers []VaultPeer

	// StoragePath is raft's folder, absolute, mode 0700.
	StoragePath string
	// PluginDir holds plugins, absolute, not writable by Vault.
	PluginDir string

	// SealSocket is the unix socket of `strongroom kms`, absolute.
	SealSocket string
	// SealKeyName is the key's name in the calls to it. Default "strongroom".
	SealKeyName string

	// TCPAddress is where the front reaches Vault, "127.0.0.1:8200" by
	// default. An address that is not on loopback is refused.
	TCPAddress string
	// ClusterListen is where this node listens for others, "127.0.0.1:8201" by
	// default: nobody, on a single node.
	ClusterListen string
	// TLSCertFile and TLSKeyFile are the TCP listener's own, absolute, PEM.
	TLSCertFile, TLSKeyFile string
	// TLSClientCAFile is what a client certificate must be signed by: a CA of
	// its own, that signs the front's certificate and no other. Absolute, PEM.
	TLSClientCAFile string

	// Socket is the unix socket for the jobs on this machine, absolute.
	Socket string
	// SocketUser and SocketGroup own it (name or number), mode 0660. Vault
	// applies neither unless both are set, so both are required. The user must
	// be Vault's own; the group, one that Vault is in.
	SocketUser, SocketGroup string

	// AuditFiles are the file audit devices by name, absolute paths. OpenBao takes
	// them from here and from nowhere else, unless there are none: then the API may
	// make them, as with Vault, whose file knows of none.
	AuditFiles map[string]string

	// UI turns on Vault's web interface, where the binary carries one.
	UI bool
	// DefaultLeaseTTL and MaxLeaseTTL bound tokens and leases that no role
	// bounds tighter. Default 1 h and 24 h.
	DefaultLeaseTTL, MaxLeaseTTL time.Duration
	// LogLevel is trace, debug, info (default), warn or error.
	LogLevel string
	// LogFormat is standard (default) or json.
	LogFormat string
}

// VaultPeer is another raft node that this one may join.
type VaultPeer struct {
	// APIAddr is the other node's https URL.
	APIAddr string
	// CACertFile, ClientCertFile and ClientKeyFile are PEM files; empty: the
	// system's CAs, and no client certificate.
	CACertFile, ClientCertFile, ClientKeyFile string
	// TLSServerName replaces the URL's host in the check of its certificate.
	TLSServerName string
}

// RenderVault gives Vault's configuration file for p. Every fault in p is
// reported at once, one per line, each beginning with the field's name.
func RenderVault(p VaultParams) ([]byte, error) {
	p = p.withDefaults()
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("vault configuration: %w", err)
	}
	t, err := template.New("vault.hcl.tmpl").
		Funcs(template.FuncMap{"hcl": hclValue}).
		Option("missingkey=error").
		Parse(vaultTemplate)
	if err != nil {
		return nil, fmt.Errorf("vault configuration: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, fmt.Errorf("vault configuration: %w", err)
	}
	return b.Bytes(), nil
}

// OpenBao is whether the server is one: the template asks.
func (p VaultParams) OpenBao() bool { return p.Product == ProductOpenBao }

func (p VaultParams) withDefaults() VaultParams {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&p.ClusterName, "strongroom")
	set(&p.NodeID, "node-1")
	set(&p.SealKeyName, "strongroom")
	set(&p.TCPAddress, "127.0.0.1:8200")
	set(&p.ClusterListen, "127.0.0.1:8201")
	set(&p.LogLevel, "info")
	set(&p.LogFormat, "standard")
	if p.DefaultLeaseTTL == 0 {
		p.DefaultLeaseTTL = time.Hour
	}
	if p.MaxLeaseTTL == 0 {
		p.MaxLeaseTTL = 24 * time.Hour
	}
	return p
}

func (p VaultParams) validate() error {
	var f faults
	for _, s := range []field{
		{"ClusterName", p.ClusterName},
		{"NodeID", p.NodeID},
		{"SealKeyName", p.SealKeyName},
	} {
		f.add(s.name, checkName(s.value))
	}
	for _, s := range []field{
		{"StoragePath", p.StoragePath},
		{"PluginDir", p.PluginDir},
		{"SealSocket", p.SealSocket},
		{"TLSCertFile", p.TLSCertFile},
		{"TLSKeyFile", p.TLSKeyFile},
		{"TLSClientCAFile", p.TLSClientCAFile},
		{"Socket", p.Socket},
	} {
		f.add(s.name, checkPath(s.value))
	}
	f.add("SealSocket", checkSocketLength(p.SealSocket))
	f.add("Socket", checkSocketLength(p.Socket))
	f.add("SocketUser", checkName(p.SocketUser))
	f.add("SocketGroup", checkName(p.SocketGroup))
	f.add("APIAddr", checkURL(p.APIAddr, "https"))
	f.add("ClusterAddr", checkURL(p.ClusterAddr, "https"))
	f.add("TCPAddress", checkLoopback(p.TCPAddress))
	f.add("ClusterListen", checkClusterListen(p.ClusterListen))
	if p.DefaultLeaseTTL < time.Second || p.DefaultLeaseTTL > p.MaxLeaseTTL {
		f.add("DefaultLeaseTTL", fmt.Errorf("%v is not between 1s and MaxLeaseTTL (%v)", p.DefaultLeaseTTL, p.MaxLeaseTTL))
	}
	f.add("LogLevel", checkOneOf(p.LogLevel, "trace", "debug", "info", "warn", "error"))
	f.add("LogFormat", checkOneOf(p.LogFormat, "standard", "json"))
	f.add("Product", checkOneOf(string(p.Product.Known()), Products()...))
	for _, name := range slices.Sorted(maps.Keys(p.AuditFiles)) {
		f.add("AuditFiles", checkName(name))
		f.add("AuditFiles["+name+"]", checkPath(p.AuditFiles[name]))
	}
	for i, peer := range p.Peers {
		at := func(name string) string { return fmt.Sprintf("Peers[%d].%s", i, name) }
		f.add(at("APIAddr"), checkURL(peer.APIAddr, "https"))
		for _, s := range []field{
			{"CACertFile", peer.CACertFile},
			{"ClientCertFile", peer.ClientCertFile},
			{"ClientKeyFile", peer.ClientKeyFile},
		} {
			if s.value != "" {
				f.add(at(s.name), checkPath(s.value))
			}
		}
		if (peer.ClientCertFile == "") != (peer.ClientKeyFile == "") {
			f.add(at("ClientCertFile"), errors.New("certificate and key go together"))
		}
		if peer.TLSServerName != "" {
			f.add(at("TLSServerName"), checkName(peer.TLSServerName))
		}
	}
	return f.err()
}

type field struct{ name, value string }

// faults collects every error by field path.
type faults []error

func (f *faults) add(field string, err error) {
	if err != nil {
		*f = append(*f, fmt.Errorf("%s: %w", field, err))
	}
}

func (f faults) err() error { return errors.Join(f...) }

// checkName takes what Vault, HCL and systemd all take without quoting.
func checkName(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > 253 {
		return fmt.Errorf("%q… is longer than 253 bytes", s[:32])
	}
	for _, r := range s {
		if r < 0x80 && (r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			continue
		}
		return fmt.Errorf("%q holds %q; letters, digits, '-', '_' and '.' are allowed", s, r)
	}
	return nil
}

// checkPath takes clean absolute paths. Vault would expand "{{" in some of
// them as an address template, and systemd "%" and spaces in units.
func checkPath(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%q holds control characters", s)
	case !path.IsAbs(s):
		return fmt.Errorf("%q is not an absolute path", s)
	case path.Clean(s) != s:
		return fmt.Errorf("%q is not a clean path; %q is", s, path.Clean(s))
	}
	return nil
}

// checkSocketLength keeps to the kernel's limit (unix(7): 108 bytes with the
// closing NUL), which otherwise shows as "invalid argument" much later.
func checkSocketLength(s string) error {
	if len(s) > 107 {
		return fmt.Errorf("%q has %d bytes; a unix socket's path may have 107", s, len(s))
	}
	return nil
}

// secretIn is what of a URL or a connection string may be a password.
var secretIn = regexp.MustCompile(`//.*@|(?i:(password|passwd|pwd|token|secret|key)\s*=\s*)\S+`)

// shown quotes what should be a URL or a host without the password that may
// stand in it.
func shown(s string) string {
	return strconv.Quote(secretIn.ReplaceAllStringFunc(s, func(m string) string {
		if strings.HasPrefix(m, "//") {
			return "//***@"
		}
		name, _, _ := strings.Cut(m, "=")
		return name + "=***"
	}))
}

// checkSecretFile is checkPath for a field that says where a secret lies: what
// stands there may be the secret itself, so it is never quoted.
func checkSecretFile(s string) error {
	if s != "" && checkPath(s) != nil {
		return errors.New("is not an absolute, clean path (it is not shown, as it may be the secret itself): put the secret into a file and name that here")
	}
	return checkPath(s)
}

func checkURL(s, scheme string) error {
	if s == "" {
		return errors.New("is empty")
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != scheme || u.Host == "" || strings.ContainsAny(s, "{} \t\n") {
		return fmt.Errorf("%s is not a URL of the form %s://host:port", shown(s), scheme)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.Unmap().IsUnspecified() {
		return fmt.Errorf("%q can be reached by nobody; name the machine's own address", s)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("%s: only scheme, host and port belong there", shown(s))
	}
	return nil
}

func checkHostPort(s string) error {
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Addr().Zone() != "" || a.Addr().Is4In6() {
		return fmt.Errorf("%q is not of the form ip:port", s)
	}
	if a.Port() == 0 {
		return fmt.Errorf("%q: 0 is not a port", s)
	}
	return nil
}

// checkClusterListen wants one address: raft's port is for the other nodes, and
// not for whatever network the machine gets next.
func checkClusterListen(s string) error {
	if err := checkHostPort(s); err != nil {
		return err
	}
	if a := netip.MustParseAddrPort(s).Addr(); a.IsUnspecified() || a.IsMulticast() {
		return fmt.Errorf("%q is not one address of this machine; name the one at which the other nodes reach it", s)
	}
	return nil
}

func checkLoopback(s string) error {
	if err := checkHostPort(s); err != nil {
		return err
	}
	if !netip.MustParseAddrPort(s).Addr().IsLoopback() {
		return fmt.Errorf("%q is not on loopback; what faces the network is the front", s)
	}
	return nil
}

func checkOneOf(s string, allowed ...string) error {
	if slices.Contains(allowed, s) {
		return nil
	}
	return fmt.Errorf("%q is none of %s", s, strings.Join(allowed, ", "))
}

// hclValue writes v as an HCL 1 string. Beyond quotes and backslashes it
// escapes '$', because HCL 1 lets "${" suspend the quoting.
func hclValue(v any) (string, error) {
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case time.Duration:
		s = v.String()
	default:
		return "", fmt.Errorf("no HCL form for %T", v)
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%q is not UTF-8", s)
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '$' || r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String(), nil
}
