package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/vaulttest"
)

// dbServer is a real database server on loopback with TLS, in a folder of its
// own, as Debian's package has it.
type dbServer struct {
	dir    string
	port   int
	caFile string // PEM
	// admin runs SQL as the superuser over a local socket, and returns rows, one
	// a line, columns separated by tabs.
	admin func(t *testing.T, sql string) string
	// try is admin that may fail.
	try func(ctx context.Context, sql string) (string, error)
}

// serverUser is whom a server runs as: the package's user where the tests run
// as root, whom both refuse.
func serverUser(t *testing.T, name string) (cred *syscall.Credential, uid, gid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil, os.Getuid(), os.Getgid()
	}
	u, err := osuser.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err = strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, uid, gid
}

// missing skips a test, or fails it where everything has to be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("STRONGROOM_REAL") == "1" && os.Geteuid() == 0 {
		t.Fatalf("%s is not installed: run scripts/test-deps", what)
	}
	t.Skipf("%s is not installed: run scripts/test-deps as root", what)
}

// serverDir is a folder with a certificate for 127.0.0.1, all of the server's.
func serverDir(t *testing.T, uid, gid int) (dir, caFile string) {
	t.Helper()
	dir = vaulttest.Dir(t)
	caFile = writeCertificate(t, dir)
	for _, f := range []string{"", "server.crt", "server.key"} {
		if err := os.Chown(filepath.Join(dir, f), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return dir, caFile
}

// writeCertificate makes an authority and a server's certificate.
func writeCertificate(t *testing.T, dir string) (caFile string) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.crt": {Type: "CERTIFICATE", Bytes: caDER}, "server.crt": {Type: "CERTIFICATE", Bytes: der}, "server.key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "ca.crt")
}

// asServer runs a command as the server's user.
func asServer(ctx context.Context, cred *syscall.Credential, dir, stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + dir, "LC_ALL=C.UTF-8"}
	if cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

func freePort(t *testing.T) int {
	t.Helper()
	addr, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// startPostgres starts Debian's PostgreSQL with an empty cluster whose network
// logins need TLS and a password.
func startPostgres(t *testing.T) *dbServer {
	t.Helper()
	cred, uid, gid := serverUser(t, "postgres")
	dir, ca := serverDir(t, uid, gid)
	return runPostgres(t, debianPostgres(t), cred, dir, ca)
}

// debianPostgres is the folder of its programs.
func debianPostgres(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		missing(t, "PostgreSQL")
	}
	return filepath.Dir(found[len(found)-1])
}

// startNewerPostgres is startPostgres of a version that Debian 12 does not have.
func startNewerPostgres(t *testing.T, major string) *dbServer {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skipf("PostgreSQL %s is pinned for amd64 alone", major)
	}
	cred, uid, gid := serverUser(t, "postgres")
	fetched := exec.CommandContext(t.Context(), filepath.Join(vaulttest.Root(t), "scripts", "postgres"), major)
	out, err := fetched.Output()
	if err != nil {
		missing(t, "PostgreSQL "+major)
	}
	dir, ca := serverDir(t, uid, gid)
	// The server's user may not come to where the project lies.
	own := filepath.Join(dir, "server")
	if err := os.CopyFS(own, os.DirFS(filepath.Dir(strings.TrimSpace(string(out))))); err != nil {
		t.Fatal(err)
	}
	return runPostgres(t, filepath.Join(own, "bin"), cred, dir, ca)
}

func runPostgres(t *testing.T, bin string, cred *syscall.Credential, dir, ca string) *dbServer {
	t.Helper()
	s := &dbServer{dir: dir, port: freePort(t), caFile: ca}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	data := filepath.Join(dir, "data")
	if _, err := asServer(ctx, cred, dir, "", filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"); err != nil {
		t.Fatal(err)
	}
	hba := "local all postgres trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		t.Fatal(err)
	}
	startServer(t, cred, dir, filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(s.port), "-k", dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=100", "-c", "ssl=on",
		"-c", "ssl_cert_file="+filepath.Join(dir, "server.crt"), "-c", "ssl_key_file="+filepath.Join(dir, "server.key"))
	psql := filepath.Join(debianPostgres(t), "psql")
	s.try = func(ctx context.Context, sql string) (string, error) {
		return asServer(ctx, cred, dir, sql, psql, "-X", "-q", "-t", "-A", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", dir, "-p", strconv.Itoa(s.port), "-U", "postgres", "-d", "bikes")
	}
	waitSQL(t, ctx, func(ctx context.Context) error {
		_, err := asServer(ctx, cred, dir, "CREATE ROLE bikes_owner NOLOGIN; CREATE DATABASE bikes OWNER bikes_owner",
			psql, "-X", "-q", "-h", dir, "-p", strconv.Itoa(s.port), "-U", "postgres", "-d", "postgres", "-f", "-")
		return err
	})
	s.admin = adminOf(s)
	s.admin(t, "SET ROLE bikes_owner; CREATE TABLE station_history (name text, bikes int); INSERT INTO station_history VALUES ('Harbour', 7)")
	return s
}

func adminOf(s *dbServer) func(*testing.T, string) string {
	return func(t *testing.T, sql string) string {
		t.Helper()
		out, err := s.try(t.Context(), sql)
		if err != nil {
			t.Fatalf("%s\n%v", sql, err)
		}
		return out
	}
}

// startServer runs a server until the test ends.
func startServer(t *testing.T, cred *syscall.Credential, dir, path string, args ...string) {
	t.Helper()
	set := proc.NewSet()
	if cred != nil {
		// In place, and killed with us: a child of its own would outlive both.
		path, args = "/usr/bin/setpriv", append([]string{fmt.Sprintf("--reuid=%d", cred.Uid), fmt.Sprintf("--regid=%d", cred.Gid), "--clear-groups", "--pdeathsig", "KILL", "--", path}, args...)
	}
	_, err := set.Start(proc.Spec{Name: filepath.Base(path), Path: path, Args: args, LogFile: filepath.Join(dir, "log"), Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Log(err)
		}
		if t.Failed() {
			if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil {
				lines := strings.Split(strings.TrimSpace(string(log)), "\n")
				t.Logf("end of the database's log:\n%s", strings.Join(lines[max(len(lines)-15, 0):], "\n"))
			}
		}
	})
}

func userName(t *testing.T, uid uint32) string {
	t.Helper()
	u, err := osuser.LookupId(strconv.Itoa(int(uid)))
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

func waitSQL(t *testing.T, ctx context.Context, f func(context.Context) error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the database: waited in vain: %v", err)
		case <-tick.C:
		}
	}
}

// docBlock is the code of a page after the comment <!-- test: name -->.
func docBlock(t *testing.T, page, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "<!-- test: "+name+" -->\n```")
	if !ok {
		t.Fatalf("docs/%s has no block %q", page, name)
	}
	_, rest, _ = strings.Cut(rest, "\n")
	code, _, ok := strings.Cut(rest, "\n```")
	if !ok {
		t.Fatalf("docs/%s: block %q has no end", page, name)
	}
	return code
}
