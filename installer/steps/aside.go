package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// setAside moves Vault's storage away, with the recovery keys that belong to it, and
// starts Vault on an empty one. Nothing is deleted: whoever finds out that it was needed
// after all finds it there.
func (e *Env) setAside(ctx context.Context) error {
	if err := e.roomBeside(machine.RaftDir); err != nil {
		return err
	}
	was, err := e.Host.Stat(machine.RaftDir)
	if err != nil {
		return err
	}
	vault, err := e.Host.Unit(ctx, machine.UnitVault)
	if err != nil {
		return err
	}
	if vault.Load == "not-found" || vault.Active == "inactive" {
		return e.moveAside(was.Attr)
	}
	if err := e.Host.Stop(ctx, machine.UnitVault); err != nil {
		return err
	}
	err = e.moveAside(was.Attr)
	if vault.Active != "active" {
		return err // it could not start, and a later step starts it
	}
	// Vault is started again whoever wants an end, and whatever has failed.
	return errors.Join(err, e.Host.Start(context.WithoutCancel(ctx), machine.UnitVault))
}

// wordGiven says whether the operator has typed what setting a storage aside takes.
func (e *Env) wordGiven() bool { return e.SetAside != "" && e.SetAside == e.Config.Domain }

func (e *Env) moveAside(attr host.Attr) error {
	suffix := machine.Aside + e.Host.Now().UTC().Format("20060102T150405Z")
	to := machine.RaftDir + suffix
	// Commit point: until it is done all is as it was.
	if err := e.Host.Rename(machine.RaftDir, to); err != nil {
		return operator("move what is in it away by hand, then run the same command again", "set Vault's storage aside: %w", err)
	}
	e.note("Vault's storage of before is kept in %s; delete it once surely nobody needs it", to)
	if err := e.Host.Mkdir(machine.RaftDir, attr); err != nil {
		return err
	}
	keys, err := e.recoveryEscrow()
	if err != nil {
		return err
	}
	for _, file := range keys {
		if err := e.Host.Rename(file, file+suffix); err != nil {
			return err
		}
	}
	return nil
}

// roomBeside refuses where what is kept would leave no room for as much again.
func (e *Env) roomBeside(dir string) error {
	size, err := host.TreeSize(e.Host, dir)
	if err != nil {
		return err
	}
	_, free, err := e.Host.Space(path.Dir(dir))
	if err != nil {
		return err
	}
	if need := size + minFreeOurs; free < need {
		return operator("make room, then run the same command again", "%q is kept, and beside it %d MiB are free where %d are needed", dir, free>>20, need>>20)
	}
	return nil
}

// recoveryEscrow are the files of the recovery keys.
func (e *Env) recoveryEscrow() ([]string, error) {
	names, err := e.Host.ReadDir(machine.EscrowDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []string
	for _, n := range names {
		if strings.HasPrefix(n, recoveryKeys) && path.Ext(n) == ".age" {
			files = append(files, path.Join(machine.EscrowDir, n))
		}
	}
	return files, nil
}

// note is for the operator to read at the end.
func (e *Env) note(format string, args ...any) {
	e.Notes = append(e.Notes, fmt.Sprintf(format, args...))
}
