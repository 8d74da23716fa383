package config

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"
)

// zeroSSLHost is that of ACMEZeroSSL.
const zeroSSLHost = "acme.zerossl.com"

// FrontSocket begins an address of the front's that is a socket of systemd's.
const FrontSocket = "fd:"

// Front is front.toml, the configuration of the front: see package front.
type Front struct {
	// Listen are the addresses for HTTPS, "host:port", or "fd:name" for a
	// socket that systemd passes under that FileDescriptorName=.
	Listen []string `toml:"listen"`
	// Redirect are the addresses for plain HTTP: redirects, and HTTP-01.
	Redirect []string `toml:"redirect"`
	// HTTP3 and HTTP3Enabled are of versions that spoke it, and have no effect: a
	// front that is restarted in the middle of an upgrade reads the old file.
	HTTP3        []string `toml:"http3,omitempty"`
	HTTP3Enabled bool     `toml:"http3_enabled,omitempty"`
	// Names of the certificate: DNS names, or IP addresses with the internal CA.
	Names []string `toml:"names"`
	// Storage is the folder of certificates and keys, mode 0700.
	Storage string `toml:"storage"`
	Issuer  string `toml:"issuer"`
	// RootFile is where the internal CA's root certificate is written (PEM,
	// 0644) for clients to trust.
	RootFile string `toml:"root_file,omitempty"`
	// Authority is the unix socket of the job that has the key of the internal CA's root:
	// see package authority. Empty where the front has it itself.
	Authority string `toml:"authority,omitempty"`
	// Metrics is a unix socket at which a scrape is answered, in Prometheus'
	// text format at /metrics; mode 0660. Empty for none.
	Metrics string `toml:"metrics,omitempty"`
	// UI lets Vault's web interface through.
	UI bool `toml:"ui"`
	// Drain is how long a stop waits for requests in flight; long polls last
	// 60 s.
	Drain time.Duration `toml:"drain,omitzero"`

	Vault  FrontVault  `toml:"vault"`
	Limits FrontLimits `toml:"limits,omitempty"`
	Files  FrontFiles  `toml:"files,omitempty"`
	// ACME is nil in what another issuer is written for, and never in what was read.
	ACME *FrontACME `toml:"acme,omitempty"`
}

// FrontVault is where the requests go, over TLS with a client certificate that only
// the front has: see package localtls.
type FrontVault struct {
	Address    string `toml:"address"`               // host:port on loopback
	ServerName string `toml:"server_name,omitempty"` // in its certificate; default: the host
	CAFile     string `toml:"ca_file"`
	CertFile   string `toml:"cert_file"`
	KeyFile    string `toml:"key_file"`
}

// FrontLimits are per client address (IPv4 address, or IPv6 /64), except the sizes.
type FrontLimits struct {
	RequestsPerSecond float64 `toml:"requests_per_second"` // 0 for no limit
	Burst             int     `toml:"burst"`               // requests
	Concurrent        int     `toml:"concurrent"`          // requests in flight
	BodyBytes         int64   `toml:"body_bytes"`
	HeaderBytes       int     `toml:"header_bytes"`
}

// FrontFiles is the certificate of issuer "files".
type FrontFiles struct {
	Cert string `toml:"cert"` // PEM, with its chain
	Key  string `toml:"key"`  // PEM
}

// FrontACME is how a public certificate is had (RFC 8555). Challenges are HTTP-01,
// where there is a listener for plain HTTP, and TLS-ALPN-01; or DNS-01 alone,
// where a DNS provider is given.
type FrontACME struct {
	Email string `toml:"email"`        // the CA's contact; ZeroSSL needs one
	CA    string `toml:"ca,omitempty"` // directory URL
	// Staging is tried first until it has succeeded once for these names, so
	// that what is wrong shows where failures cost nothing. Empty for none.
	Staging string `toml:"staging"`
	// Fallback is asked when CA fails. Empty for none.
	Fallback string `toml:"fallback,omitempty"`
	// EABFile binds the account at CA to one that the operator has there
	// (RFC 8555, section 7.3.4): TOML with key_id and mac_key. FallbackEABFile
	// is that of Fallback.
	EABFile         string `toml:"eab_file,omitempty"`
	FallbackEABFile string `toml:"fallback_eab_file,omitempty"`
	// TrustedRoots are PEM files to trust for the CAs' own HTTPS beside the
	// system's roots, for a CA in one's own network.
	TrustedRoots []string `toml:"trusted_roots,omitempty"`
	// Resolvers are asked in the preflight, "host:port"; default: the system's.
	Resolvers []string `toml:"resolvers,omitempty"`
	// HTTPPort and HTTPSPort are the ports as the internet sees them; 0 for
	// those of the listeners.
	HTTPPort  int      `toml:"http_port,omitzero"`
	HTTPSPort int      `toml:"https_port,omitzero"`
	DNS       FrontDNS `toml:"dns,omitempty"`
}

// FrontDNS proves ownership by DNS-01 in place of the other challenges: for a
// machine that the CA cannot reach.
type FrontDNS struct {
	Provider  string `toml:"provider"`           // "hetzner", or empty for none
	TokenFile string `toml:"token_file"`         // mode 0600, or a systemd credential
	Endpoint  string `toml:"endpoint,omitempty"` // of the provider's API; default: its own
}

// DefaultFront are the settings of a file that gives none.
func DefaultFront() Front {
	return Front{
		Issuer: TLSACME,
		Drain:  75 * time.Second,
		ACME:   &FrontACME{CA: ACMELetsEncrypt, Staging: ACMELetsEncryptStaging},
		Limits: FrontLimits{
			RequestsPerSecond: 100,
			Burst:             400,
			Concurrent:        200,
			BodyBytes:         1 << 20,
			HeaderBytes:       16 << 10,
		},
	}
}

// LoadFront reads and validates a file. Its error is Faults: all of them.
func LoadFront(file string) (Front, error) {
	data, err := Read(file)
	if err != nil {
		return Front{}, err
	}
	return ParseFront(file, data)
}

// ParseFront is LoadFront for data that came from file.
func ParseFront(file string, data []byte) (Front, error) {
	c := DefaultFront()
	at, faults := Decode(file, data, &c)
	if at == nil {
		return c, faults.Err() // no TOML at all
	}
	c.check(faults.Check(file, at))
	return c, faults.Err()
}

// Encode writes what ParseFront reads.
func (c *Front) Encode(w io.Writer) error {
	enc := toml.NewEncoder(w)
	enc.Indent = ""
	if err := enc.Encode(c); err != nil {
		return fmt.Errorf("front configuration: %w", err)
	}
	return nil
}

// Validate gives all that is wrong, each with its key.
func (c *Front) Validate() error {
	var f Faults
	c.check(f.Check("", nil))
	return f.Err()
}

func (c *Front) check(check func(string, error)) {
	fail := func(key, format string, args ...any) { check(key, fmt.Errorf(format, args...)) }
	if len(c.Listen) == 0 {
		fail("listen", "no address")
	}
	for key, addrs := range map[string][]string{"listen": c.Listen, "redirect": c.Redirect} {
		for _, a := range addrs {
			if err := checkFrontAddress(a); err != nil {
				fail(key, "%w", err)
			}
		}
	}
	if len(c.Names) == 0 {
		fail("names", "no name")
	}
	for _, n := range c.Names {
		if err := checkFrontName(n); err != nil {
			fail("names", "%w", err)
			continue
		}
		if c.Issuer == TLSACME && (net.ParseIP(n) != nil || !strings.Contains(n, ".")) {
			fail("names", "%q is not a public DNS name: issuer %q needs one", n, TLSACME)
		}
	}
	if !filepath.IsAbs(c.Storage) {
		fail("storage", "%q is not an absolute path", c.Storage)
	}
	switch c.Issuer {
	case TLSInternal:
	case TLSACME:
		c.checkACME(fail)
	case TLSFiles:
		if c.Files.Cert == "" || c.Files.Key == "" {
			fail("files", "issuer %q needs cert and key", TLSFiles)
		}
	default:
		fail("issuer", "%q is none of %q, %q and %q", c.Issuer, TLSACME, TLSInternal, TLSFiles)
	}
	if c.RootFile != "" && c.Issuer != TLSInternal {
		fail("root_file", "issuer %q has no root of its own", c.Issuer)
	}
	if c.Authority != "" && c.Issuer != TLSInternal {
		fail("authority", "issuer %q has no root of its own", c.Issuer)
	}
	// sun_path has 108 bytes, unix(7).
	for key, socket := range map[string]string{"metrics": c.Metrics, "authority": c.Authority} {
		if socket != "" && (!filepath.IsAbs(socket) || len(socket) > 107) {
			fail(key, "%q is not the absolute path of a unix socket, at most 107 bytes", socket)
		}
	}
	if c.Drain < 0 || c.Drain > 10*time.Minute {
		fail("drain", "%s is not between 0 and 10m", c.Drain)
	}
	c.Vault.check(fail)
	c.Limits.check(fail)
}

func (v *FrontVault) check(fail func(key, format string, args ...any)) {
	host, _, err := net.SplitHostPort(v.Address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		fail("vault.address", "%q is not a loopback address with a port", v.Address)
	}
	for key, file := range map[string]string{"ca_file": v.CAFile, "cert_file": v.CertFile, "key_file": v.KeyFile} {
		if file == "" {
			fail("vault."+key, "is missing: Vault is reached by mutual TLS only")
		}
	}
}

func (l *FrontLimits) check(fail func(key, format string, args ...any)) {
	if l.RequestsPerSecond < 0 || l.RequestsPerSecond > 0 && l.Burst < 1 {
		fail("limits", "requests_per_second %g with burst %d lets nobody in", l.RequestsPerSecond, l.Burst)
	}
	if l.Concurrent < 0 {
		fail("limits.concurrent", "%d is negative", l.Concurrent)
	}
	if l.BodyBytes < 1<<10 || l.BodyBytes > 32<<20 {
		fail("limits.body_bytes", "%d is not between 1 KiB and 32 MiB, Vault's own limit", l.BodyBytes)
	}
	if l.HeaderBytes < 4<<10 || l.HeaderBytes > 1<<20 {
		fail("limits.header_bytes", "%d is not between 4 KiB and 1 MiB", l.HeaderBytes)
	}
}

// checkFrontName takes names in the one form that certificates have them in. Others
// would be asked for, and found, nowhere.
func checkFrontName(n string) error {
	if ip, err := netip.ParseAddr(n); err == nil {
		if normal := ip.Unmap().String(); normal != n || ip.Zone() != "" {
			return fmt.Errorf("%q is not in the normal form of an address: write %q", n, ip.Unmap().WithZone("").String())
		}
		return nil
	}
	normal := strings.TrimSuffix(strings.ToLower(n), ".")
	switch {
	case strings.ContainsFunc(n, func(r rune) bool { return r > unicode.MaxASCII }):
		return fmt.Errorf("%q is not ASCII: write it as DNS has it, with xn--", n)
	case checkLabels(normal) != nil:
		return fmt.Errorf("%q is neither a DNS name nor an IP address", n)
	case normal != n:
		return fmt.Errorf("%q is not in the normal form of a name: write %q", n, normal)
	}
	return nil
}

func checkFrontAddress(a string) error {
	if name, ok := strings.CutPrefix(a, FrontSocket); ok {
		if name == "" {
			return fmt.Errorf("%q names no socket", a)
		}
		return nil
	}
	if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
		return fmt.Errorf("%q is neither host:port nor %sname", a, FrontSocket)
	}
	return nil
}
func (c *Front) checkACME(fail func(key, format string, args ...any)) {
	for key, dir := range map[string]string{"acme.ca": c.ACME.CA, "acme.staging": c.ACME.Staging, "acme.fallback": c.ACME.Fallback} {
		if dir == "" && key != "acme.ca" {
			continue
		}
		if u, err := url.Parse(dir); err != nil || u.Scheme != "https" || u.Host == "" {
			fail(key, "%q is not the https:// URL of an ACME directory", dir)
		}
	}
	switch d := c.ACME.DNS; {
	case d.Provider == "" && (d.TokenFile != "" || d.Endpoint != ""):
		fail("acme.dns.provider", "is missing")
	case d.Provider != "" && d.Provider != ACMEHetzner:
		fail("acme.dns.provider", "%q is not %q, the only one there is", d.Provider, ACMEHetzner)
	case d.Provider != "" && !filepath.IsAbs(d.TokenFile):
		fail("acme.dns.token_file", "%q is not an absolute path", d.TokenFile)
	}
	for _, ca := range []string{c.ACME.CA, c.ACME.Fallback} {
		if u, err := url.Parse(ca); err == nil && u.Host == zeroSSLHost && c.ACME.Email == "" {
			fail("acme.email", "is missing: ZeroSSL wants one")
		}
	}
	for key, file := range map[string]string{"acme.eab_file": c.ACME.EABFile, "acme.fallback_eab_file": c.ACME.FallbackEABFile} {
		if file != "" && !filepath.IsAbs(file) {
			fail(key, "%q is not an absolute path", file)
		}
	}
	if c.ACME.FallbackEABFile != "" && c.ACME.Fallback == "" {
		fail("acme.fallback_eab_file", "says nothing without fallback")
	}
}
