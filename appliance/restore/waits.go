package restore

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/api"

	"strongroom/appliance/vaultapi"
)

// endWaits ends the reads that wait for a new version of a key. A waiting
// request holds Vault's state lock for reading and a restore wants it for
// writing; until it has it, nobody else is answered (docs/rotate-keys.md). It
// returns how to allow waits again, for a restore that Vault has refused; a
// Vault that was restored has the setting of the snapshot.
//
// A token that may not look at the mounts ends no waits: they end by themselves
// within a minute.
func endWaits(ctx context.Context, c *vaultapi.Client) (undo func(context.Context) error, err error) {
	var again []func(context.Context) error
	undo = func(ctx context.Context) error {
		var errs []error
		for _, f := range again {
			errs = append(errs, f(ctx))
		}
		return errors.Join(errs...)
	}
	mounts, err := c.API().Sys().ListMountsWithContext(ctx)
	if denied(err) {
		return undo, nil
	}
	if err != nil {
		return undo, fmt.Errorf("end waits: list mounts: %w", err)
	}
	for path, m := range mounts {
		if m.Type != engineType {
			continue
		}
		config, err := c.API().Logical().ReadWithContext(ctx, path+"config")
		if denied(err) || err == nil && config == nil {
			continue
		}
		if err != nil {
			return undo, fmt.Errorf("end waits at %s: %w", path, err)
		}
		was := config.Data["max_wait"]
		if count(was) == 0 {
			continue
		}
		set := func(ctx context.Context, v any) error {
			_, err := c.API().Logical().WriteWithContext(ctx, path+"config", map[string]any{"max_wait": v})
			if err != nil && !denied(err) {
				return fmt.Errorf("set max_wait at %s: %w", path, err)
			}
			return nil
		}
		again = append(again, func(ctx context.Context) error { return set(ctx, was) })
		if err := set(ctx, 0); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

func denied(err error) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden
}
