// Command strongroom-installer turns a fresh Debian or Ubuntu machine into a
// hardened Vault. It carries everything but Vault itself.
package main

import (
	"context"
	"os"

	"strongroom.example/installer/cli"
)

// Set by the build: the content of VERSION, and the commit.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := cli.Interruptible(context.Background())
	err := cli.New(version, commit).ExecuteContext(ctx)
	stop()
	os.Exit(cli.Report(os.Stderr, err))
}
