package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/base/operation"
	"strongroom.example/config/machine"
)

// While an upgrade is at work nobody rotates the key that it unseals with.
func TestRotationWaitsForOperations(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, "lock")
	end, err := operation.Begin(lock, "strongroom-installer upgrade", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--recipient", "none"}, {"--confirm"}} {
		c := kmsRotateCommand(lock)
		c.SetArgs(append(args, "--key-file", filepath.Join(dir, "none")))
		c.SilenceUsage, c.SilenceErrors = true, true
		var fault *Error
		if err := c.Execute(); !errors.Is(err, operation.ErrBusy) || !errors.As(err, &fault) || fault.Code != ExitFailed || !strings.Contains(err.Error(), "strongroom-installer upgrade, pid ") {
			t.Errorf("%s: %v", args, err)
		}
	}
	end()
	c := kmsRotateCommand(lock)
	c.SetArgs([]string{"--confirm", "--key-file", filepath.Join(dir, "none")})
	c.SilenceUsage, c.SilenceErrors = true, true
	if err := c.Execute(); err == nil || errors.Is(err, operation.ErrBusy) {
		t.Errorf("after it: %v", err)
	}
}

func TestBegin(t *testing.T) {
	c := &cobra.Command{Use: "restore"}
	// Nothing is installed where tests run: there is no machine to hold.
	end, err := begin(c, machine.OperationLock)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if second, err := begin(c, machine.OperationLock); err != nil {
		t.Error(err)
	} else {
		second()
	}
}

// Nor does a restore begin, not even to keep what it would replace.
func TestRestoreWaitsForOperations(t *testing.T) {
	dir := t.TempDir()
	o := restoreOptions{lock: filepath.Join(dir, "lock"), keepDir: filepath.Join(dir, "replaced")}
	end, err := operation.Begin(o.lock, "strongroom-installer upgrade", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if err := o.bringBack(&cobra.Command{Use: "restore"}, &restore.Plan{}); !errors.Is(err, operation.ErrBusy) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(o.keepDir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was begun: %v", err)
	}
}
