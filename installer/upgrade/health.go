package upgrade

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// healthy waits until everything runs as the versions say, and says what is
// wrong when patience is at its end.
func (u *Upgrade) healthy(ctx context.Context, want Versions) error {
	deadline := u.Env.Host.Now().Add(u.Patience)
	for {
		err := u.look(ctx, want)
		if err == nil {
			return nil
		}
		if u.Env.Host.Now().After(deadline) {
			return fmt.Errorf("not healthy after %v: %w", u.Patience, err)
		}
		if stop := u.Sleep(ctx, u.Poll); stop != nil {
			return errors.Join(stop, err)
		}
	}
}

// look is one look at everything.
func (u *Upgrade) look(ctx context.Context, want Versions) error {
	var errs []error
	for _, name := range core {
		unit, err := u.Env.Host.Unit(ctx, name)
		if err != nil {
			return err
		}
		if unit.Active != "active" {
			errs = append(errs, fmt.Errorf("%s is %s", name, unit.Active))
		}
	}
	return errors.Join(append(errs, u.lookAtVault(ctx, want), u.Front(ctx))...)
}

func (u *Upgrade) lookAtVault(ctx context.Context, want Versions) error {
	if err := u.lookAtServer(ctx, want); err != nil {
		return err
	}
	return u.lookAtEngine(ctx, want)
}

// oneLook is how long one look may take: a Vault that is just coming up may
// accept and never answer.
const oneLook = 10 * time.Second

// lookAtServer looks at Vault without its engine.
func (u *Upgrade) lookAtServer(ctx context.Context, want Versions) error {
	ctx, cancel := context.WithTimeout(ctx, oneLook)
	defer cancel()
	if err := u.Vault.WaitActive(ctx); err != nil {
		return err
	}
	info, err := u.Vault.Info(ctx)
	if err != nil {
		return err
	}
	if info.Version != want.Vault {
		return fmt.Errorf("vault %s runs, %s should", info.Version, want.Vault)
	}
	index, err := u.Vault.RaftIndex(ctx)
	if err != nil {
		return err
	}
	if index < u.rec.RaftIndex {
		return fmt.Errorf("vault's raft index is %d, it was %d before", index, u.rec.RaftIndex)
	}
	return nil
}

// lookAtEngine looks at the engine in a Vault that is active.
func (u *Upgrade) lookAtEngine(ctx context.Context, want Versions) error {
	ctx, cancel := context.WithTimeout(ctx, oneLook)
	defer cancel()
	pinned, running, err := u.Vault.Mounted(ctx)
	if err != nil {
		return err
	}
	if running != want.Plugin || pinned != "" && pinned != want.Plugin {
		return fmt.Errorf("the engine runs plugin %s and is pinned to %q; both should be %s", running, pinned, want.Plugin)
	}
	fenced, err := u.Vault.Status(ctx)
	if err != nil {
		return err
	}
	if fenced && !u.rec.Fenced {
		return errors.New("the engine is fenced, and was not before")
	}
	return nil
}
