// Command strongroom is the appliance: its daemons, timer jobs and the
// operator's command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"strongroom.example/appliance/cli"
)

// Set by the build: the content of VERSION, and the commit.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := interruptible()
	err := cli.New(version + " (" + commit + ")").ExecuteContext(ctx)
	stop()
	os.Exit(cli.Report(os.Stderr, err))
}

// interruptible ends with the first SIGINT or SIGTERM. A second one then kills, as
// if nothing had been asked for: whatever does not end by itself can be left.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
