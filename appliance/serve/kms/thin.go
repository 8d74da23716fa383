package kms

import (
	"context"
	"runtime/debug"
	"time"
)

// Memory is given back once Vault has unsealed, and then at this interval: Vault
// calls every ten minutes, to test its seal.
const (
	thinAfter    = 5 * time.Second
	thinInterval = time.Minute
)

// StayThin gives memory back that start and each call have touched, until ctx
// ends: this process waits for nearly all of its life. wait is pause.For.
func StayThin(ctx context.Context, wait func(context.Context, time.Duration) error) error {
	for next := thinAfter; ; next = thinInterval {
		debug.FreeOSMemory()
		if err := DropStartupPages(); err != nil {
			return err
		}
		if wait(ctx, next) != nil {
			return nil // it ends
		}
	}
}
