// Command constplugin is a Vault secrets engine that answers every read with
// one and the same answer, which is written to it before: no engine outside
// Vault's process that is made the usual way can be faster. It is the peer in
// the benchmarks.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: factory}); err != nil {
		log.Fatal(err)
	}
}

// engine holds the answer.
type engine struct {
	answer atomic.Pointer[logical.Response]
}

func factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	e := &engine{}
	e.answer.Store(&logical.Response{})
	b := &framework.Backend{
		BackendType: logical.TypeLogical,
		Paths: []*framework.Path{{
			Pattern:   "creds/(?P<name>.+)",
			Fields:    map[string]*framework.FieldSchema{"name": {Type: framework.TypeString}},
			Callbacks: map[logical.Operation]framework.OperationFunc{logical.ReadOperation: e.read},
		}, {
			Pattern:   "answer",
			Fields:    map[string]*framework.FieldSchema{"data": {Type: framework.TypeString}, "etag": {Type: framework.TypeString}},
			Callbacks: map[logical.Operation]framework.OperationFunc{logical.UpdateOperation: e.write},
		}},
	}
	return b, b.Setup(ctx, conf)
}

func (e *engine) read(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	shared := e.answer.Load()
	return &logical.Response{Data: shared.Data, Headers: shared.Headers}, nil
}

// write takes the answer as JSON. Numbers stay as they are, so that the same
// bytes go over the wire.
func (e *engine) write(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	in := json.NewDecoder(strings.NewReader(d.Get("data").(string)))
	in.UseNumber()
	var data map[string]any
	if err := in.Decode(&data); err != nil {
		return nil, fmt.Errorf("data is no JSON object: %w", err)
	}
	e.answer.Store(&logical.Response{Data: data, Headers: map[string][]string{"ETag": {d.Get("etag").(string)}}})
	return nil, nil
}
