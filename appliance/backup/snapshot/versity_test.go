package snapshot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"strongroom.example/appliance/base/proc"
)

// The key pair of the tests' store.
const (
	testAccess = "test-access"
	testSecret = "test-secret-key"
)

// versity is a real S3 server (versitygw on a directory) with versions and
// object lock.
type versity struct {
	addr string
	data string // holds the buckets
	core *minio.Core
	set  *proc.Set
}

// startVersity starts one; it is gone when the test ends. The test is skipped
// where bin/versitygw is missing, or fails if STRONGROOM_REAL=1, as under make
// test.
func startVersity(t testing.TB) *versity {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an S3 server")
	}
	bin := filepath.Join("..", "..", "..", "bin", "versitygw")
	if _, err := os.Stat(bin); err != nil {
		if os.Getenv("STRONGROOM_REAL") == "1" {
			t.Fatalf("%s is missing: run make tools", bin)
		}
		t.Skipf("%s is missing: run make tools", bin)
	}
	dir := t.TempDir()
	v := &versity{addr: freeAddress(t), data: filepath.Join(dir, "data"), set: proc.NewSet()}
	for _, d := range []string{"data", "versions"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := v.set.Close(); err != nil {
			t.Error(err)
		}
	})
	child, err := v.set.Start(proc.Spec{
		Name: "versitygw", Path: bin, LogFile: filepath.Join(dir, "log"),
		Args: []string{"--port", v.addr, "--quiet", "posix", "--versioning-dir", filepath.Join(dir, "versions"), v.data},
		Env:  []string{"ROOT_ACCESS_KEY_ID=" + testAccess, "ROOT_SECRET_ACCESS_KEY=" + testSecret, "VGW_VIRTUAL_DOMAIN=localhost"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := child.WaitUp(ctx, v.listening); err != nil {
		t.Fatal(err)
	}
	s := v.open(t, S3Config{Bucket: "any"})
	v.core = s.core
	return v
}

// listening returns once the server accepts connections.
func (v *versity) listening(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", v.addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	// Below those that Linux gives to whoever asks for any, so that nobody gets it
	// by chance before it is used.
	const first, count = 16_000, 4_000
	for range count {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(count))))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

// bucket makes a bucket. locks enables object lock, which brings versions.
func (v *versity) bucket(t testing.TB, name string, locks bool) {
	t.Helper()
	if err := v.core.MakeBucket(t.Context(), name, minio.MakeBucketOptions{ObjectLocking: locks}); err != nil {
		t.Fatal(err)
	}
}

// open is a destination in the store, or behind cfg.Endpoint where given.
func (v *versity) open(t testing.TB, cfg S3Config) *S3 {
	t.Helper()
	if cfg.Endpoint == "" {
		cfg.Endpoint = "http://" + v.addr
	}
	if cfg.Retries == 0 {
		cfg.Retries = 1
	}
	cfg.AccessKey, cfg.SecretKey = cmp.Or(cfg.AccessKey, testAccess), cmp.Or(cfg.SecretKey, testSecret)
	s, err := NewS3(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
