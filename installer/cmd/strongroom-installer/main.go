// Command strongroom-installer turns a fresh Debian or Ubuntu machine into a
// hardened Vault. It carries everything but Vault itself.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"strongroom.example/installer/cli"
)

// Set by the build: the content of VERSION, and the commit.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := cli.New(version, commit).ExecuteContext(ctx)
	stop()
	os.Exit(cli.Report(os.Stderr, err))
}
