// Package operation lets one thing at a time change a machine as a whole:
// install, upgrade, uninstall, restore, the rotation of the master key. Who comes
// second is told who is at work.
//
// It does not keep the jobs apart: each of them has a lock of its own.
package operation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"strongroom.example/appliance/base/statefile"
)

// ErrBusy says that another operation holds the machine.
var ErrBusy = errors.New("another operation is under way on this machine")

// Held says whether somebody is at work on the machine now, by the lock at path.
func Held(path string) (bool, error) { return statefile.Held(path) }

// Begin holds the machine for verb, as "strongroom-installer upgrade", until end
// is called or the process is gone. The lock is at path, machine.OperationLock on
// an installed machine; a restart of the machine forgets it.
//
// Who is not root and may not hold the lock changes no machine, and is let
// through: a restore of another machine's Vault, say.
func Begin(path, verb string, now time.Time) (end func(), err error) {
	by := fmt.Sprintf("%s, pid %d, since %s", verb, os.Getpid(), now.UTC().Format("2006-01-02 15:04:05 UTC"))
	end, err = statefile.Lock(path, by)
	var busy *statefile.BusyError
	switch {
	case err == nil:
		return end, nil
	case errors.As(err, &busy) && busy.By != "":
		return nil, fmt.Errorf("%w: %s", ErrBusy, busy.By)
	case errors.As(err, &busy):
		return nil, ErrBusy
	case os.Geteuid() != 0 && errors.Is(err, fs.ErrPermission):
		return func() {}, nil
	}
	return nil, err
}
