package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"
)

// ParseIdentities reads private keys: an age identity file (AGE-SECRET-KEY-1…,
// one a line) or an SSH private key of type ed25519 or RSA in PEM. passphrase
// is asked only when an encrypted SSH key matches a snapshot; it may be nil,
// and then such a key is refused. A wrong one is ErrPassphrase from whoever
// decrypts. Errors never quote the data, which may be wiped afterwards.
func ParseIdentities(data []byte, passphrase func() ([]byte, error)) ([]age.Identity, error) {
	if !strings.Contains(string(data), "-----BEGIN ") {
		ids, err := age.ParseIdentities(strings.NewReader(string(data)))
		if err != nil {
			// The library's message may quote the malformed line.
			return nil, errors.New("malformed age identity file")
		}
		return ids, nil
	}
	id, err := agessh.ParseIdentity(data)
	if err == nil {
		return []age.Identity{id}, nil
	}
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		return nil, fmt.Errorf("SSH private key: %w", err)
	}
	if passphrase == nil {
		return nil, errors.New("the SSH private key is encrypted and there is nobody to ask for its passphrase")
	}
	if locked.PublicKey == nil {
		return nil, errors.New("the encrypted SSH private key does not contain its public key: convert it with ssh-keygen -p")
	}
	// A copy: the caller may wipe data, and the key is opened when it is needed.
	enc, err := newLockedKey(locked.PublicKey, bytes.Clone(data), passphrase)
	if err != nil {
		return nil, fmt.Errorf("SSH private key: %w", err)
	}
	return []age.Identity{enc}, nil
}
