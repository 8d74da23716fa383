// Command strongroom-installer turns a fresh Debian or Ubuntu machine into a
// hardened Vault. It carries everything but Vault itself.
package main

import (
	"context"
	"os"

	"strongroom.example/appliance/base/program"
	"strongroom.example/installer/cli"
)

// Set by the build: the content of VERSION, and the commit.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := program.Interruptible(context.Background())
	code := program.Run(ctx, cli.New(version, commit), cli.Report)
	stop()
	os.Exit(code)
}
