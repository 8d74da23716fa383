package wayin

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// MachineGate is that of an installed machine whose server is OpenBao.
func MachineGate() (*Gate, error) {
	c, err := vaultapi.New(vaultapi.Options{Address: "unix://" + machine.DoorSocket})
	if err != nil {
		return nil, err
	}
	return &Gate{Vault: c, Socket: machine.DoorSocket, User: machine.UserVault, Group: machine.UserVault, Make: makeDoor}, nil
}

// makeDoor makes the folder in which OpenBao may make its socket and see nothing, and
// holds the lock that CloseUnheld asks for.
func makeDoor() (end func() error, err error) {
	g, err := user.LookupGroup(machine.UserVault)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return nil, fmt.Errorf("group %s: %w", machine.UserVault, err)
	}
	return makeFolder(machine.DoorRun, machine.DoorLock, 0, gid)
}

func makeFolder(dir, lock string, uid, gid int) (end func() error, err error) {
	unlock, err := statefile.Lock(lock, "strongroom generate-root")
	if err != nil {
		return nil, fmt.Errorf("hold the way in for recovery keys: %w", err)
	}
	remove := func() error {
		err := os.RemoveAll(dir)
		unlock()
		return err
	}
	// A killed run may have left one.
	err = errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.Chown(dir, uid, gid), os.Chmod(dir, 0o730))
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	return remove, nil
}

// CloseUnheld is Close before the server starts, with the folder of OpenBao's socket.
// It leaves a door open that somebody holds, who has that start made.
func CloseUnheld(read func() ([]byte, error), write func([]byte) error, socket, lock string) error {
	unlock, err := statefile.Lock(lock, "strongroom generate-root --close")
	if errors.Is(err, statefile.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	_, err = Close(read, write)
	if gone := os.Remove(socket); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	// In the unit's own view of the machine it is a mount, and cannot go: empty as it is,
	// and root's own, it is for the next run.
	if gone := os.Remove(filepath.Dir(socket)); !errors.Is(gone, os.ErrNotExist) && !errors.Is(gone, unix.EBUSY) {
		err = errors.Join(err, gone)
	}
	return err
}
