package apikeys

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

const hashKeyBytes = 32

func (b *backend) pathVerify() []*framework.Path {
	return []*framework.Path{{
		Pattern: "verify/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name": nameField(),
			"key":  {Type: framework.TypeString, Required: true, Description: "The key that somebody has presented.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
		},
		Callbacks: map[logical.Operation]framework.OperationFunc{
			logical.UpdateOperation: b.handle(b.handleVerify),
		},
		HelpSynopsis: "Tell whether a presented key is valid.",
		HelpDescription: `
For keys that Vault itself makes (type generated): a service checks with one
call whether what a client has presented is the current version or one in its
grace period. valid=false says nothing about why. The time that it takes does
not depend on how much of the key is right.`,
	}}
}

func (b *backend) handleVerify(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	presented := d.Get("key").(string)
	if presented == "" || len(presented) > maxValueBytes {
		return nil, refuse("", "key: must have 1 to %d bytes", maxValueBytes)
	}
	snap, err := b.snapshot(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if snap == nil {
		return nil, refuse("", "there is no key %q", name)
	}
	if !snap.caps.Local && snap.known {
		return nil, refuse("", "key %q is made by provider %q: only that service can verify it", name, snap.rec.Def.Provider)
	}
	v := snap.rec.matching(presented)
	if v == nil || !v.ReadableAt(b.clock.now()) {
		return &logical.Response{Data: map[string]any{"valid": false}}, nil
	}
	data := map[string]any{"valid": true, "version": v.Number, "state": string(v.State)}
	if v.State == lifecycle.Grace {
		data["revoke_time"] = stamp(v.RevokeAt)
	}
	return &logical.Response{Data: data}, nil
}

// matching gives the version whose key is the presented one, or nil. It always
// compares with every version, and digests instead of the keys, so that time
// tells neither length nor place of a difference.
func (r *keyRecord) matching(presented string) *lifecycle.Version {
	plain := sha256.Sum256([]byte(presented))
	hashed := keyedHash(r.HashKey, presented)
	var found *lifecycle.Version
	for v := range r.Life.All() {
		stored := sha256.Sum256([]byte(r.Values[v.Number][provider.PrimaryValue]))
		equal := subtle.ConstantTimeCompare(plain[:], stored[:]) & boolInt(len(r.Values[v.Number]) > 0)
		equal |= subtle.ConstantTimeCompare(hashed, r.Hashes[v.Number]) & boolInt(len(r.Hashes[v.Number]) > 0)
		if equal == 1 {
			found = v
		}
	}
	return found
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func keyedHash(key []byte, value string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, value) // a hash never fails
	return h.Sum(nil)
}

// hashOld replaces the values of versions that are no longer current by keyed
// hashes, where the key's definition wants that. next must be a clone.
func hashOld(next *keyRecord, rand io.Reader) error {
	if !next.Def.HashOld {
		return nil
	}
	if len(next.HashKey) == 0 {
		key := make([]byte, hashKeyBytes)
		if _, err := io.ReadFull(rand, key); err != nil {
			return fmt.Errorf("the source of randomness failed: %w", err)
		}
		next.HashKey = key
	}
	for v := range next.Life.All() {
		values, ok := next.Values[v.Number]
		if v.State != lifecycle.Grace || !ok {
			continue
		}
		if next.Hashes == nil {
			next.Hashes = map[int][]byte{}
		}
		next.Hashes[v.Number] = keyedHash(next.HashKey, values[provider.PrimaryValue])
		delete(next.Values, v.Number)
	}
	return nil
}
