// The program vault-plugin-secrets-apikeys is the apikeys secrets engine as
// Vault starts it. It only wires: what it does is in the package apikeys.
package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"time"
	_ "time/tzdata" // schedules name zones, and a hardened machine may have no zone files

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"

	apikeys "strongroom.example/plugin"
	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/awsiam"
	"strongroom.example/plugin/provider/generated"
	"strongroom.example/plugin/provider/httpprov"
	"strongroom.example/plugin/provider/manual"
)

// Set by the linker: -X main.version=… -X main.commit=…
var (
	version = "0.0.0"
	commit  = "unknown"
)

// parentCheck is how often the program looks whether Vault is still there. It
// must be gone within two seconds after its parent was killed.
const parentCheck = 500 * time.Millisecond

func main() {
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case "--version":
			fmt.Printf("vault-plugin-secrets-apikeys %s (%s)\n", version, commit)
			return
		case "--storage-format": // asked by an upgrade of both programs, the old and the new
			fmt.Println(apikeys.StorageFormat)
			return
		}
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: "apikeys", Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	if err := run(logger); err != nil {
		logger.Error("the plugin ends", "error", err)
		os.Exit(1)
	}
}

// ballastBytes make the garbage collector run less often: with a live heap of
// a few megabytes it would run at every few hundred reads. The memory is never
// touched, so it is not resident; the heap may grow by so much more before it
// is collected.
const ballastBytes = 24 << 20

func run(logger hclog.Logger) error {
	go exitWithParent(os.Getppid())
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	meta := &api.PluginAPIClientMeta{}
	if err := meta.FlagSet().Parse(os.Args[1:]); err != nil {
		return err
	}
	factory := apikeys.Factory(apikeys.Options{
		Providers: map[string]provider.Factory{
			"aws_iam":   awsiam.New,
			"generated": generated.New,
			"http":      httpprov.New,
			"manual":    manual.New,
		},
		Version:     "v" + version,
		Clock:       apikeys.SystemClock(),
		Rand:        rand.Reader,
		EpochFile:   os.Getenv(apikeys.EpochFileVariable),
		ChangedFile: os.Getenv(apikeys.ChangedFileVariable),
		Tick:        time.Second,
	})
	return plugin.ServeMultiplex(&plugin.ServeOpts{
		BackendFactoryFunc: factory,
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
		Logger:             logger,
	})
}

// exitWithParent ends the process when it has been given to another parent:
// Vault was killed, and whoever starts it again starts its own plugins. Every
// state that this leaves in storage is one that a start recovers from.
func exitWithParent(parent int) {
	for range time.Tick(parentCheck) {
		if os.Getppid() != parent {
			os.Exit(1)
		}
	}
}
