package apikeys

import (
	"context"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// BenchmarkRead is what a read costs inside the engine, without gRPC and
// Vault, which take some hundred microseconds more.
func BenchmarkRead(b *testing.B) {
	for name, data := range map[string]map[string]any{"whole": {}, "unchanged": {"if_version": 1}} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, remoteCaps())
			w.localKey("app/production/x", nil)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := w.b.HandleRequest(context.Background(), &logical.Request{
					Operation: logical.ReadOperation, Path: "creds/app/production/x", Data: data, Storage: w.storage,
				})
				if err != nil || resp == nil {
					b.Fatal(err)
				}
			}
		})
	}
}
