package audit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A file that names no process of Vault's is never taken for one: a signal to 0
// or below would go to a group, one to 1 to the machine.
func TestSignalPIDFile(t *testing.T) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGHUP)
	defer signal.Stop(got)
	gone := exec.Command(os.Args[0], "-test.run=^$")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "pid")
	if err := SignalPIDFile(file)(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no file: %v", err)
	}
	if err := SignalPIDFile(filepath.Dir(file))(t.Context()); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("a folder: %v", err)
	}
	for name, tt := range map[string]struct {
		text  string
		fault string // empty: it is signalled
	}{
		"ours":             {fmt.Sprintf("%d\n", os.Getpid()), ""},
		"one that is gone": {fmt.Sprint(gone.Process.Pid), ErrNotRunning.Error()},
		"empty":            {"", "holds no process id"},
		"a word":           {"vault", "holds no process id"},
		"the machine":      {"1", "holds no process id"},
		"a group":          {"0", "holds no process id"},
		"everybody":        {"-1", "holds no process id"},
		"two":              {"12 13", "holds no process id"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			err := SignalPIDFile(file)(t.Context())
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-got:
			case <-time.After(10 * time.Second):
				t.Error("nothing came")
			}
		})
	}
	if len(got) != 0 {
		t.Error("a signal that nobody should have sent")
	}
}

// Without a folder or a way to Vault nothing is begun.
func TestRotateNeeds(t *testing.T) {
	v := newVault(t, "audit.log")
	for name, spoil := range map[string]func(*Options){
		"no folder of logs":     func(o *Options) { o.Dir = "" },
		"no state folder":       func(o *Options) { o.StateDir = "" },
		"no way to reach Vault": func(o *Options) { o.Signal = nil },
	} {
		o := v.options(t.TempDir())
		o.Force = true
		v.write(1)
		spoil(&o)
		if _, err := Rotate(t.Context(), o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := strings.Join(v.names(), " "); got != "audit.log" {
		t.Errorf("there are %s", got)
	}
}

// A compressed file in the way that is not the log's own is left, and the log
// with it.
func TestCompressedFileInTheWay(t *testing.T) {
	for name, text := range map[string]string{"no gzip": "theirs", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t, "audit.log")
			rotated := "audit.log." + start.Format(stampFormat)
			for file, content := range map[string]string{rotated: "ours\n", rotated + ".gz": text} {
				if err := os.WriteFile(filepath.Join(v.dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			rep, err := Rotate(t.Context(), v.options(t.TempDir()))
			if err == nil || !strings.Contains(err.Error(), "read back") || rep.Failure == "" {
				t.Errorf("%v", err)
			}
			for file, content := range map[string]string{rotated: "ours\n", rotated + ".gz": text} {
				if got, err := os.ReadFile(filepath.Join(v.dir, file)); err != nil || string(got) != content {
					t.Errorf("%s holds %q, %v", file, got, err)
				}
			}
		})
	}
	if p := (Usage{}).Percent(); p != 0 {
		t.Errorf("a disk that tells nothing is %v %% full", p)
	}
}
