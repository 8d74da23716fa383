package snapshot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"strongroom.example/appliance/base/pause"
)

// S3Config says where a bucket is and how to speak to it.
type S3Config struct {
	// Endpoint is a URL without a path, such as
	// https://fsn1.your-objectstorage.com. Plain http is for loopback only. The bucket's
	// name in it, as some stores print it, is passed over.
	Endpoint string
	// Region is the one to sign for. Where empty it is read off Hetzner's host
	// names, and us-east-1 otherwise.
	Region string
	Bucket string
	// Prefix goes before every object name; may be empty.
	Prefix    string
	AccessKey string
	SecretKey string
	// SessionToken is of a key pair that ends soon; mostly empty.
	SessionToken string
	// VirtualHost puts the bucket's name before the host's, as some stores want it, and
	// not into the path.
	VirtualHost bool
	// CAFile holds PEM certificates to trust instead of the system's.
	CAFile string
	// LockFor is how long object lock keeps each object; the bucket's own
	// default when zero. LockMode is GOVERNANCE (the default) or COMPLIANCE.
	LockFor  time.Duration
	LockMode string

	PartSize int           // bytes; 8 MiB when zero, at least 5 MiB
	Stall    time.Duration // how long a connection may be silent; 30 s when zero
	Retries  int           // tries of one request; 5 when zero
	Now      func() time.Time

	dial  func(ctx context.Context, network, addr string) (net.Conn, error) // net.Dialer's when nil
	wait  func(ctx context.Context, d time.Duration) error                  // pause.For when nil
	moved *atomic.Int64                                                     // bytes that its connections have sent and received
}

const (
	// defaultPart allows objects of 80 GB in the 10,000 parts that S3 has.
	defaultPart    = 8 << 20
	minPart        = 5 << 20
	hetznerDomain  = ".your-objectstorage.com"
	defaultS3Stall = 30 * time.Second
)

// NewS3 opens a bucket as a destination. It does not connect yet: see Probe.
func NewS3(cfg S3Config) (*S3, error) {
	u, err := cfg.fill()
	if err != nil {
		return nil, fmt.Errorf("s3 destination: %w", err)
	}
	transport, err := cfg.transport()
	if err != nil {
		return nil, fmt.Errorf("s3 destination: %w", err)
	}
	lookup := minio.BucketLookupPath // works with bucket names that have dots
	if cfg.VirtualHost {
		lookup = minio.BucketLookupDNS
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds:        credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, cfg.SessionToken),
		Secure:       u.Scheme == "https",
		Transport:    transport,
		Region:       cfg.Region,
		MaxRetries:   cfg.Retries,
		BucketLookup: lookup,
	})
	if err != nil {
		return nil, fmt.Errorf("s3 destination: %w", err)
	}
	s := &S3{core: core, cfg: cfg, name: cfg.name(), prefix: strings.Trim(cfg.Prefix, "/")}
	if s.prefix != "" {
		s.prefix += "/"
	}
	return s, nil
}

// name tells the bucket in messages and states.
func (c S3Config) name() string {
	name := "s3:"
	// One that is no URL is refused by fill, and not quoted.
	if u, err := c.endpoint(); err == nil {
		name += u.Host + "/"
	}
	name += c.Bucket
	if p := strings.Trim(c.Prefix, "/"); p != "" {
		name += "/" + p
	}
	return name
}

// bucketHosts are stores whose consoles print the bucket before the host.
var bucketHosts = []string{hetznerDomain, ".amazonaws.com", ".digitaloceanspaces.com", ".backblazeb2.com", ".wasabisys.com", ".scw.cloud", ".r2.cloudflarestorage.com"}

// endpoint is the URL without the bucket, which stores' consoles print before the host or
// behind it.
func (c S3Config) endpoint() (*url.URL, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || c.Bucket == "" {
		return u, err
	}
	// Elsewhere a host may be called as the bucket is.
	if host, found := strings.CutPrefix(u.Host, c.Bucket+"."); found && slices.ContainsFunc(bucketHosts, func(d string) bool { return strings.HasSuffix(host, d) && host != d[1:] }) {
		u.Host = host
	}
	if strings.Trim(u.Path, "/") == c.Bucket {
		u.Path = ""
	}
	return u, nil
}

// fill validates and sets defaults. All faults are reported together.
func (c *S3Config) fill() (*url.URL, error) {
	var errs []error
	u, err := c.endpoint()
	switch {
	case err != nil:
		// url.Error quotes the URL, which could hold user:password.
		errs = append(errs, errors.New("endpoint: not a URL"))
		u = &url.URL{}
	case u.Host != "" && u.Path != "" && u.Path != "/":
		errs = append(errs, fmt.Errorf("endpoint: %q: it has a path, which no S3 request can be signed for; a bucket belongs to bucket, what its objects begin with to prefix", u.Redacted()))
	case u.Host == "" || u.User != nil || u.RawQuery != "":
		errs = append(errs, fmt.Errorf("endpoint: %q: want https://HOST[:PORT]", u.Redacted()))
	case u.Scheme == "http" && !loopback(u.Hostname()):
		errs = append(errs, fmt.Errorf("endpoint: %q: plain http is only for loopback", u.Redacted()))
	case u.Scheme != "https" && u.Scheme != "http":
		errs = append(errs, fmt.Errorf("endpoint: %q: want https", u.Redacted()))
	}
	if c.Bucket == "" || strings.Contains(c.Bucket, "/") {
		errs = append(errs, fmt.Errorf("bucket: bad name %q", c.Bucket))
	}
	if p := strings.Trim(c.Prefix, "/"); p != "" && checkName(p) != nil {
		errs = append(errs, fmt.Errorf("prefix: bad name %q", c.Prefix))
	}
	if c.AccessKey == "" || c.SecretKey == "" {
		errs = append(errs, errors.New("credentials: access key or secret key is empty"))
	}
	switch c.LockMode {
	case "":
		c.LockMode = string(minio.Governance)
	case string(minio.Governance), string(minio.Compliance):
	default:
		errs = append(errs, fmt.Errorf("lock mode: %q: want GOVERNANCE or COMPLIANCE", c.LockMode))
	}
	if c.LockFor < 0 {
		errs = append(errs, fmt.Errorf("lock time: %s is negative", c.LockFor))
	}
	if c.PartSize == 0 {
		c.PartSize = defaultPart
	}
	if c.PartSize < minPart {
		errs = append(errs, fmt.Errorf("part size: %d bytes, S3 wants at least %d", c.PartSize, minPart))
	}
	if c.Region == "" {
		c.Region = "us-east-1"
		if location, ok := strings.CutSuffix(u.Hostname(), hetznerDomain); ok {
			c.Region = location
		}
	}
	if c.Stall == 0 {
		c.Stall = defaultS3Stall
	}
	if c.Retries == 0 {
		c.Retries = 5
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.moved = new(atomic.Int64)
	return u, errors.Join(errs...)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c *S3Config) transport() (http.RoundTripper, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %q: no certificate in it", c.CAFile)
		}
	}
	dialer := &net.Dialer{Timeout: c.Stall, KeepAlive: 15 * time.Second}
	dial := c.dial
	if dial == nil {
		dial = dialer.DialContext
	}
	wait := c.wait
	if wait == nil {
		wait = pause.For
	}
	return &retryAfter{wait, &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{conn, c.Stall, c.moved}, nil
		},
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   c.Stall,
		ResponseHeaderTimeout: 2 * c.Stall, // completing a large upload takes its time
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       time.Minute,
		// A body that was compressed on the way is not the object.
		DisableCompression: true,
	}}, nil
}

// retryAfter waits as long as a busy store asks for before its refusal is told, after which
// the client tries again by itself: it knows nothing of Retry-After (RFC 9110, 10.2.3).
type retryAfter struct {
	wait func(ctx context.Context, d time.Duration) error
	next http.RoundTripper
}

// maxRetryAfter is short beside the time in which a place must have moved something.
const maxRetryAfter = 30 * time.Second

func (p *retryAfter) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusTooManyRequests {
		return resp, err
	}
	// A date, which it may be instead, is by another's clock.
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		if err := p.wait(r.Context(), min(time.Duration(min(n, 3600))*time.Second, maxRetryAfter)); err != nil {
			return nil, errors.Join(err, resp.Body.Close())
		}
	}
	return resp, nil
}

// stallConn fails when a peer is silent for too long: a transfer may take
// hours, but not without moving.
type stallConn struct {
	net.Conn
	stall time.Duration
	moved *atomic.Int64
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.moved.Add(int64(n))
	return n, err
}

func (c *stallConn) Write(p []byte) (int, error) {
	// Both deadlines: the read of the answer has been pending since the
	// connection fell idle. It gets the time that a response may take.
	now := time.Now()
	if err := c.SetWriteDeadline(now.Add(c.stall)); err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(now.Add(2 * c.stall)); err != nil {
		return 0, err
	}
	// In pieces: a slow store takes a minute for what is written at once.
	for n := 0; ; {
		m, err := c.Conn.Write(p[n:min(len(p), n+writePiece)])
		c.moved.Add(int64(m))
		if n += m; err != nil || n == len(p) {
			return n, err
		}
		if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
			return n, err
		}
		if err := c.SetReadDeadline(time.Now().Add(2 * c.stall)); err != nil {
			return n, err
		}
	}
}

const writePiece = 64 << 10 // bytes

// unsupported tells whether a store does not know a question, or has nothing
// set that it asks for.
func unsupported(err error) bool {
	switch minio.ToErrorResponse(err).Code {
	case "NotImplemented", "MethodNotAllowed",
		"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError",
		"InvalidRequest": // "Bucket is missing Object Lock Configuration"
		return true
	}
	return false
}

// s3Error adds this package's sentinel to the client's error.
func s3Error(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var sentinel error
	var resp minio.ErrorResponse
	var netErr net.Error
	switch {
	case errors.As(err, &resp):
		sentinel = s3Code(resp)
	case errors.As(err, &netErr), errors.Is(err, io.ErrUnexpectedEOF):
		sentinel = ErrUnreachable
	}
	switch {
	case sentinel == nil:
		return err
	case sentinel == ErrRegion && resp.Region != "": //nolint:errorlint // it is none that wraps
		return fmt.Errorf("%w, %q: %w", sentinel, resp.Region, err)
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}

func s3Code(r minio.ErrorResponse) error {
	if strings.HasPrefix(r.Code, "KMS") {
		return ErrStoreKey
	}
	switch r.Code {
	case "RequestTimeTooSkewed", "RequestExpired":
		return ErrSkew
	case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException":
		return ErrRegion
	case "InvalidObjectState":
		return ErrArchived
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidClientTokenId", "XAdminUserNotFound":
		return ErrDenied
	case "NoSuchBucket":
		return ErrPlace
	case "NoSuchKey", "NoSuchVersion":
		return ErrNotFound
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled":
		return ErrDenied
	case "ObjectLocked", "InvalidRetentionPeriod":
		return ErrLocked
	case "QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "ServiceQuotaExceededException":
		return ErrFull
	case "NotImplemented", "MethodNotAllowed", "InvalidBucketState":
		return ErrUnsupported
	case "SlowDown", "ServiceUnavailable", "TooManyRequests":
		return ErrBusy
	case "InternalError", "RequestTimeout":
		return ErrUnreachable // also inside a 200
	}
	switch r.StatusCode {
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect:
		return ErrRegion
	case http.StatusInsufficientStorage:
		return ErrFull
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusForbidden, http.StatusUnauthorized:
		return ErrDenied
	}
	// A HEAD's answer has no code.
	if r.StatusCode == http.StatusTooManyRequests || r.StatusCode == http.StatusServiceUnavailable {
		return ErrBusy
	}
	if r.StatusCode >= 500 {
		return ErrUnreachable
	}
	return nil
}
