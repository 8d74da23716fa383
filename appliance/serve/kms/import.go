package kms

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/credential"
)

// ErrOtherKey says that a master key is in force that the given one could not
// take the place of.
var ErrOtherKey = errors.New("another master key is in force here")

// ErrUnsure says that one is here of which nobody knows whether it opens again.
var ErrUnsure = errors.New("a master key is here that does not open now")

// Import puts a master key back at path, from its escrow. One that is there and
// opens gives way only to a keyset that holds its versions too: Vault's data may
// need each of them. One that may open again, as after a lockout of the TPM, stays.
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
	case !lost(path, err):
		return fmt.Errorf("%w: %w", ErrUnsure, err)
	}
	plain, err := k.Marshal()
	if err != nil {
		return err
	}
	defer clear(plain)
	return s.Seal(ctx, path, plain)
}

// lost says that what is at path never opens again, by the error of opening it, or that
// there is nothing, or what systemd never made.
func lost(path string, err error) bool {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, credential.ErrRefused) || errors.Is(err, credential.ErrHostKey) || errors.Is(err, credential.ErrTPMGone) {
		return true
	}
	sealed, err := atomicfile.ReadSmall(path, 2*maxKeyset)
	_, whole := credential.Inspect(sealed)
	return err == nil && !whole
}
