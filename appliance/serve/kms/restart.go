package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
)

// unsealPatience is how long Vault may take to come back after a rotation.
const unsealPatience = time.Minute

// Restart is what a confirmed rotation takes effect by.
type Restart struct {
	Unit   func(ctx context.Context, name string) error // restarts one of systemd's units
	Active func(ctx context.Context) error              // waits until Vault is unsealed and active
	Now    func() time.Time
}

// Run lets the KMS read the new key and Vault re-encrypt its seal. took is from
// the first unit's restart to an active Vault.
func (r Restart) Run(ctx context.Context) (took time.Duration, err error) {
	start := r.Now()
	for _, unit := range []string{machine.UnitKMS, machine.UnitVault} {
		if err := r.Unit(ctx, unit); err != nil {
			return 0, &fault.Error{Code: fault.Failed, Err: fmt.Errorf("restart %s: %w", unit, err),
				Hint: "the new key is in force: find out why with journalctl -u " + unit + ", then restart both units"}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, unsealPatience)
	defer cancel()
	if err := r.Active(ctx); err != nil {
		if known := new(fault.Error); errors.As(err, &known) {
			return 0, err // says what to do itself
		}
		return 0, &fault.Error{Code: fault.Failed, Err: fmt.Errorf("after the rotation: %w", err), Hint: "see journalctl -u vault -u strongroom-kms and docs/unseal.md"}
	}
	return r.Now().Sub(start), nil
}
