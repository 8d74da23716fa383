// Package front is the only thing that the internet reaches: an embedded Caddy
// with the few modules it needs, which ends TLS, keeps its certificate alive
// and passes to Vault what the outside may ask.
//
// It is not a general web server, and it reads no Caddyfile: its configuration
// is a Config, from which it builds Caddy's. Caddy's state is global, so one
// process runs one front.
package front

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Issuers of the front's certificate.
const (
	IssuerACME     = "acme"     // Let's Encrypt, with another CA to fall back on
	IssuerInternal = "internal" // a CA of the front's own, where there is no public name
	IssuerFiles    = "files"    // a certificate that somebody else renews
)

// Config is the front's configuration file, in TOML. Durations are strings as
// in time.ParseDuration.
type Config struct {
	// Listen are the addresses for HTTPS, "host:port", or "fd:name" for a
	// socket that systemd passes under that FileDescriptorName=.
	Listen []string `toml:"listen"`
	// Redirect are the addresses for plain HTTP: redirects, and HTTP-01.
	Redirect []string `toml:"redirect"`
	// HTTP3 are UDP sockets for HTTP/3, "fd:name". With plain addresses in
	// Listen, http3_enabled opens the same ports for UDP.
	HTTP3        []string `toml:"http3"`
	HTTP3Enabled bool     `toml:"http3_enabled"`
	// Names of the certificate: DNS names, or IP addresses with the internal CA.
	Names []string `toml:"names"`
	// Storage is the folder of certificates and keys, mode 0700.
	Storage string `toml:"storage"`
	Issuer  string `toml:"issuer"`
	// RootFile is where the internal CA's root certificate is written (PEM,
	// 0644) for clients to trust.
	RootFile string `toml:"root_file"`
	// Metrics is a unix socket at which a scrape is answered, in Prometheus'
	// text format at /metrics; mode 0660. Empty for none.
	Metrics string `toml:"metrics"`
	// UI lets Vault's web interface through.
	UI bool `toml:"ui"`
	// Drain is how long a stop waits for requests in flight; long polls last
	// 60 s.
	Drain Duration `toml:"drain"`

	Vault  Vault  `toml:"vault"`
	Limits Limits `toml:"limits"`
	Files  Files  `toml:"files"`
	ACME   ACME   `toml:"acme"`
}

// Vault is where the requests go, over TLS with a client certificate that only
// the front has: see package localtls.
type Vault struct {
	Address    string `toml:"address"`     // host:port on loopback
	ServerName string `toml:"server_name"` // in its certificate; default: the host
	CAFile     string `toml:"ca_file"`
	CertFile   string `toml:"cert_file"`
	KeyFile    string `toml:"key_file"`
}

// Limits are per client address (IPv4 address, or IPv6 /64), except the sizes.
type Limits struct {
	RequestsPerSecond float64 `toml:"requests_per_second"` // 0 for no limit
	Burst             int     `toml:"burst"`               // requests
	Concurrent        int     `toml:"concurrent"`          // requests in flight
	BodyBytes         int64   `toml:"body_bytes"`
	HeaderBytes       int     `toml:"header_bytes"`
}

// Files is the certificate of issuer "files".
type Files struct {
	Cert string `toml:"cert"` // PEM, with its chain
	Key  string `toml:"key"`  // PEM
}

// Duration is a time.Duration that TOML writes as "30s".
type Duration time.Duration

// UnmarshalText parses time.ParseDuration's notation.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText is the reverse.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Defaults are the settings of a file that gives none.
func Defaults() Config {
	return Config{
		Issuer: IssuerACME,
		Drain:  Duration(75 * time.Second),
		ACME:   ACME{CA: LetsEncrypt, Staging: LetsEncryptStaging},
		Limits: Limits{
			RequestsPerSecond: 100,
			Burst:             400,
			Concurrent:        200,
			BodyBytes:         1 << 20,
			HeaderBytes:       16 << 10,
		},
	}
}

// Load reads and checks a configuration file. A key that it does not know is
// an error.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("read front configuration: %w", err)
	}
	defer f.Close()
	c, err := Parse(f)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse reads and checks a configuration.
func Parse(r io.Reader) (Config, error) {
	c := Defaults()
	meta, err := toml.NewDecoder(r).Decode(&c)
	if err != nil {
		var at toml.ParseError
		if errors.As(err, &at) {
			return Config{}, fmt.Errorf("line %d: %s", at.Position.Line, at.Message)
		}
		return Config{}, err
	}
	var errs []error
	for _, key := range meta.Undecoded() {
		errs = append(errs, fmt.Errorf("%s: unknown key", key))
	}
	return c, errors.Join(append(errs, c.Validate())...)
}

// Validate gives all that is wrong, each with its key.
func (c *Config) Validate() error {
	var errs []error
	fail := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+": "+format, args...))
	}
	if len(c.Listen) == 0 {
		fail("listen", "no address")
	}
	for key, addrs := range map[string][]string{"listen": c.Listen, "redirect": c.Redirect} {
		for _, a := range addrs {
			if err := checkAddress(a); err != nil {
				fail(key, "%w", err)
			}
		}
	}
	for _, a := range c.HTTP3 {
		if !strings.HasPrefix(a, fdPrefix) {
			fail("http3", "%q is not %sname; for plain addresses set http3_enabled", a, fdPrefix)
		}
	}
	if len(c.Names) == 0 {
		fail("names", "no name")
	}
	for _, n := range c.Names {
		if n == "" || strings.ContainsAny(n, " /:*") && net.ParseIP(n) == nil {
			fail("names", "%q is neither a DNS name nor an IP address", n)
		}
		if c.Issuer == IssuerACME && (net.ParseIP(n) != nil || !strings.Contains(n, ".")) {
			fail("names", "%q is not a public DNS name: issuer %q needs one", n, IssuerACME)
		}
	}
	if !filepath.IsAbs(c.Storage) {
		fail("storage", "%q is not an absolute path", c.Storage)
	}
	switch c.Issuer {
	case IssuerInternal:
	case IssuerACME:
		validateACME(c, fail)
	case IssuerFiles:
		if c.Files.Cert == "" || c.Files.Key == "" {
			fail("files", "issuer %q needs cert and key", IssuerFiles)
		}
	default:
		fail("issuer", "%q is none of %q, %q and %q", c.Issuer, IssuerACME, IssuerInternal, IssuerFiles)
	}
	if c.RootFile != "" && c.Issuer != IssuerInternal {
		fail("root_file", "issuer %q has no root of its own", c.Issuer)
	}
	// sun_path has 108 bytes, unix(7).
	if c.Metrics != "" && (!filepath.IsAbs(c.Metrics) || len(c.Metrics) > 107) {
		fail("metrics", "%q is not the absolute path of a unix socket, at most 107 bytes", c.Metrics)
	}
	if c.Drain < 0 || time.Duration(c.Drain) > 10*time.Minute {
		fail("drain", "%s is not between 0 and 10m", time.Duration(c.Drain))
	}
	errs = append(errs, c.Vault.validate(), c.Limits.validate())
	return errors.Join(errs...)
}

func (v *Vault) validate() error {
	var errs []error
	host, _, err := net.SplitHostPort(v.Address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		errs = append(errs, fmt.Errorf("vault.address: %q is not a loopback address with a port", v.Address))
	}
	for key, file := range map[string]string{"ca_file": v.CAFile, "cert_file": v.CertFile, "key_file": v.KeyFile} {
		if file == "" {
			errs = append(errs, fmt.Errorf("vault.%s: is missing: Vault is reached by mutual TLS only", key))
		}
	}
	return errors.Join(errs...)
}

func (l *Limits) validate() error {
	var errs []error
	if l.RequestsPerSecond < 0 || l.RequestsPerSecond > 0 && l.Burst < 1 {
		errs = append(errs, fmt.Errorf("limits: requests_per_second %g with burst %d lets nobody in", l.RequestsPerSecond, l.Burst))
	}
	if l.Concurrent < 0 {
		errs = append(errs, fmt.Errorf("limits.concurrent: %d is negative", l.Concurrent))
	}
	if l.BodyBytes < 1<<10 || l.BodyBytes > 32<<20 {
		errs = append(errs, fmt.Errorf("limits.body_bytes: %d is not between 1 KiB and 32 MiB, Vault's own limit", l.BodyBytes))
	}
	if l.HeaderBytes < 4<<10 || l.HeaderBytes > 1<<20 {
		errs = append(errs, fmt.Errorf("limits.header_bytes: %d is not between 4 KiB and 1 MiB", l.HeaderBytes))
	}
	return errors.Join(errs...)
}

func checkAddress(a string) error {
	if name, ok := strings.CutPrefix(a, fdPrefix); ok {
		if name == "" {
			return fmt.Errorf("%q names no socket", a)
		}
		return nil
	}
	if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
		return fmt.Errorf("%q is neither host:port nor %sname", a, fdPrefix)
	}
	return nil
}
