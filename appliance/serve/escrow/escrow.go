// Package escrow writes secrets in the one form in which they may reach a
// disk: age-encrypted to people's own public keys. Opening it needs a private
// key that is not on the machine.
//
// It is not a key store: it neither keeps nor finds private keys.
package escrow

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// ErrWrongIdentity is returned by Open when none of the identities fits.
var ErrWrongIdentity = errors.New("none of the given keys opens this escrow")

// maxSealed bounds what Open reads, in bytes: an escrow is a few KiB.
const maxSealed = 1 << 20

// Seal encrypts plain to every one of the recipients, any of whom can open it.
// The result is an ASCII-armored age file, https://age-encryption.org/v1.
func Seal(plain []byte, to ...age.Recipient) ([]byte, error) {
	if len(to) == 0 {
		return nil, errors.New("seal escrow: no recipient")
	}
	var out bytes.Buffer
	a := armor.NewWriter(&out)
	w, err := age.Encrypt(a, to...)
	if err != nil {
		return nil, fmt.Errorf("seal escrow: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("seal escrow: %w", err)
	}
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		return nil, fmt.Errorf("seal escrow: %w", err)
	}
	return out.Bytes(), nil
}

// Open decrypts what Seal made.
func Open(sealed []byte, with ...age.Identity) ([]byte, error) {
	if len(sealed) > maxSealed {
		return nil, fmt.Errorf("open escrow: %d bytes are more than an escrow has (%d)", len(sealed), maxSealed)
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(sealed)), with...)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return nil, ErrWrongIdentity
	}
	if err != nil {
		return nil, fmt.Errorf("open escrow: %w", err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("open escrow: %w", err)
	}
	return plain, nil
}
