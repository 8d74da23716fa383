package report

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
	"time"
)

// maxReport bounds a report's file, in bytes.
const maxReport = 8 << 20

// signedPrefix keeps a signature of a report from being one of anything else.
const signedPrefix = "strongroom drill report v1\n"

// Signed is a report's file: {"report": …, "signature": …}. The signature is
// ed25519's (RFC 8032) over signedPrefix and the report's JSON without white
// space between its tokens, so a file that was only laid out anew stays good.
type Signed struct {
	Report    Report
	raw       json.RawMessage
	signature *signature
}

type signature struct {
	Algorithm string `json:"algorithm"` // "ed25519"
	Key       string `json:"key"`       // fingerprint of the public key
	Value     string `json:"value"`     // base64
}

type signedFile struct {
	Report    json.RawMessage `json:"report"`
	Signature *signature      `json:"signature,omitempty"`
}

// ParseSigningKey reads the credential drill-signing-key: the base64 of an
// ed25519 seed. Errors never quote it.
func ParseSigningKey(data []byte) (ed25519.PrivateKey, error) {
	seed, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(data)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("drill signing key: want the base64 of %d bytes", ed25519.SeedSize)
	}
	defer clear(seed)
	return ed25519.NewKeyFromSeed(seed), nil
}

// EncodePublicKey gives the line that drill-signing.pub holds.
func EncodePublicKey(key ed25519.PublicKey) []byte {
	return []byte("ed25519 " + base64.StdEncoding.EncodeToString(key) + "\n")
}

// ParsePublicKey reads drill-signing.pub: one line, "ed25519 " and the base64
// of the key; the word may be missing.
func ParsePublicKey(data []byte) (ed25519.PublicKey, error) {
	line := strings.TrimSpace(string(data))
	line = strings.TrimSpace(strings.TrimPrefix(line, "ed25519 "))
	key, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("drill's public key: want the base64 of %d bytes", ed25519.PublicKeySize)
	}
	return key, nil
}

// KeyFingerprint names a public key.
func KeyFingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Encode gives a report's file. Without a key it is not signed.
func Encode(r *Report, key ed25519.PrivateKey) ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode drill report: %w", err)
	}
	f := signedFile{Report: raw}
	if key != nil {
		message, err := signedMessage(raw)
		if err != nil {
			return nil, err
		}
		f.Signature = &signature{
			Algorithm: "ed25519", Key: KeyFingerprint(key.Public().(ed25519.PublicKey)),
			Value: base64.StdEncoding.EncodeToString(ed25519.Sign(key, message)),
		}
	}
	out, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode drill report: %w", err)
	}
	return append(out, '\n'), nil
}

func signedMessage(raw []byte) ([]byte, error) {
	b := bytes.NewBufferString(signedPrefix)
	if err := json.Compact(b, raw); err != nil {
		return nil, fmt.Errorf("drill report: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads a report's file and doesn't judge its signature.
func Parse(data []byte) (*Signed, error) {
	if len(data) > maxReport {
		return nil, fmt.Errorf("drill report: more than %d bytes", maxReport)
	}
	var f signedFile
	d := json.NewDecoder(bytes.NewReader(data))
	// A second "report" beside the signed one must not pass for it.
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("drill report: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("drill report: something follows it")
	}
	if err := noDuplicates(data); err != nil {
		return nil, err
	}
	if len(f.Report) == 0 {
		return nil, errors.New(`drill report: want an object with "report"`)
	}
	s := &Signed{raw: f.Report, signature: f.Signature}
	if err := json.Unmarshal(f.Report, &s.Report); err != nil {
		return nil, fmt.Errorf("drill report: %w", err)
	}
	if s.Report.Format != Format {
		return nil, fmt.Errorf("drill report: format %d, this program reads %d", s.Report.Format, Format)
	}
	return s, nil
}

// noDuplicates refuses a file that has a name twice at its top: readers differ
// in which one they take, so the signed report could hide another one. What is
// below is signed as it stands.
func noDuplicates(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("drill report: %w", err)
	}
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return fmt.Errorf("drill report: %w", err)
		}
		// Go matches names without regard to case.
		folded := strings.ToLower(fmt.Sprint(name))
		if seen[folded] {
			return fmt.Errorf("drill report: %q is there twice", name)
		}
		seen[folded] = true
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			return fmt.Errorf("drill report: %w", err)
		}
	}
	return nil
}

// Verify checks the signature against the public key: ErrNotSigned,
// ErrSignature.
func (s *Signed) Verify(key ed25519.PublicKey) error {
	if s.signature == nil {
		return ErrNotSigned
	}
	if s.signature.Algorithm != "ed25519" {
		return fmt.Errorf("%w: algorithm %q", ErrSignature, s.signature.Algorithm)
	}
	if want := KeyFingerprint(key); s.signature.Key != want {
		return fmt.Errorf("%w: key %q signed it, the one given is %q", ErrSignature, s.signature.Key, want)
	}
	value, err := base64.StdEncoding.Strict().DecodeString(s.signature.Value)
	if err != nil {
		return fmt.Errorf("%w: it is not base64", ErrSignature)
	}
	message, err := signedMessage(s.raw)
	if err != nil {
		return err
	}
	if !ed25519.Verify(key, message, value) {
		return fmt.Errorf("%w: the report has been changed since %s", ErrSignature, s.Report.FinishedAt.Format(time.RFC3339))
	}
	return nil
}
