package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/serve/localtls"
	"strongroom.example/test/vaulttest"
)

// notified runs the front as systemd does, with a socket for its messages, and
// gives them in order. It ends once one of them is READY=1 or the front ends.
func notified(t *testing.T, config string) (messages []string, code int) {
	t.Helper()
	dir := vaulttest.Dir(t)
	socket := filepath.Join(dir, "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file := filepath.Join(dir, "front.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(vaulttest.Bin(t, "strongroom"), "front", "--config", file)
	cmd.Env = []string{"HOME=/", "NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=400000"}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		ln.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // what it said last is still in the socket
	}()
	// Longer than any start; the watchdog's words come every 0.2 s.
	if err := ln.SetReadDeadline(time.Now().Add(vaulttest.Patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for alive := 0; alive < 2; {
		n, err := ln.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, string(b[:n]))
		if strings.Contains(string(b[:n]), "WATCHDOG=1") {
			alive++
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	err = <-ended
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	return messages, code
}

// Only a front that serves says that it is ready; then it says that it lives,
// for a watchdog. Caddy alone would say READY=1 after a failed start as well.
func TestFrontTellsSystemdTheTruth(t *testing.T) {
	dir := t.TempDir()
	certs, err := localtls.New(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"ca": certs.CA, "crt": certs.ClientCrt, "key": certs.ClientKey, "own.crt": certs.ServerCrt, "own.key": certs.ServerKey} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := ln.Addr().String()
	defer ln.Close()
	free, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	config := func(listen, cert, key string) string {
		return fmt.Sprintf("listen = [%q]\nnames = [\"localhost\"]\nstorage = %q\nissuer = \"files\"\ndrain = \"1s\"\n"+
			"[files]\ncert = %q\nkey = %q\n[vault]\naddress = \"127.0.0.1:1\"\nca_file = %q\ncert_file = %q\nkey_file = %q\n",
			listen, filepath.Join(dir, "storage"), filepath.Join(dir, cert), filepath.Join(dir, key),
			filepath.Join(dir, "ca"), filepath.Join(dir, "crt"), filepath.Join(dir, "key"))
	}
	for name, c := range map[string]struct {
		config string
		ready  bool
	}{
		"serves":         {config(free, "own.crt", "own.key"), true},
		"port taken":     {config(taken, "own.crt", "own.key"), false},
		"no certificate": {config(free, "none.crt", "none.key"), false},
		"another's key":  {config(free, "own.crt", "key"), false},
	} {
		t.Run(name, func(t *testing.T) {
			messages, code := notified(t, c.config)
			said := strings.Join(messages, "\n")
			if got := strings.Count(said, "READY=1"); c.ready && got != 1 || !c.ready && got != 0 {
				t.Errorf("READY=1 came %d times, should be ready: %v\n%s", got, c.ready, said)
			}
			if c.ready != strings.Contains(said, "WATCHDOG=1") {
				t.Errorf("the watchdog heard: %s", said)
			}
			if strings.Contains(said, "RELOADING") || strings.Contains(said, "STATUS") {
				t.Errorf("somebody else than the front speaks to systemd:\n%s", said)
			}
			if c.ready != (code == 0) {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
