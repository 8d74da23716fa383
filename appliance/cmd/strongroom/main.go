// Command strongroom is the appliance: its daemons, timer jobs and the
// operator's command line.
package main

import (
	"context"
	"os"

	"strongroom.example/appliance/base/program"
	"strongroom.example/appliance/cli"
)

// Set by the build: the content of VERSION, and the commit.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := program.Interruptible(context.Background())
	// A second signal then kills, as if nothing had been asked for: whatever does not
	// end by itself can be left.
	context.AfterFunc(ctx, stop)
	code := program.Run(ctx, cli.New(version+" ("+commit+")"), cli.Report)
	stop()
	os.Exit(code)
}
