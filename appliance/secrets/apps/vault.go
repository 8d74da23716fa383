package apps

import (
	"context"
	"fmt"
	"path"
	"time"

	"github.com/hashicorp/vault/api"

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

// Wrapped is an answer of Vault's that can be fetched once. Token is secret.
type Wrapped struct {
	Token   string
	TTL     time.Duration
	Created time.Time
	Path    string // the request that made it
}

// Lease is a secret with a lifetime. Data is secret.
type Lease struct {
	ID       string
	Duration time.Duration
	Data     map[string]any
}

// client is the real Vault.
type client struct{ api *api.Client }

// New speaks to Vault as c's token.
func New(c *vaultapi.Client) Vault { return client{c.API()} }

var _ Vault = client{}

func (c client) Read(ctx context.Context, path string) (map[string]any, error) {
	s, err := c.api.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if s == nil {
		return nil, nil
	}
	return s.Data, nil
}

func (c client) List(ctx context.Context, path string) ([]string, error) {
	s, err := c.api.Logical().ListWithContext(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	if s == nil {
		return nil, nil
	}
	return stringsOf(s.Data["keys"]), nil
}

func (c client) Write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	s, err := c.api.Logical().WriteWithContext(ctx, path, data)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	if s == nil {
		return nil, nil
	}
	return s.Data, nil
}

func (c client) Delete(ctx context.Context, path string) error {
	if _, err := c.api.Logical().DeleteWithContext(ctx, path); err != nil {
		return fmt.Errorf("delete %s: %w", path, err)
	}
	return nil
}

func (c client) Wrap(ctx context.Context, path string, data map[string]any, ttl time.Duration) (Wrapped, error) {
	one, err := c.api.Clone()
	if err != nil {
		return Wrapped{}, fmt.Errorf("write %s: %w", path, err)
	}
	one.SetToken(c.api.Token())
	one.SetWrappingLookupFunc(func(string, string) string { return ttl.String() })
	s, err := one.Logical().WriteWithContext(ctx, path, data)
	if err != nil {
		return Wrapped{}, fmt.Errorf("write %s: %w", path, err)
	}
	if s == nil || s.WrapInfo == nil || s.WrapInfo.Token == "" {
		return Wrapped{}, fmt.Errorf("write %s: the answer is not wrapped", path)
	}
	w := s.WrapInfo
	return Wrapped{Token: w.Token, TTL: time.Duration(w.TTL) * time.Second, Created: w.CreationTime, Path: w.CreationPath}, nil
}

func (c client) Unwrap(ctx context.Context, token string) (map[string]any, error) {
	one, err := c.api.Clone()
	if err != nil {
		return nil, fmt.Errorf("unwrap: %w", err)
	}
	one.SetToken(token)
	s, err := one.Logical().WriteWithContext(ctx, "sys/wrapping/unwrap", nil)
	if err != nil {
		return nil, fmt.Errorf("unwrap: %w", err)
	}
	if s == nil {
		return nil, nil
	}
	return s.Data, nil
}

func (c client) Lease(ctx context.Context, path string) (Lease, error) {
	s, err := c.api.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return Lease{}, fmt.Errorf("read %s: %w", path, err)
	}
	if s == nil {
		return Lease{}, fmt.Errorf("read %s: nothing is there", path)
	}
	return Lease{ID: s.LeaseID, Duration: time.Duration(s.LeaseDuration) * time.Second, Data: s.Data}, nil
}

// denied tells whether Vault refused a request for want of rights.
func denied(err error) bool {
	return vaultapi.IsDenied(err)
}

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
