package vps_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/appliance/serve/kms"
	layout "strongroom.example/config/machine"
	"strongroom.example/test/vaulttest"
)

// TestUnsealWithTPM starts the KMS's own unit with a master key that is sealed by
// a TPM: through a Secure Boot update, through power cuts and the lockout that
// they bring, and with another TPM, until the escrow's key is put back. PID 1 is
// the one that opens it. The TPM is swtpm, outside; nothing else is installed.
func TestUnsealWithTPM(t *testing.T) {
	t.Parallel()
	r := credtest.NewReal(t)
	libs := tpmLibraries(t)
	m := boot(t, "tpm")
	for _, lib := range libs {
		m.must(t, "put", m.name, lib, lib)
	}
	m.must(t, "put", m.name, vaulttest.Bin(t, "strongroom"), layout.Program)
	port, alone := m.serveTPM(t, r)
	device := fmt.Sprintf("SYSTEMD_TPM2_DEVICE=swtpm:host=10.99.0.1,port=%d", port)
	m.write(t, "/etc/systemd/system.conf.d/tpm.conf", []byte("[Manager]\nManagerEnvironment="+device+"\n"))
	// A TPM on a network address is none of the firmware's.
	m.write(t, "/usr/local/sbin/systemd-creds", []byte("#!/bin/sh\n[ \"$1\" != has-tpm2 ] || { echo yes; exit 0; }\n"+device+" exec /usr/bin/systemd-creds \"$@\"\n"))
	root := vaulttest.Root(t)
	for _, u := range []string{layout.UnitKMS, layout.UnitKMSSocket} {
		b, err := os.ReadFile(filepath.Join(root, "systemd", u))
		if err != nil {
			t.Fatal(err)
		}
		m.write(t, layout.UnitDir+"/"+u, b)
	}
	m.write(t, layout.UnitDir+"/"+layout.UnitKMS+".d/uid.conf", []byte("[Service]\nEnvironment=VAULT_UID=0\n"))
	m.sh(t, "chmod 755 /usr/local/sbin/systemd-creds; ldconfig; groupadd -f vault; mkdir -p -m 700 "+layout.CredentialDir+"; systemctl daemon-reexec")

	k, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "/root/opened", plain)
	imported := func() result {
		// A second user at once would be one too many without the kernel between.
		m.in(t, "systemctl", "stop", layout.UnitKMS)
		alone(func() {})
		return m.in(t, "sh", "-c", "strongroom kms import </root/opened")
	}
	state := func() string {
		return strings.TrimSpace(m.in(t, "systemctl", "is-active", layout.UnitKMS).stdout)
	}
	restart := func(what string) {
		t.Helper()
		alone(func() {})
		if out := m.in(t, "timeout", "60", "systemctl", "restart", layout.UnitKMS); out.code != 0 || state() != "active" {
			t.Fatalf("%s: the KMS is %s: %s\n%s", what, state(), out, m.in(t, "journalctl", "--no-pager", "-n", "40", "-u", layout.UnitKMS))
		}
	}
	status := func(want string) {
		t.Helper()
		out := m.in(t, "strongroom", "status")
		t.Logf("status after %v", out.took)
		if !strings.Contains(out.String(), want) {
			t.Errorf("status does not say %q:\n%s\n%s", want, out, m.in(t, "journalctl", "--no-pager", "-n", "40", "-u", layout.UnitKMS))
		}
	}
	if out := imported(); out.code != 0 || !strings.Contains(out.String(), k.Fingerprint()) {
		t.Fatalf("import: %s", out)
	}
	restart("sealed by the TPM")
	alone(r.SecureBootUpdate)
	restart("after a Secure Boot update")

	alone(r.PowerCuts)
	m.in(t, "systemctl", "stop", layout.UnitKMS)
	m.sh(t, "systemctl start --no-block "+layout.UnitKMS)
	// It is tried again and again.
	m.until(t, "three starts", func() bool {
		n, _ := strconv.Atoi(strings.TrimSpace(m.in(t, "systemctl", "show", "--value", "-p", "NRestarts", layout.UnitKMS).stdout))
		return n >= 3
	})
	if s := state(); s == "active" || s == "failed" {
		t.Errorf("in lockout the KMS is %s", s)
	}
	status("SEALED: the TPM is in dictionary-attack lockout")
	if out := imported(); out.code != 4 || !strings.Contains(out.String(), "leave the machine on") {
		t.Errorf("import in lockout: exit code %d: %s", out.code, out)
	}
	m.sh(t, "systemctl start --no-block "+layout.UnitKMS)
	alone(r.EndLockout)
	m.until(t, "the KMS to start by itself", func() bool { return state() == "active" })

	alone(r.OtherTPM)
	m.in(t, "systemctl", "stop", layout.UnitKMS)
	m.sh(t, "systemctl start --no-block "+layout.UnitKMS)
	m.until(t, "the TPM's refusal", func() bool {
		return strings.Contains(m.in(t, "journalctl", "-o", "cat", "-u", layout.UnitKMS).stdout, "integrity check failed")
	})
	status("SEALED: the TPM refuses for good")
	if out := imported(); out.code != 0 {
		t.Fatalf("import over what the TPM refuses: %s", out)
	}
	restart("put back")
}

// until waits for something on the machine.
func (m *machine) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited for %s:\n%s", what, m.in(t, "journalctl", "--no-pager", "-n", "40", "-u", layout.UnitKMS))
		}
	}
}

// tpmLibraries are what systemd loads for a TPM and Debian's smallest system has
// not: this machine's, where it is of the same release.
func tpmLibraries(t *testing.T) []string {
	t.Helper()
	release, err := os.ReadFile("/etc/os-release")
	if err != nil || !strings.Contains(string(release), "VERSION_CODENAME=bookworm") {
		t.Skip("the TPM's libraries are taken from this machine, which is no Debian 12")
	}
	var libs []string
	for _, name := range []string{"esys", "sys", "mu", "rc", "tcti-swtpm"} {
		found, _ := filepath.Glob("/usr/lib/*/libtss2-" + name + ".so.?")
		if len(found) != 1 {
			t.Skipf("there is no libtss2-%s: scripts/test-deps installs it, as root", name)
		}
		libs = append(libs, found[0])
	}
	return libs
}

// serveTPM lets the machine reach a TPM at 10.99.0.1, and tidies up after its
// users as the kernel does. It gives the port, the next one being for its controls,
// and a way to be alone with the TPM.
func (m *machine) serveTPM(t *testing.T, r *credtest.Real) (at int, alone func(func())) {
	t.Helper()
	const port = 2321
	commands, control := m.listenOutside(t, port), m.listenOutside(t, port+1)
	// Each command comes by a connection of its own: a user has gone when none
	// follows.
	var one sync.Mutex
	idle := time.AfterFunc(time.Hour, func() {
		one.Lock()
		defer one.Unlock()
		r.Flush()
	})
	t.Cleanup(func() { idle.Stop() })
	go serveEach(commands, func(c net.Conn) {
		one.Lock()
		defer one.Unlock()
		idle.Stop()
		pipe(c, r.Address())
		idle.Reset(150 * time.Millisecond)
	})
	go serveEach(control, func(c net.Conn) { pipe(c, r.Control()) })
	return port, func(do func()) {
		one.Lock()
		defer one.Unlock()
		idle.Stop()
		r.Flush()
		do()
	}
}

// listenOutside listens in the network around the machine.
func (m *machine) listenOutside(t *testing.T, port int) net.Listener {
	t.Helper()
	ns, err := os.Open("/proc/" + m.namespace(t) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var ln net.Listener
	done := make(chan error, 1)
	go func() {
		// As in outside: the thread ends with this goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		var err error
		ln, err = net.Listen("tcp", fmt.Sprintf("10.99.0.1:%d", port))
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func serveEach(ln net.Listener, serve func(net.Conn)) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// pipe joins a connection with an address until the caller is gone.
func pipe(c net.Conn, address string) {
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(c, to)
		_ = c.Close() // a TPM that is gone is gone for its user, too
	}()
	_, _ = io.Copy(to, c)
	_ = to.Close()
}
