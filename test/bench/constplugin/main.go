// Command constplugin is a Vault secrets engine that answers every read with
// the same data, of the shape and size of an API key's: no engine outside
// Vault's process can be faster. It is the peer in the benchmarks.
package main

import (
	"context"
	"log"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		log.Fatal(err)
	}
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	b := &framework.Backend{
		BackendType: logical.TypeLogical,
		Paths: []*framework.Path{{
			Pattern:   "creds/(?P<name>.+)",
			Fields:    map[string]*framework.FieldSchema{"name": {Type: framework.TypeString}},
			Callbacks: map[logical.Operation]framework.OperationFunc{logical.ReadOperation: read},
		}},
	}
	return b, b.Setup(ctx, conf)
}

func read(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{
		Data: map[string]any{
			"key": "sr_0123456789abcdefghijklmnopqrstuvwxyzABCD", "version": 2, "etag": `"0123456789abcdef01234567"`,
			"created_time": "2026-11-24T00:00:00Z", "last_rotated_time": "2026-11-24T00:00:00Z",
			"next_rotation_time": "2027-02-22T00:00:00Z", "ttl": 604800, "cache_ttl": 604800,
			"rotation_period": 7776000, "last_vault_rotation": "2026-11-24T00:00:00Z", "state": "current",
		},
		Headers: map[string][]string{"ETag": {`"0123456789abcdef01234567"`}},
	}, nil
}
