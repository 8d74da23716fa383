package credtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/command"
	"strongroom.example/appliance/base/pause"
)

// Bench is a machine that seals, and what happens to it.
type Bench interface {
	// Run is what credential.Run wants.
	Run(ctx context.Context, stdin []byte, args ...string) ([]byte, error)
	// SecureBootUpdate changes PCR 7.
	SecureBootUpdate()
	// PowerCuts are three, each after a credential was opened.
	PowerCuts()
	// OtherTPM puts another one in.
	OtherTPM()
	// NoTPM takes it out.
	NoTPM()
	// OtherHostKey makes a new one.
	OtherHostKey()
}

var (
	_ Bench = (*Machine)(nil)
	_ Bench = (*Real)(nil)
)

// SecureBootUpdate changes PCR 7.
func (m *Machine) SecureBootUpdate() { m.TPM.PCR7++ }

// PowerCuts put the TPM into lockout.
func (m *Machine) PowerCuts() { m.TPM.Lockout = true }

// OtherTPM puts another one into the machine.
func (m *Machine) OtherTPM() { m.TPM = &TPM{ID: m.TPM.ID + 1, Firmware: true} }

// NoTPM takes it out.
func (m *Machine) NoTPM() { m.TPM = nil }

// OtherHostKey makes a new one.
func (m *Machine) OtherHostKey() { m.HostKey++ }

// Real is this machine's systemd-creds with a host's key and a TPM (swtpm) of
// the test's own. It says that the firmware knows the TPM, as a TPM on a network
// address is none of this machine's firmware.
type Real struct {
	t     *testing.T
	dir   string
	port  int
	swtpm *exec.Cmd
}

// NewReal starts it, and skips the test where it cannot.
func NewReal(t *testing.T) *Real {
	t.Helper()
	for _, p := range []string{"systemd-creds", "swtpm", "tpm2_pcrextend", "tpm2_flushcontext"} {
		if err := command.New(t.Context(), p).Err; err != nil {
			t.Skipf("there is no %s: scripts/test-deps installs it, as root", p)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("systemd-creds makes a host's key for root alone")
	}
	r := &Real{t: t, dir: t.TempDir()}
	t.Cleanup(r.stop)
	r.start()
	return r
}

// Address is where the TPM answers.
func (r *Real) Address() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// Control is where it takes its controls.
func (r *Real) Control() string { return fmt.Sprintf("127.0.0.1:%d", r.port+1) }

func (r *Real) state() string { return filepath.Join(r.dir, "tpm") }

func (r *Real) start() {
	r.t.Helper()
	if err := os.MkdirAll(r.state(), 0o700); err != nil {
		r.t.Fatal(err)
	}
	for range 10 {
		if r.port == 0 {
			r.port = freePair(r.t)
		}
		var said bytes.Buffer
		r.swtpm = command.New(context.Background(), "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+r.state(),
			"--server", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1,disconnect", r.port),
			"--ctrl", fmt.Sprintf("type=tcp,port=%d,bindaddr=127.0.0.1", r.port+1),
			"--flags", "not-need-init,startup-clear")
		r.swtpm.Stderr = &said
		if err := r.swtpm.Start(); err != nil {
			r.t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = r.swtpm.Wait(); close(ended) }()
		if r.answers(ended) {
			return
		}
		_ = r.swtpm.Process.Kill()
		<-ended
		r.t.Logf("swtpm does not answer on port %d: %s", r.port, said.String())
		r.port = 0 // somebody else has it
	}
	r.t.Fatal("swtpm does not start")
}

// answers waits until the TPM does. A probe of its port is a connection, which
// it serves one at a time.
func (r *Real) answers(ended <-chan struct{}) bool {
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	for {
		c, err := net.Dial("tcp", r.Address())
		if err == nil {
			_ = c.Close()
			return true
		}
		select {
		case <-ended:
			return false
		default:
		}
		if pause.For(ctx, 5*time.Millisecond) != nil {
			return false
		}
	}
}

func (r *Real) stop() {
	if r.swtpm != nil && r.swtpm.Process != nil {
		_ = r.swtpm.Process.Kill()
	}
}

// freePair is a port that is free with the next one, where the TPM's library
// looks for its controls.
func freePair(t *testing.T) int {
	t.Helper()
	for range 100 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		_ = a.Close()
		if err == nil {
			_ = b.Close()
			return port
		}
	}
	t.Fatal("no two free ports")
	return 0
}

func (r *Real) tcti() string { return fmt.Sprintf("swtpm:host=127.0.0.1,port=%d", r.port) }

func (r *Real) env() []string {
	return []string{"SYSTEMD_TPM2_DEVICE=" + r.tcti(), "SYSTEMD_CREDENTIAL_SECRET=" + filepath.Join(r.dir, "host.secret")}
}

// Run is what credential.Run wants.
func (r *Real) Run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	if args[0] == "has-tpm2" {
		return []byte("yes\n"), nil
	}
	var out, stderr bytes.Buffer
	c := command.New(ctx, "systemd-creds", args...)
	c.Env = command.Environ(r.env()...)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), &out, &stderr
	err := c.Run()
	r.Flush()
	if err != nil {
		return out.Bytes(), fmt.Errorf("systemd-creds %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out.Bytes(), nil
}

// Flush does what the kernel's resource manager does after each user.
func (r *Real) Flush() {
	for _, what := range []string{"-l", "-t", "-s"} {
		c := command.New(context.Background(), "tpm2_flushcontext", what)
		c.Env = command.Environ("TPM2TOOLS_TCTI=" + r.tcti())
		_ = c.Run() // fails where no TPM answers, which the test then sees
	}
}

// SecureBootUpdate extends PCR 7.
func (r *Real) SecureBootUpdate() {
	r.t.Helper()
	r.tool("tpm2_pcrextend", fmt.Sprintf("7:sha256=%064d", 1))
}

// EndLockout does what time does.
func (r *Real) EndLockout() {
	r.t.Helper()
	r.tool("tpm2_dictionarylockout", "--clear-lockout")
}

func (r *Real) tool(name string, args ...string) {
	r.t.Helper()
	c := command.New(r.t.Context(), name, args...)
	c.Env = command.Environ("TPM2TOOLS_TCTI=" + r.tcti())
	if out, err := c.CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %v: %s", name, err, out)
	}
	r.Flush()
}

func (r *Real) kill() {
	r.t.Helper()
	_ = r.swtpm.Process.Kill()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	for {
		c, err := net.Dial("tcp", r.Address())
		if err != nil {
			return
		}
		_ = c.Close()
		if err := pause.For(ctx, 5*time.Millisecond); err != nil {
			r.t.Fatalf("swtpm is still there: %v", err)
		}
	}
}

// PowerCuts kills the TPM three times, each time after something was opened.
func (r *Real) PowerCuts() {
	r.t.Helper()
	const name = "cut"
	sealed, err := r.Run(r.t.Context(), []byte("x y"), "encrypt", "--with-key=tpm2", "--tpm2-pcrs=23", "--name="+name, "-", "-")
	if err != nil {
		r.t.Fatal(err)
	}
	for range 3 {
		if _, err := r.Run(r.t.Context(), sealed, "decrypt", "--name="+name, "-", "-"); err != nil {
			r.t.Fatal(err)
		}
		r.kill()
		r.start()
	}
}

// OtherTPM starts one without a past.
func (r *Real) OtherTPM() {
	r.t.Helper()
	r.kill()
	if err := os.RemoveAll(r.state()); err != nil {
		r.t.Fatal(err)
	}
	r.start()
}

// NoTPM ends it.
func (r *Real) NoTPM() { r.t.Helper(); r.kill() }

// OtherHostKey makes a new one.
func (r *Real) OtherHostKey() {
	r.t.Helper()
	if err := os.Remove(filepath.Join(r.dir, "host.secret")); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.Run(r.t.Context(), []byte("x"), "encrypt", "--with-key=host", "--name=x", "-", "-"); err != nil {
		r.t.Fatal(err)
	}
}
