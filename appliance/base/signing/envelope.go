// Package signing is the one envelope in which jobs sign what they tell, and the keyring
// of the public keys that it is checked with.
//
// A signature says which key has signed, and that nothing was changed since. It does not
// say that what was signed is true, nor that it is the newest.
//
// It signs what its caller has made itself: there is no command for files that somebody
// hands over.
package signing

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

var (
	// ErrNotSigned means that there is no signature.
	ErrNotSigned = errors.New("it is not signed")
	// ErrSignature means that something is not what was signed, or that another key
	// has signed it.
	ErrSignature = errors.New("its signature is not good")
)

// Kind is what is signed. A signature of one kind is none of another.
type Kind struct {
	Name   string // for people, and in what is signed: "drill report"
	Member string // of the file: "report"
	Max    int    // bytes of a file
}

// Envelope is a file {"MEMBER": …, "signature": …}. The signature is ed25519's (RFC
// 8032) over "strongroom NAME v1\n" and the member's JSON without white space between its
// tokens, so a file that was only laid out anew stays good.
type Envelope struct {
	Content   json.RawMessage
	kind      Kind
	signature *signature
}

type signature struct {
	Algorithm string `json:"algorithm"` // "ed25519"
	Key       string `json:"key"`       // fingerprint of the public key
	Value     string `json:"value"`     // base64
}

// Encode gives the file. Without a key it is not signed.
func (k Kind) Encode(content any, key ed25519.PrivateKey) ([]byte, error) {
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", k.Name, err)
	}
	file := map[string]any{k.Member: json.RawMessage(raw)}
	if key != nil {
		message, err := k.message(raw)
		if err != nil {
			return nil, err
		}
		file["signature"] = signature{
			Algorithm: "ed25519", Key: Fingerprint(key.Public().(ed25519.PublicKey)),
			Value: base64.StdEncoding.EncodeToString(ed25519.Sign(key, message)),
		}
	}
	out, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", k.Name, err)
	}
	return append(out, '\n'), nil
}

func (k Kind) message(raw []byte) ([]byte, error) {
	b := bytes.NewBufferString("strongroom " + k.Name + " v1\n")
	if err := json.Compact(b, raw); err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	return b.Bytes(), nil
}

// Parse reads a file and doesn't judge its signature.
func (k Kind) Parse(data []byte) (*Envelope, error) {
	if len(data) > k.Max {
		return nil, fmt.Errorf("%s: more than %d bytes", k.Name, k.Max)
	}
	e := &Envelope{kind: k}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%s: it is no JSON object", k.Name)
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		// Readers differ in which of two members of a name they take, so what is signed
		// could hide another one; Go matches names without regard to case.
		name := fmt.Sprint(t)
		if folded := strings.ToLower(name); seen[folded] {
			return nil, fmt.Errorf("%s: %q is there twice", k.Name, name)
		} else {
			seen[folded] = true
		}
		switch name {
		case k.Member:
			err = d.Decode(&e.Content)
		case "signature":
			err = d.Decode(&e.signature)
		default:
			return nil, fmt.Errorf("%s: unknown member %q", k.Name, name)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%s: something follows it", k.Name)
	}
	if len(e.Content) == 0 {
		return nil, fmt.Errorf("%s: want an object with %q", k.Name, k.Member)
	}
	return e, nil
}

// Verify checks the signature against a public key: ErrNotSigned, ErrSignature.
func (e *Envelope) Verify(key ed25519.PublicKey) error {
	if e.signature == nil {
		return fmt.Errorf("%s: %w", e.kind.Name, ErrNotSigned)
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w: %s", e.kind.Name, ErrSignature, fmt.Sprintf(format, args...))
	}
	if e.signature.Algorithm != "ed25519" {
		return bad("algorithm %q", e.signature.Algorithm)
	}
	if want := Fingerprint(key); e.signature.Key != want {
		return bad("key %q signed it, the one given is %q", e.signature.Key, want)
	}
	value, err := base64.StdEncoding.Strict().DecodeString(e.signature.Value)
	if err != nil {
		return bad("it is not base64")
	}
	message, err := e.kind.message(e.Content)
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, message, value) {
		return bad("it has been changed since it was signed")
	}
	return nil
}

// ParseKey reads a credential with a signing key: the base64 of an ed25519 seed. Errors
// never quote it.
func ParseKey(data []byte) (ed25519.PrivateKey, error) {
	seed, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(data)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("signing key: want the base64 of %d bytes", ed25519.SeedSize)
	}
	defer clear(seed)
	return ed25519.NewKeyFromSeed(seed), nil
}

// EncodePublic gives a public key's line: "ed25519 " and the base64 of the key.
func EncodePublic(key ed25519.PublicKey) []byte {
	return []byte("ed25519 " + base64.StdEncoding.EncodeToString(key) + "\n")
}

// ParsePublic reads what EncodePublic gives; the word may be missing.
func ParsePublic(data []byte) (ed25519.PublicKey, error) {
	line := strings.TrimSpace(string(data))
	line = strings.TrimSpace(strings.TrimPrefix(line, "ed25519 "))
	key, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key: want the base64 of %d bytes", ed25519.PublicKeySize)
	}
	return key, nil
}

// Fingerprint names a public key.
func Fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
