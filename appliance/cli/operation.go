package cli

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/operation"
	"strongroom.example/config/machine"
)

// begin holds the machine for a verb that changes it as a whole. Where nothing is
// installed there is no such machine.
func begin(c *cobra.Command, lock string) (end func(), err error) {
	if _, err := os.Lstat(machine.ManifestFile); lock == machine.OperationLock && errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	end, err = operation.Begin(lock, c.CommandPath(), time.Now())
	if errors.Is(err, operation.ErrBusy) {
		return nil, &Error{Code: ExitFailed, Err: err, Hint: "wait for its end"}
	}
	return end, err
}
