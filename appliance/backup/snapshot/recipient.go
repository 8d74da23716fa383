package snapshot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"
)

// Recipient is a public key that snapshots are encrypted to.
type Recipient struct {
	age.Recipient
	// Fingerprint identifies the key without being it: "SHA256:" and base64,
	// for SSH keys the same that ssh-keygen -l shows.
	Fingerprint string
}

// maxRecipientLine bounds one line of a recipients file, in bytes: an ssh-rsa
// key of 16384 bits fits.
const maxRecipientLine = 16 << 10

// ParseRecipients reads recipients one a line, in the form of an age recipients
// file or of authorized_keys: age1…, ssh-ed25519 …, ssh-rsa …; empty lines and
// lines that start with # are skipped. All faulty lines are reported together.
func ParseRecipients(r io.Reader) ([]Recipient, error) {
	var out []Recipient
	var errs []error
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxRecipientLine)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rc, err := ParseRecipient(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		out = append(out, rc)
	}
	if err := s.Err(); err != nil {
		errs = append(errs, fmt.Errorf("read recipients: %w", err))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(out) == 0 {
		return nil, errors.New("no recipient given")
	}
	return out, nil
}

// ParseRecipient parses one recipient.
func ParseRecipient(s string) (Recipient, error) {
	switch {
	case strings.HasPrefix(s, "AGE-SECRET-KEY-"):
		// Never quoted: it is the private half.
		return Recipient{}, errors.New("this is a secret key, not a recipient")
	case strings.HasPrefix(s, "age1pq1"):
		r, err := age.ParseHybridRecipient(s)
		if err != nil {
			return Recipient{}, fmt.Errorf("recipient %q: %w", shorten(s), err)
		}
		return Recipient{r, fingerprint([]byte(s))}, nil
	case strings.HasPrefix(s, "age1"):
		r, err := age.ParseX25519Recipient(s)
		if err != nil {
			return Recipient{}, fmt.Errorf("recipient %q: %w", shorten(s), err)
		}
		return Recipient{r, fingerprint([]byte(s))}, nil
	}
	// authorized_keys lines may carry options before the key, which
	// agessh.ParseRecipient does not read.
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s))
	if err != nil {
		return Recipient{}, fmt.Errorf("recipient %q: neither an age recipient nor an SSH public key", shorten(s))
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA:
	default:
		return Recipient{}, fmt.Errorf("recipient %q: age cannot encrypt to keys of type %q, only to ssh-ed25519, ssh-rsa and age1", shorten(s), key.Type())
	}
	r, err := agessh.ParseRecipient(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))))
	if err != nil {
		return Recipient{}, fmt.Errorf("recipient %q: %w", shorten(s), err)
	}
	return Recipient{r, ssh.FingerprintSHA256(key)}, nil
}

func fingerprint(b []byte) string {
	sum := sha256.Sum256(b)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// shorten keeps a quoted key readable.
func shorten(s string) string {
	if len(s) > 48 {
		return s[:48] + "…"
	}
	return s
}

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
