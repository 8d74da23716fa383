package provider

import (
	"context"
	"time"
)

// DryRunner is what a provider is, too, that can show what it would send.
type DryRunner interface {
	// DryRun renders every request for a key with these parameters, without
	// I/O. Secrets are never in it: each is shown as Masked.
	DryRun(params map[string]any) ([]DryRequest, error)
}

// Masked stands in a DryRequest where a secret would be.
const Masked = "********"

// DryRequest is a request as it would be sent.
type DryRequest struct {
	Op     string            `json:"op"` // token, create, list, test, revoke, last_used
	Method string            `json:"method"`
	URL    string            `json:"url"`
	Header map[string]string `json:"header"`
	Body   string            `json:"body,omitempty"`
}

// Examiner is what a provider is, too, whose service tells when a key ends.
type Examiner interface {
	// Examine is Test where Capabilities.Test, and gives when the key ends by
	// itself; the zero time: never. told is false where the service does not
	// say. An end that cannot be read is an error, and never "never".
	Examine(ctx context.Context, params map[string]any, key Key) (expires time.Time, told bool, err error)
}

// Examine tests key and asks when it ends, as far as p can.
func Examine(ctx context.Context, p Provider, params map[string]any, key Key) (expires time.Time, told bool, err error) {
	if e, ok := p.(Examiner); ok {
		return e.Examine(ctx, params, key)
	}
	return time.Time{}, false, p.Test(ctx, params, key)
}

// NamedRevoker is what a provider is, too, whose service may want a key's name
// in order to end it.
type NamedRevoker interface {
	// RevokeNamed is Revoke for a key whose name is known; empty: unknown.
	RevokeNamed(ctx context.Context, params map[string]any, id, name string) error
}

// Revoke ends the key with this id, which was created under this name (empty:
// unknown, as of a key that was imported).
func Revoke(ctx context.Context, p Provider, params map[string]any, id, name string) error {
	if r, ok := p.(NamedRevoker); ok {
		return r.RevokeNamed(ctx, params, id, name)
	}
	return p.Revoke(ctx, params, id)
}

// Destination is a place that a secret is sent to, or signs requests for.
type Destination struct {
	Secret string // SecretCredential or SecretValue
	Origin string // scheme, host and port
}

// The secrets of a Destination.
const (
	SecretCredential = "credential"
	SecretValue      = "value" // of the keys themselves
)

// Destined is what a provider is, too, that knows where it sends secrets.
type Destined interface {
	// Destinations are all of them, without I/O.
	Destinations() []Destination
}

// Inspector is what a provider is, too, that can show what the paths of its
// declaration select.
type Inspector interface {
	// Inspect sends one request of op, list or test, and tells what each path
	// selects in the answer, masked; of a list in its first entry.
	Inspect(ctx context.Context, op string, params map[string]any, key Key) ([]Selected, error)
}

// Selected is what a path selects.
type Selected struct {
	Field string `json:"field"` // of the declaration
	Path  string `json:"path"`
	Shown string `json:"shown"` // never a secret
}

// Pooler is what a provider is, too, whose limit of keys is not of the account, but
// of something in it that the parameters name, as a user.
type Pooler interface {
	// Pool is the same for keys that count together towards Capabilities.MaxKeys.
	Pool(params map[string]any) string
}

// Pool tells which keys of an account count together; "": all.
func Pool(p Provider, params map[string]any) string {
	if one, ok := p.(Pooler); ok {
		return one.Pool(params)
	}
	return ""
}
