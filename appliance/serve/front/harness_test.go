package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"strongroom.example/appliance/serve/localtls"
	"strongroom.example/config"
)

// patience ends what hangs. How long something takes is for benchmarks.
const patience = 3 * time.Minute

// childEnv makes the test's own binary run a front, which needs a process of
// its own: Caddy's state is global, and a stop must be seen from outside.
const childEnv = "STRONGROOM_TEST_FRONT_CONFIG"

func TestMain(m *testing.M) {
	file := os.Getenv(childEnv)
	if file == "" {
		os.Exit(m.Run())
	}
	// What systemd does with LISTEN_PID, and exec.Cmd cannot.
	if os.Getenv("LISTEN_FDS") != "" {
		os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := config.LoadFront(file)
	if err == nil {
		err = Run(ctx, cfg, Hooks{Ready: func(alive func(context.Context) error) {
			if err := alive(ctx); err != nil {
				fmt.Println("ERROR", err)
			}
			fmt.Println("READY")
		}})
	}
	if err != nil {
		fmt.Println("ERROR", err)
		os.Exit(1)
	}
}

// backend stands in for Vault: a server that asks for the front's certificate
// as Vault's listener does.
type backend struct {
	*httptest.Server
	ca, crt, key string // files for the front
}

func newBackend(t testing.TB, h http.Handler) *backend {
	t.Helper()
	dir := t.TempDir()
	b, err := localtls.New(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(b.ServerCrt, b.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b.CA)
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	v := &backend{Server: s, ca: filepath.Join(dir, "ca"), crt: filepath.Join(dir, "crt"), key: filepath.Join(dir, "key")}
	for file, data := range map[string][]byte{v.ca: b.CA, v.crt: b.ClientCrt, v.key: b.ClientKey} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// testFront is a front in a process of its own.
type testFront struct {
	t      testing.TB
	cmd    *exec.Cmd
	url    string
	client *http.Client
	config Config
	dir    string

	mu   sync.Mutex
	out  bytes.Buffer
	done chan struct{}
	err  error
}

// nextPort counts freePort's ports up, from where a process of its own begins.
var nextPort atomic.Uint32

// freePort is an address that nobody listens on, and that nobody gets by chance
// before it is used: Linux gives ports from 32768 on to whoever asks for any.
func freePort(t testing.TB) string {
	t.Helper()
	const first, count = 10_000, 6_000
	for range count {
		n := (uint32(os.Getpid())*61 + nextPort.Add(1)) % count
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+n))
		if err != nil {
			continue
		}
		defer ln.Close()
		return ln.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

// baseConfig is a front with the internal CA before v.
func baseConfig(t testing.TB, v *backend) Config {
	t.Helper()
	dir := t.TempDir()
	c := config.DefaultFront()
	c.Listen = []string{freePort(t)}
	c.Names = []string{"127.0.0.1", "localhost"}
	c.Issuer = config.TLSInternal
	c.Storage = filepath.Join(dir, "storage")
	c.RootFile = filepath.Join(dir, "root.pem")
	c.Drain = time.Minute
	c.Vault = config.FrontVault{Address: v.Listener.Addr().String(), CAFile: v.ca, CertFile: v.crt, KeyFile: v.key}
	return c
}

// launch starts a front and does not wait for it.
func launch(t testing.TB, c Config, files ...*os.File) *testFront {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "front.toml")
	var b bytes.Buffer
	if err := c.Encode(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &testFront{t: t, config: c, dir: dir, url: "https://" + c.Listen[0], done: make(chan struct{})}
	f.cmd = exec.Command(os.Args[0])
	f.cmd.Env = []string{childEnv + "=" + file}
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	f.cmd.ExtraFiles = files
	f.cmd.Stdout, f.cmd.Stderr = f, f
	return f
}

// Write collects what the process says.
func (f *testFront) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.Write(p)
}

func (f *testFront) output() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.String()
}

func (f *testFront) start(env ...string) *testFront {
	f.t.Helper()
	f.cmd.Env = append(f.cmd.Env, env...)
	if err := f.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() {
		f.err = f.cmd.Wait()
		close(f.done)
	}()
	f.t.Cleanup(func() {
		f.cmd.Process.Kill()
		<-f.done
	})
	return f
}

// waitOutput returns once the process has said want, or fails at its end.
func (f *testFront) waitOutput(want string) {
	f.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(f.output(), want) {
		select {
		case <-tick.C:
		case <-f.done:
			if strings.Contains(f.output(), want) {
				return
			}
			f.t.Fatalf("front ended (%v) without saying %q:\n%s", f.err, want, f.output())
		case <-deadline:
			f.t.Fatalf("front did not say %q:\n%s", want, f.output())
		}
	}
}

// startFront runs a front until it is ready, with a client that trusts it.
func startFront(t testing.TB, c Config) *testFront {
	t.Helper()
	f := launch(t, c).start()
	f.waitOutput("READY\n")
	f.client = f.newClient()
	return f
}

func (f *testFront) newClient() *http.Client {
	f.t.Helper()
	root, err := os.ReadFile(f.config.RootFile)
	if err != nil {
		f.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(root) {
		f.t.Fatal("root file holds no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get asks and gives status, headers and body.
func (f *testFront) get(path string, headers ...string) (*http.Response, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.url+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return f.do(req)
}

func (f *testFront) do(req *http.Request) (*http.Response, string) {
	f.t.Helper()
	res, err := f.client.Do(req)
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s", req.Method, req.URL, err, f.output())
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return res, string(b)
}

// raw sends a request line as it is, which net/http would not, and gives the
// status.
func (f *testFront) raw(line string, headers ...string) int {
	f.t.Helper()
	conf := f.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.NextProtos = []string{"http/1.1"}
	c, err := tls.Dial("tcp", f.config.Listen[0], conf)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", line)
	for i := 0; i+1 < len(headers); i += 2 {
		fmt.Fprintf(c, "%s: %s\r\n", headers[i], headers[i+1])
	}
	fmt.Fprint(c, "\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		f.t.Fatalf("%s: %v", line, err)
	}
	res.Body.Close()
	return res.StatusCode
}
