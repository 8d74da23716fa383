package test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A stopped run leaves no policy behind that keeps Debian's packages from starting their
// services: not for good, and not after the next run. Somebody's own policy stays.
func TestNoServices(t *testing.T) {
	guard := filepath.Join(t.TempDir(), "policy-rc.d")
	run := func(command string) *exec.Cmd {
		c := exec.Command("../scripts/no-services", "sh", "-c", command)
		c.Env = append(os.Environ(), "STRONGROOM_POLICY="+guard)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		return c
	}
	gone := func(when string) {
		t.Helper()
		if b, err := os.ReadFile(guard); err == nil {
			t.Errorf("%s it is left behind: %q", when, b)
		}
	}
	out, err := run(`sh "$STRONGROOM_POLICY"; echo $?; exit 3`).Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || strings.TrimSpace(string(out)) != "101" {
		t.Errorf("it says %q, %v", out, err)
	}
	gone("after a run")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL} {
		c := run("echo begun; exec sleep 600")
		pipe, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := pipe.Read(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(-c.Process.Pid, sig); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		if sig == syscall.SIGKILL {
			if out, err := run("true").CombinedOutput(); err != nil {
				t.Errorf("the run after a kill: %v\n%s", err, out)
			}
		}
		gone("after " + sig.String())
	}
	own := []byte("#!/bin/sh\nexit 0\n")
	if err := os.WriteFile(guard, own, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := run("true").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile(guard); err != nil || !bytes.Equal(b, own) {
		t.Errorf("somebody's own is %q, %v", b, err)
	}
}
