package kms

import (
	"context"
	"errors"
	"fmt"

	"strongroom.example/appliance/base/credential"
)

// ErrOtherKey says that a master key is in force that the given one could not
// take the place of.
var ErrOtherKey = errors.New("another master key is in force here")

// Import puts a master key back at path, from its escrow. One that is there and
// opens gives way only to a keyset that holds its versions too: Vault's data may
// need each of them. One that does not open for now, as while the TPM is in
// lockout, stays.
func Import(ctx context.Context, s Store, path string, k *Keyset) error {
	old, err := s.Open(ctx, path)
	defer clear(old)
	switch {
	case errors.Is(err, credential.ErrLockout):
		return err
	case err == nil:
		// What does not parse is no key, and has nothing to lose.
		if here, err := ParseKeyset(old); err == nil {
			if err := extends(k, here); err != nil {
				return fmt.Errorf("%w, %s: %w", ErrOtherKey, here.Fingerprint(), err)
			}
		}
	case ctx.Err() != nil:
		return err
	}
	plain, err := k.Marshal()
	if err != nil {
		return err
	}
	defer clear(plain)
	return s.Seal(ctx, path, plain)
}
