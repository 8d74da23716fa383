package command

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// plant puts a program of that name first in the caller's PATH.
func plant(t *testing.T, name string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho planted\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestCallersEnvironment(t *testing.T) {
	plant(t, "env")
	plant(t, "no-such-program")
	for _, v := range []string{"VAULT_TOKEN", "VAULT_ADDR", "LD_PRELOAD", "DBUS_SYSTEM_BUS_ADDRESS", "LANG"} {
		t.Setenv(v, "planted")
	}
	out, err := New(t.Context(), "env").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	want := Environ()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the environment is %q, want %q", got, want)
	}
	if out, err := New(t.Context(), "no-such-program").Output(); !errors.Is(err, exec.ErrNotFound) || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
	// Nor is the folder where we are searched.
	t.Chdir(t.TempDir())
	if err := os.WriteFile("no-such-program", []byte("#!/bin/sh\necho planted\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), "no-such-program").Output(); !errors.Is(err, exec.ErrNotFound) {
		t.Error(err)
	}
}

// Ctrl-C goes to a terminal's whole process group; a command that puts things
// back must not be in it.
func TestOwnGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := New(ctx, "sh", "-c", "echo up; sleep 600 & wait")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if pgid, err := syscall.Getpgid(c.Process.Pid); err != nil || pgid != c.Process.Pid {
		t.Errorf("group %d of process %d: %v", pgid, c.Process.Pid, err)
	}
	cancel()
	// Its child holds the pipe open until it is gone too.
	if _, err := out.Read(make([]byte, 1)); err == nil {
		t.Error("something of it is left")
	}
	if err := c.Wait(); err == nil {
		t.Error("a killed command ended well")
	}
}
