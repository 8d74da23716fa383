// Command strongroom is the appliance: its daemons, timer jobs and the
// operator's command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"strongroom/appliance/cli"
)

// Set by the build: the content of VERSION, and the commit.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := cli.New(version + " (" + commit + ")").ExecuteContext(ctx)
	stop()
	os.Exit(cli.Report(os.Stderr, err))
}
