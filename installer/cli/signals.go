package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Interruptible ends with SIGINT, SIGTERM and the end of the terminal (SIGHUP), a
// lost connection say: each has what is under way ended, or taken back. Nobody
// reading on is no reason to end: then output goes nowhere.
func Interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	// Handled, and not ignored: that the programs that we run would inherit.
	nobody := make(chan os.Signal, 1)
	signal.Notify(nobody, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return ctx, func() {
		stop()
		signal.Stop(nobody)
	}
}
