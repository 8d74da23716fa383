// Package vps_test installs the appliance on a Debian that has really booted,
// and looks at it from inside and from outside.
package vps_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age/agessh"
	"golang.org/x/sys/unix"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/test/vaulttest"
)

const (
	domain  = "vault.example.com"
	inside  = "10.99.0.2"
	inside6 = "fd99::2"
	// patience is for one command, or one condition, on a loaded machine. It only
	// ends what hangs: how long something takes is logged, and for benchmarks.
	patience = 10 * time.Minute
)

// machine is a VPS of scripts/vps.
type machine struct {
	name   string
	script string
	disk   string // the folder of its root file system
	// known is a key that may log in as root, and so opens the escrow.
	key string
}

// boot gives a fresh machine with installer, Vault and an authorized key in
// /root. It skips where containers can't be booted.
func boot(t *testing.T, name string) *machine {
	t.Helper()
	return bootSuite(t, name, "bookworm")
}

// bootSuite is boot for a release of Debian.
func bootSuite(t *testing.T, name, suite string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: a machine can't be booted")
	}
	if testing.Short() {
		t.Skip("-short: no machine is booted")
	}
	installer, vault := vaulttest.Bin(t, "strongroom-installer"), vaulttest.Bin(t, "vault")
	root := vaulttest.Root(t)
	needRoom(t, root)
	m := &machine{name: name + "-" + strconv.Itoa(os.Getpid()%10000), script: filepath.Join(root, "scripts", "vps")}
	m.run(t, "down", m.name) // of a test that was killed
	t.Cleanup(func() { m.run(t, "down", m.name) })
	out := m.must(t, "up", m.name, suite)
	m.disk = filepath.Join(strings.TrimSpace(out), "root")
	m.must(t, "put", m.name, installer, "/root/strongroom-installer")
	m.must(t, "put", m.name, vault, "/root/vault")
	dir := t.TempDir()
	m.key = filepath.Join(dir, "id_ed25519")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", m.key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	pub, err := os.ReadFile(m.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "/root/.ssh/authorized_keys", pub)
	return m
}

// needRoom says at once what would else be a riddle: the machines share this
// disk, and warn, as they should, when it is nearly full.
func needRoom(t *testing.T, dir string) {
	t.Helper()
	const most, least = 78, 6 // percent; GiB
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	used := 100 * float64(fs.Blocks-fs.Bfree) / float64(fs.Blocks-fs.Bfree+fs.Bavail)
	free := float64(fs.Bavail) * float64(fs.Bsize) / (1 << 30)
	if used > most || free < least {
		t.Fatalf("the disk of %s is used to %.0f%%, %.1f GiB are free: the machines on it need %d%% at most and %d GiB", dir, used, free, most, least)
	}
}

// result of a command.
type result struct {
	code   int
	stdout string
	stderr string
	took   time.Duration
}

func (r result) String() string { return r.stdout + r.stderr }

func (m *machine) run(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.script, args...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), fmt.Sprint("STRONGROOM_VPS_OWNER=", os.Getpid()))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	r := result{stdout: stdout.String(), stderr: stderr.String(), took: time.Since(start)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%v: %v\n%s", args, err, r)
	}
	return r
}

func (m *machine) must(t testing.TB, args ...string) string {
	t.Helper()
	r := m.run(t, args...)
	if r.code != 0 {
		t.Fatalf("%v: exit code %d\n%s", args, r.code, r)
	}
	return r.stdout
}

// in runs a command inside, as root.
func (m *machine) in(t testing.TB, args ...string) result {
	t.Helper()
	return m.run(t, append([]string{"exec", m.name}, args...)...)
}

// sh runs a script inside that must succeed.
func (m *machine) sh(t testing.TB, script string) string {
	t.Helper()
	return m.must(t, "exec", m.name, "sh", "-c", script)
}

func (m *machine) write(t testing.TB, path string, content []byte) {
	t.Helper()
	p := filepath.Join(m.disk, path)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.disk, path))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var installArgs = []string{"--domain", domain, "--tls", "internal", "--vault-binary", "/root/vault", "--allow-old-vault"}

// installer runs it with a verb and the usual flags.
func (m *machine) installer(t testing.TB, verb string, more ...string) result {
	t.Helper()
	args := append([]string{"/root/strongroom-installer", verb}, installArgs...)
	if verb == "install" {
		args = append(args, "--yes")
	}
	return m.in(t, append(args, more...)...)
}

// nspawn is the process that holds the network around the machine.
func (m *machine) nspawn() (string, error) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(m.disk), "nspawn.pid"))
	return strings.TrimSpace(string(b)), err
}

// namespace is nspawn for those who can't go on without.
func (m *machine) namespace(t testing.TB) string {
	t.Helper()
	pid, err := m.nspawn()
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// outside dials from the network around the machine.
func (m *machine) outside(ctx context.Context, network, addr string) (net.Conn, error) {
	pid, err := m.nspawn()
	if err != nil {
		return nil, err
	}
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	type result struct {
		c   net.Conn
		err error
	}
	got := make(chan result, 1)
	go func() {
		// Never unlocked: the thread has changed its network, and ends with
		// this goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			got <- result{nil, err}
			return
		}
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		got <- result{c, err}
	}()
	r := <-got
	return r.c, r.err
}

// open says whether a TCP port answers from outside. One that should is given
// the time for it: the firewall drops packets, so silence alone tells nothing.
func (m *machine) open(t testing.TB, ip string, port int, should bool) bool {
	t.Helper()
	within := 500 * time.Millisecond
	if should {
		within = patience
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	c, err := m.outside(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// backupsIdle waits until no job of the backups runs.
func (m *machine) backupsIdle(t *testing.T) {
	t.Helper()
	m.waitFor(t, patience, "systemctl show -p ActiveState --value strongroom-snapshot strongroom-snapshot-soon strongroom-verify | grep activating || true", "")
}

// undisturbed has look look at what it does, and again if the snapshot's timer,
// which follows the clock on the wall, has fired meanwhile.
func (m *machine) undisturbed(t *testing.T, look func() bool) bool {
	t.Helper()
	const fired = "systemctl show -p LastTriggerUSec --value strongroom-snapshot.timer"
	for {
		m.backupsIdle(t)
		before := m.sh(t, fired)
		if look() {
			return true
		}
		if m.sh(t, fired) == before {
			return false
		}
	}
}

// client speaks HTTPS to the machine from outside, and trusts roots.
func (m *machine) client(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				return m.outside(ctx, network, net.JoinHostPort(inside, port))
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// vault makes one call from outside and decodes the answer.
func (m *machine) vault(t testing.TB, c *http.Client, method, path, token string, body any) (int, map[string]any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, "https://"+domain+"/v1/"+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	var out map[string]any
	if raw, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	} else if len(raw) > 0 {
		// A refusal of the front's own need not be JSON.
		_ = json.Unmarshal(raw, &out)
	}
	return resp.StatusCode, out
}

// escrow opens a file of the escrow with the operator's SSH key.
func (m *machine) escrow(t testing.TB, name string) string {
	t.Helper()
	key, err := os.ReadFile(m.key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := agessh.ParseIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	// Read inside: a test may have mounted something there.
	plain, err := escrow.Open([]byte(m.sh(t, "cat /var/lib/strongroom/escrow/"+name)), id)
	if err != nil {
		t.Fatalf("escrow %s: %v", name, err)
	}
	return string(plain)
}
