// Package pause waits as long as somebody still wants what comes afterwards, and
// tries again what may pass.
//
// It is not a scheduler.
package pause

import (
	"context"
	"time"
)

// For waits for d, and gives the context's cause when that ends first.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
