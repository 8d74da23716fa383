package snapshot

import (
	"fmt"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"
)

// lockedKey is an SSH private key with a passphrase. Without the right one it
// says ErrPassphrase, so that nobody takes what it can't open for damaged.
type lockedKey struct {
	*agessh.EncryptedSSHIdentity
	fault error // of the passphrase that was asked for last
}

var _ age.Identity = (*lockedKey)(nil)

// newLockedKey keeps data: it is needed when the passphrase is known.
func newLockedKey(public ssh.PublicKey, data []byte, passphrase func() ([]byte, error)) (*lockedKey, error) {
	k := &lockedKey{}
	var err error
	k.EncryptedSSHIdentity, err = agessh.NewEncryptedSSHIdentity(public, data, func() ([]byte, error) {
		b, err := passphrase()
		if err != nil {
			k.fault = fmt.Errorf("%w: %w", ErrPassphrase, err)
			return nil, err
		}
		if _, err := ssh.ParseRawPrivateKeyWithPassphrase(data, b); err != nil {
			k.fault = fmt.Errorf("%w: %w", ErrPassphrase, err)
		}
		return b, nil
	})
	return k, err
}

// Unwrap implements age.Identity.
func (k *lockedKey) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	k.fault = nil
	b, err := k.EncryptedSSHIdentity.Unwrap(stanzas)
	if err != nil && k.fault != nil {
		return nil, k.fault
	}
	return b, err
}
