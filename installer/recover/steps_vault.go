package recover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/wayin"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/steps"
)

// progress looks at Vault, unless it is noted already that the snapshot is in it.
func (r *Recovery) progress(ctx context.Context) (l look, noted bool, err error) {
	if !r.State.Restored.IsZero() {
		return look{}, true, nil
	}
	l, err = r.look(ctx)
	return l, false, err
}

// emptyStep initialises a Vault for the snapshot to go into. Its recovery key is
// nobody's, and gone with the restore.
type emptyStep struct{ *Recovery }

func (emptyStep) ID() string    { return "recover-vault" }
func (emptyStep) Title() string { return "an empty Vault for the snapshot" }

func (s emptyStep) Check(ctx context.Context) (engine.Diff, error) {
	l, noted, err := s.progress(ctx)
	if err != nil || noted || s.restored(l) {
		return nil, err
	}
	used, err := s.Env.VaultInUse()
	if err != nil {
		return nil, err
	}
	if l.initialised && used {
		return nil, steps.Operator("to bring a snapshot back into it: strongroom restore. Where nobody needs what is in it: strongroom-installer uninstall --purge first",
			errors.New("a Vault is in use on this machine, which the recovery has not made"))
	}
	create := engine.Change{What: "Vault", To: "initialised, with a token for this recovery", Apply: s.create}
	if !l.initialised {
		return engine.Diff{create}, nil
	}
	if l.active {
		c, err := s.Env.RootClient(ctx)
		if err != nil {
			return nil, err
		}
		if c != nil {
			return nil, nil
		}
	}
	// This recovery began on a machine without a Vault, so nothing is in it but
	// what a killed run has begun.
	return engine.Diff{{What: "Vault's storage", From: "begun by a run that was killed", To: "set aside, and kept", Apply: s.Env.SetVaultAside}, create}, nil
}

func (s emptyStep) create(ctx context.Context) error {
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	keys, err := l.c.Init(ctx, vaultapi.InitRequest{RecoveryShares: 1, RecoveryThreshold: 1})
	if err != nil {
		return err
	}
	if err := s.Env.PutRootToken(ctx, keys.RootToken); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return l.c.WaitActive(wait)
}

// snapshotStep restores. Which storage Vault has, its cluster's id tells.
type snapshotStep struct{ *Recovery }

func (snapshotStep) ID() string    { return "recover-snapshot" }
func (snapshotStep) Title() string { return "snapshot restored" }

func (s snapshotStep) Check(ctx context.Context) (engine.Diff, error) {
	l, noted, err := s.progress(ctx)
	if err != nil || noted {
		return nil, err
	}
	if s.restored(l) {
		return engine.Diff{{What: "snapshot", From: "restored by a run that was killed", To: "noted", Apply: s.note}}, nil
	}
	return engine.Diff{{What: "snapshot", To: s.State.ID + ", epoch raised", Slow: true, Apply: s.restore}}, nil
}

func (s snapshotStep) note(context.Context) error {
	s.State.Restored = s.Env.Host.Now().UTC()
	return s.State.save(s.Env.Host)
}

func (s snapshotStep) restore(ctx context.Context) error {
	c, err := s.Env.RootClient(ctx)
	if err != nil {
		return err
	}
	if c == nil {
		return errors.New("the token of this recovery is gone")
	}
	res, err := restore.Run(ctx, restore.Options{
		Snapshot: s.Found.Snapshot, Lineage: s.Found.Manifest.Lineage, From: s.Found.Manifest.Server(), Vault: c, EpochFile: s.path(machine.EpochFile), Patience: patience,
	})
	switch {
	case err == nil, res.Restored && errors.Is(err, restore.ErrTokenGone):
		// The token was the empty Vault's; the reconcile comes later.
		return s.note(ctx)
	case errors.Is(err, restore.ErrNewerVault):
		return steps.Operator("name that version or a newer one: vault.version in the configuration", err)
	case errors.Is(err, restore.ErrOtherProduct):
		return steps.Operator("set vault.product to the snapshot's", err)
	case errors.Is(err, restore.ErrOtherSeal):
		return steps.Operator("give the escrow of the cluster that the snapshot is of", err)
	}
	return err
}

// rootStep finds a way into the restored Vault: its recovery keys make a root
// token, or else its first administrator logs in.
type rootStep struct{ *Recovery }

func (rootStep) ID() string    { return "recover-token" }
func (rootStep) Title() string { return "a token from the escrow" }

func (s rootStep) Check(ctx context.Context) (engine.Diff, error) {
	if !s.State.Finished.IsZero() {
		return nil, nil
	}
	c, err := s.admin(ctx)
	if err != nil || c != nil {
		return nil, err
	}
	return engine.Diff{{What: "token", To: "by the recovery keys, or as the first administrator", Apply: s.make}}, nil
}

// admin is a client that may change anything; nil where there is none yet.
func (r *Recovery) admin(ctx context.Context) (*vaultapi.Client, error) {
	c, err := r.Env.RootClient(ctx)
	if err != nil || c != nil {
		return c, err
	}
	if r.Env.AdminToken == "" {
		return nil, nil
	}
	if c, err = r.Env.Vault(r.Env.AdminToken); err != nil {
		return nil, err
	}
	_, err = c.LookupSelf(ctx)
	if vaultapi.IsDenied(err) {
		return nil, nil // of another time; the escrow may do
	}
	if err != nil {
		return nil, fmt.Errorf("look at the administrator's token: %w", err)
	}
	return c, nil
}

func (s rootStep) make(ctx context.Context) error {
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	if !l.active {
		return errors.New("vault is not active")
	}
	var faults []error
	if len(s.Escrow.Shares) > 0 {
		door, err := s.door(l.c)
		if err != nil {
			return err
		}
		token, err := door.GenerateRoot(ctx, s.Escrow.Shares)
		if token != "" {
			// A door that stays open is told after the token is safe, and shut by the
			// same command.
			return errors.Join(s.Env.PutRootToken(ctx, token), err)
		}
		faults = append(faults, err)
	}
	for _, a := range s.Escrow.Admins {
		err := l.c.LoginUserpassAt(ctx, a.Mount, a.User, a.Password)
		if err == nil {
			return s.Env.PutRootToken(ctx, l.c.Token())
		}
		faults = append(faults, err)
	}
	return steps.Operator("the snapshot is restored. Give more of the escrow (other people's --identity), or log in as an administrator (VAULT_ADDR=unix://"+machine.VaultSocket+
		" vault login) and run the same command with that token in VAULT_TOKEN; it goes on here", errors.Join(append(faults, ErrNoWayIn)...))
}

// door is the restored Vault's way in for recovery keys.
func (r *Recovery) door(c *vaultapi.Client) (wayin.Door, error) {
	h := r.Env.Host
	d := wayin.Door{
		Vault: c, Patience: time.Minute,
		Read: func() ([]byte, error) { return h.ReadFile(machine.VaultHCL) },
		Write: func(data []byte) error {
			is, err := h.Stat(machine.VaultHCL)
			if err != nil {
				return err
			}
			return h.Write(machine.VaultHCL, bytes.NewReader(data), is.Attr)
		},
		Reload: func(ctx context.Context) error { return h.ReloadService(ctx, machine.UnitVault) },
	}
	if r.Env.Config.Vault.Product != config.ProductOpenBao {
		return d, nil
	}
	d.Reload = func(ctx context.Context) error { return h.Restart(ctx, machine.UnitVault) }
	var err error
	d.Gate, err = wayin.MachineGate()
	return d, err
}

// engineStep lets the secrets engines of the restored Vault run as this version,
// ends root tokens that nobody holds, and reconciles.
type engineStep struct{ *Recovery }

func (engineStep) ID() string    { return "recover-keys" }
func (engineStep) Title() string { return "API keys compared with their providers" }

func (s engineStep) Check(context.Context) (engine.Diff, error) {
	if !s.State.Reconciled.IsZero() {
		return nil, nil
	}
	return engine.Diff{{What: "secrets engines", To: "of this version, reconciled", Apply: s.apply}}, nil
}

func (s engineStep) apply(ctx context.Context) error {
	c, err := s.admin(ctx)
	if err != nil {
		return err
	}
	if c == nil {
		return errors.New("no token for the restored Vault")
	}
	if err := endRootTokens(ctx, c); err != nil {
		return err
	}
	if err := s.engines(ctx, c); err != nil {
		return err
	}
	found, err := restore.Reconcile(ctx, c)
	if err != nil && !errors.Is(err, restore.ErrProblems) {
		return err
	}
	// Keys that could not be checked keep their engine fenced, which is safe;
	// the end of the recovery tells of them.
	s.State.Engines, s.State.Reconciled = found, s.Env.Host.Now().UTC()
	return s.State.save(s.Env.Host)
}

// endStep notes that the recovery is over: later runs are like those of an
// installation.
type endStep struct{ *Recovery }

func (endStep) ID() string    { return "recover-end" }
func (endStep) Title() string { return "recovery noted, escrow confirmed" }

func (s endStep) Check(context.Context) (engine.Diff, error) {
	if !s.State.Finished.IsZero() {
		return nil, nil
	}
	to := fmt.Sprintf("finished; %d escrow files have proved themselves", len(s.Escrow.Files)-len(s.Escrow.Unopened()))
	return engine.Diff{{What: StatePath, To: to, Apply: s.end}}, nil
}

func (s endStep) end(context.Context) error {
	now := s.Env.Host.Now()
	if err := s.confirm(now); err != nil {
		return err
	}
	s.State.Finished = now.UTC()
	if err := s.State.save(s.Env.Host); err != nil {
		s.State.Finished = time.Time{}
		return err
	}
	return nil
}
