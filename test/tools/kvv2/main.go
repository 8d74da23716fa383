// Command kvv2 serves HashiCorp's KV secrets engine, version 2, as an external
// plugin: a peer in the benchmarks. Their own command can be mounted under the
// name kv only, where Vault insists on its built-in one.
package main

import (
	"log"

	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: kv.VersionedKVFactory}); err != nil {
		log.Fatal(err)
	}
}
