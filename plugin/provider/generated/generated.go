// Package generated issues API keys of Vault's own: for a team's services,
// which check a presented key with one call to the engine.
//
// It is not a store. It keeps no list of what it issued, so it neither lists
// nor tests keys; a key is dead once the engine has dropped its version.
package generated

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
)

// MinEntropyBits is what every key must have at least.
const MinEntropyBits = 128

const (
	defaultLength = 32 // characters; 190 bits with the default alphabet
	maxLength     = 512
	maxPrefix     = 32
	maxPolicyName = 128
)

// digits, upper, lower are in the order of GitHub's base62.
const (
	digits = "0123456789"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	base62 = digits + upper + lower
)

// alphabetNames lists the names that alphabetOf knows, for messages.
var alphabetNames = []string{"base62", "base58", "base64url", "base32", "hex", "lowercase", "uppercase"}

func alphabetOf(name string) string {
	switch name {
	case "base62":
		return base62
	case "base58": // without 0, O, I and l, which people mix up
		return "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	case "base64url":
		return base62 + "-_"
	case "base32": // RFC 4648, section 6
		return upper + "234567"
	case "hex":
		return digits + "abcdef"
	case "lowercase":
		return lower + digits
	case "uppercase":
		return upper + digits
	}
	return ""
}

// Provider issues keys out of cfg.Rand or of a Vault password policy.
type Provider struct {
	defaults map[string]any
	password func(ctx context.Context, policy string) (string, error)

	randMu sync.Mutex // an injected reader need not be safe for concurrent use
	rand   io.Reader
}

var (
	_ provider.Provider = (*Provider)(nil)
	_ provider.Factory  = New
)

// New builds the provider. Its settings are the defaults of the parameters
// that a key may set itself, under the same names:
//
//	prefix           up to 32 of [a-zA-Z0-9_-.], before the random part
//	length           random characters, 1 to 512; default 32
//	alphabet         base62 (default), base58, base64url, base32, hex, lowercase, uppercase
//	characters       in place of alphabet: the characters themselves
//	checksum         none (default) or crc32 (6 characters at the end, as in GitHub's tokens)
//	password_policy  in place of length, alphabet, characters: a Vault password policy
//
// It takes no credential.
func New(cfg provider.Config) (provider.Provider, error) {
	m := fields.New("settings", cfg.Settings)
	readFormat(m, cfg.Password != nil)
	if len(cfg.Credential) > 0 {
		m.Fail("", "a provider of type generated takes no credential")
	}
	if cfg.Rand == nil {
		m.Fail("", "no source of randomness was given")
	}
	if err := m.Err(); err != nil {
		return nil, err
	}
	return &Provider{defaults: cfg.Settings, password: cfg.Password, rand: cfg.Rand}, nil
}

// Capabilities of a local issuer: keys overlap as the engine likes, and the
// service has nothing to list or to ask.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{Mint: true, Revoke: true, Overlap: true, Local: true}
}

// ValidateParameters checks a key's format together with the provider's.
func (p *Provider) ValidateParameters(params map[string]any) error {
	_, err := p.format(params)
	return err
}

func (p *Provider) format(params map[string]any) (format, error) {
	m := fields.New("parameters", p.merge(params))
	f := readFormat(m, p.password != nil)
	return f, m.Err()
}

// merge lays params over the provider's defaults. A way to choose characters
// that the key names itself replaces the provider's other way.
func (p *Provider) merge(params map[string]any) map[string]any {
	out := make(map[string]any, len(p.defaults)+len(params))
	for k, v := range p.defaults {
		out[k] = v
	}
	_, policy := params["password_policy"]
	_, alphabet := params["alphabet"]
	_, characters := params["characters"]
	_, length := params["length"]
	if policy {
		delete(out, "alphabet")
		delete(out, "characters")
		delete(out, "length")
	}
	if alphabet || characters {
		delete(out, "alphabet")
		delete(out, "characters")
	}
	if alphabet || characters || length {
		delete(out, "password_policy")
	}
	for k, v := range params {
		out[k] = v
	}
	return out
}

// Create issues a key; its id is its name.
func (p *Provider) Create(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
	fail := func(kind provider.Kind, msg string, err error) (provider.Key, error) {
		return provider.Key{}, &provider.Error{Op: "create", Kind: kind, Msg: msg, Err: err}
	}
	if err := provider.CheckName(req.Name); err != nil {
		return fail(provider.KindRejected, err.Error(), err)
	}
	f, err := p.format(req.Parameters)
	if err != nil {
		return fail(provider.KindRejected, err.Error(), err)
	}
	if err := ctx.Err(); err != nil {
		return fail(provider.KindTransient, "cancelled before anything was issued", err)
	}
	var random string
	if f.policy != "" {
		random, err = p.password(ctx, f.policy)
		if err != nil {
			return fail(provider.KindTransient, fmt.Sprintf("password policy %q gave no password", f.policy), err)
		}
		if bits := atMostBits(random); bits < MinEntropyBits {
			return fail(provider.KindRejected, fmt.Sprintf(
				"password policy %q is too weak: at most %.0f bits, needed are %d; raise its length", f.policy, bits, MinEntropyBits), nil)
		}
	} else {
		p.randMu.Lock()
		random, err = draw(p.rand, f.alphabet, f.length)
		p.randMu.Unlock()
		if err != nil {
			return fail(provider.KindTransient, "the source of randomness failed", err)
		}
	}
	value := f.prefix + random
	if f.checksum {
		value += Checksum(random)
	}
	return provider.Key{ID: req.Name, Name: req.Name, Values: map[string]string{provider.PrimaryValue: value}}, nil
}

// Revoke has nothing to do: the engine drops the version, and with it goes
// the only thing that the key can be checked against.
func (p *Provider) Revoke(ctx context.Context, _ map[string]any, _ string) error {
	if err := ctx.Err(); err != nil {
		return &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "cancelled", Err: err}
	}
	return nil
}

// List is not supported: there is no remote state.
func (p *Provider) List(context.Context, map[string]any, string) ([]provider.RemoteKey, error) {
	return nil, unsupported("list")
}

// Test is not supported: the engine itself knows which keys it holds.
func (p *Provider) Test(context.Context, map[string]any, provider.Key) error {
	return unsupported("test")
}

// LastUsed is not supported.
func (p *Provider) LastUsed(context.Context, map[string]any, string) (time.Time, error) {
	return time.Time{}, unsupported("last_used")
}

func unsupported(op string) error {
	return &provider.Error{Op: op, Kind: provider.KindUnsupported, Msg: "keys of type generated exist in Vault alone"}
}

// atMostBits is an upper bound of the entropy of a password, judged by the
// kinds of characters in it: a policy that stays below the minimum even so is
// surely too weak.
func atMostBits(s string) float64 {
	pool := 0
	for _, class := range []string{digits, upper, lower} {
		if strings.ContainsAny(s, class) {
			pool += len(class)
		}
	}
	if strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(base62, r) }) >= 0 {
		pool += 33 // the printable rest of ASCII
	}
	if pool < 2 {
		return 0
	}
	return float64(len([]rune(s))) * math.Log2(float64(pool))
}
