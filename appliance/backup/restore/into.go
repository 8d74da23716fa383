package restore

import (
	"context"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

// Into replaces everything in a scratch Vault by a checked snapshot and returns
// when it is unsealed and active again. It keeps nothing, raises no epoch and
// lets no engine reconcile: that is for Run. ErrOtherSeal when another master
// key has sealed the snapshot; ErrSealed when it cannot unseal itself.
func Into(ctx context.Context, v *vaultapi.Client, c *Checked, patience time.Duration) error {
	marker, err := newMarker(ctx, v, patience)
	if err != nil {
		return err
	}
	if _, err := send(ctx, Options{Snapshot: c, Vault: v}); err != nil {
		return err
	}
	return wait(ctx, marker, patience, 25*time.Millisecond)
}
