// Package provider is what the secrets engine knows of a service that issues
// API keys: an interface, the errors it may answer with, and nothing else.
//
// It is not a rotation policy: when a key is minted, how long two overlap and
// what happens after a crash are the engine's decisions. A provider performs
// one remote action per call, never retries one that may have taken effect,
// and keeps no state between calls.
//
// Each provider lives in a package of its own below this one, and each passes
// the conformance suite in provider/conformance.
package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// PrimaryValue is the name in Key.Values of the API key itself. Further values
// (an access key id beside its secret, for example) stand beside it.
const PrimaryValue = "key"

// Provider issues, finds, tests and revokes API keys at one service with one
// credential. It is safe for concurrent use. Errors are *Error, and no error
// or log line ever holds a secret.
type Provider interface {
	// Capabilities says what the service can do. It is fixed for the life of
	// the value and needs no I/O.
	Capabilities() Capabilities

	// ValidateParameters checks a key's own parameters, without I/O, and
	// reports every fault at once (errors.Join). Unknown names are refused.
	ValidateParameters(params map[string]any) error

	// Create mints one key. Where the answer is lost after the request was
	// sent, the error's Kind is KindUncertain: the key may exist.
	Create(ctx context.Context, req CreateRequest) (Key, error)

	// List returns the keys alive at the service whose name begins with
	// prefix; where Capabilities.Named is false, all keys of the identity that
	// params name.
	List(ctx context.Context, params map[string]any, prefix string) ([]RemoteKey, error)

	// Test asks the service whether key works. Of a key that is refused, or
	// over, Refused(err) is true; every other error says nothing about the key.
	Test(ctx context.Context, params map[string]any, key Key) error

	// Revoke makes the key with this provider id invalid. A key that does not
	// exist (any more) is no error: the goal is reached.
	Revoke(ctx context.Context, params map[string]any, id string) error

	// LastUsed tells when the key was last used; the zero time: never, as far
	// as the service knows.
	LastUsed(ctx context.Context, params map[string]any, id string) (time.Time, error)
}

// Capabilities of a service. A method whose capability is false answers with
// KindUnsupported.
type Capabilities struct {
	Mint     bool // Create works; false for keys that only a person can make
	List     bool // List works
	Named    bool // keys carry the name given to Create, and List shows it
	Test     bool // Test works
	Revoke   bool // Revoke works
	LastUsed bool // LastUsed works
	Overlap  bool // the old key stays valid when a new one is minted
	Local    bool // Vault is the issuer: no network, no remote state
	Expires  bool // Examine tells when a key ends, which Create does not
	MaxKeys  int  // keys that may be alive at once in an account, or a pool of it; 0: no limit that matters
	// FromCurrent: Create makes the new key out of CreateRequest.Current, so
	// the first one has to be imported.
	FromCurrent bool
}

// For is what the service can do for a key that has a current version, or has
// none: without one, Create may be impossible.
func (c Capabilities) For(hasCurrent bool) Capabilities {
	c.Mint = c.Mint && (hasCurrent || !c.FromCurrent)
	return c
}

// CreateRequest asks for one new key.
type CreateRequest struct {
	// Name is unique to this attempt and derived from what the engine wrote
	// to its log beforehand. At most 64 bytes of [a-zA-Z0-9_-].
	Name string
	// Parameters are the key's own, accepted by ValidateParameters.
	Parameters map[string]any
	// Current is the present current key, for services that replace a key by
	// means of itself; nil for the first one.
	Current *Key
}

// Key is a key as the service shows it once, at its creation.
type Key struct {
	ID      string            // the service's identifier; not secret
	Name    string            // the name it was created under
	Values  map[string]string // secret; holds PrimaryValue at least
	Expires time.Time         // when the service ends it by itself; zero: never
}

// String hides the values.
func (k Key) String() string { return fmt.Sprintf("key %q (values hidden)", k.ID) }

// GoString hides the values from %#v.
func (k Key) GoString() string { return k.String() }

// RemoteKey is a key as List shows it: never its value.
type RemoteKey struct {
	ID       string
	Name     string    // empty where the service has no names
	Created  time.Time // zero: unknown
	LastUsed time.Time // zero: never or unknown
	Expires  time.Time // zero: never or unknown
}

// Config is what a provider is built from.
type Config struct {
	Name       string            // the provider's name under providers/
	Settings   map[string]any    // not secret
	Credential map[string]string // secret; what the engine authenticates with
	Now        func() time.Time
	Rand       io.Reader
	// Password generates one from a Vault password policy; nil where there is
	// no Vault, as in unit tests.
	Password func(ctx context.Context, policy string) (string, error)
}

// Factory builds a provider. It validates all of cfg without I/O and reports
// every fault at once; unknown settings are refused.
type Factory func(cfg Config) (Provider, error)

// Kind classifies an error by what the engine may do next.
type Kind int

// The kinds, from harmless to grave.
const (
	KindTransient    Kind = iota + 1 // nothing happened; try again with backoff
	KindRateLimited                  // nothing happened; try again after RetryAfter
	KindUnauthorized                 // the credential or, in a test, the key itself is refused
	KindExpired                      // the credential or, in a test, the key itself is over
	KindForbidden                    // the credential is known and may not do this
	KindLimit                        // the account has no place for one more; nothing happened
	KindRejected                     // the service refuses the request as it is; a person must act
	KindNotFound                     // what was asked for is not there
	KindUnsupported                  // this provider cannot do that
	KindUncertain                    // it may have taken effect: look before trying again
)

var kindNames = [...]string{"", "transient", "rate_limited", "unauthorized", "expired", "forbidden", "limit", "rejected", "not_found", "unsupported", "uncertain"}

// String is the kind's name as status shows it.
func (k Kind) String() string {
	if k < 1 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", int(k))
	}
	return kindNames[k]
}

// Error is the only error type that providers return from remote calls.
type Error struct {
	Op         string // create, list, test, revoke, last_used
	Kind       Kind
	Status     int           // HTTP status where there was one
	RetryAfter time.Duration // what the service asked for; 0: nothing
	Unsure     bool          // Test: by itself the answer may be of the account or a right as well
	Msg        string        // for people; never holds a secret or an unmasked answer
	Err        error         // cause; never printed unmasked
}

// Refused tells of an error of Test that the key itself does not work: not its
// rights, its account or the service.
func Refused(err error) bool {
	if err == nil {
		return false
	}
	kind := KindOf(err)
	return kind == KindUnauthorized || kind == KindExpired
}

// Error is op, kind and message; the cause is left to Unwrap because it may
// quote the service's answer.
func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("%s: %s (HTTP %d): %s", e.Op, e.Kind, e.Status, e.Msg)
	}
	return fmt.Sprintf("%s: %s: %s", e.Op, e.Kind, e.Msg)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of err. An error that is no *Error counts as
// KindUncertain, because nothing is known about what it left behind.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindUncertain
}
