package apps

import (
	"context"
	"fmt"
	"path"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

// Vault is what this package needs of it. Paths are without "v1/".
type Vault interface {
	// Read gives nil data for what isn't there.
	Read(ctx context.Context, path string) (map[string]any, error)
	// List gives the names directly below path; folders end in "/".
	List(ctx context.Context, path string) ([]string, error)
	// Write may answer with nil data.
	Write(ctx context.Context, path string, data map[string]any) (map[string]any, error)
	// Delete of what isn't there is no error.
	Delete(ctx context.Context, path string) error
	// Wrap writes, and has the answer kept by Vault for ttl, to be fetched once
	// with the token that comes back.
	Wrap(ctx context.Context, path string, data map[string]any, ttl time.Duration) (Wrapped, error)
	// Unwrap fetches what Wrap left. It works once, and needs no other token.
	Unwrap(ctx context.Context, token string) (map[string]any, error)
	// Lease reads a path whose answer has a lease.
	Lease(ctx context.Context, path string) (Lease, error)
}

// Wrapped is an answer of Vault's that can be fetched once.
type Wrapped = vaultapi.Wrapped

// Lease is a secret with a lifetime.
type Lease = vaultapi.Lease

// client is the real Vault.
type client struct {
	*vaultapi.Client
	warned func(path, warning string)
}

// New speaks to Vault as c's token.
func New(c *vaultapi.Client) Vault { return NewWarned(c, nil) }

// NewWarned is New, and tells what Vault warns of when something is written.
func NewWarned(c *vaultapi.Client, warned func(path, warning string)) Vault { return client{c, warned} }

var _ Vault = client{}

func (c client) Read(ctx context.Context, path string) (map[string]any, error) {
	data, err := c.Client.Read(ctx, path)
	// What a plan is about to mount is not there yet, and nothing in it.
	if vaultapi.IsNotFound(err) || vaultapi.IsUnmounted(err) {
		return vaultapi.DataOf(err), nil
	}
	return data, err
}

func (c client) List(ctx context.Context, path string) ([]string, error) {
	names, err := c.Client.List(ctx, path)
	if vaultapi.IsUnmounted(err) {
		return nil, nil
	}
	return names, err
}

func (c client) Write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	got, warnings, err := c.WriteWarned(ctx, path, data)
	for _, w := range warnings {
		if c.warned != nil {
			c.warned(path, w)
		}
	}
	return got, err
}

func (c client) Unwrap(ctx context.Context, token string) (map[string]any, error) {
	return c.Client.Unwrap(ctx, token)
}

func (c client) Lease(ctx context.Context, path string) (Lease, error) { return c.ReadLease(ctx, path) }

// stringsOf takes a list of texts as JSON gives it.
func stringsOf(v any) []string {
	switch v := v.(type) {
	case []string:
		return v
	case []any:
		out := make([]string, 0, len(v))
		for _, x := range v {
			out = append(out, fmt.Sprint(x))
		}
		return out
	}
	return nil
}

// text is a string field; empty where there is none.
func text(data map[string]any, key string) string {
	s, _ := data[key].(string)
	return s
}

func folderOf(name string) string { return path.Dir(name) }
