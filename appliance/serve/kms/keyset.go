// Package kms is Vault's auto-unseal on one machine: a versioned AEAD keyset
// (the master key), and a server that answers, over a unix socket and to named
// uids only, the two transit calls that Vault's seal "transit" makes.
//
// It is not a general transit engine, and it speaks to no network. It does not
// store anything either: the keyset comes from a file or a systemd credential,
// and whoever rotates it writes the new one down first.
package kms

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const (
	pemType = "STRONGROOM MASTER KEYSET"
	// pemFingerprint names the header that lets a damaged keyset be told from
	// a whole one.
	pemFingerprint = "Fingerprint"

	keySize   = 32        // bytes: AES-256
	ivSize    = 12        // bytes
	tagSize   = 16        // bytes
	maxKeyset = 256 << 10 // bytes: some thousand versions

	ciphertextPrefix = "vault:v"
)

// associatedData separates this use of the keys from any other that someone
// might make of the same keyset.
var associatedData = []byte("strongroom kms transit v1")

// Faults of a stored keyset, for callers that tell them apart.
var (
	ErrEmpty     = errors.New("keyset is empty")
	ErrNotKeyset = errors.New("not a strongroom master keyset")
	ErrEncrypted = errors.New("keyset is still encrypted with age")
	ErrTruncated = errors.New("keyset is truncated")
	ErrDamaged   = errors.New("keyset is damaged")
)

// ErrDecrypt says that a ciphertext is not one of this keyset's, or has been
// changed. It never says more: the server's peer learns nothing from it.
var ErrDecrypt = errors.New("ciphertext was not made with this keyset, or has been changed")

// ErrVersion says that a ciphertext names a version the keyset does not hold:
// usually an escrow older than the data.
var ErrVersion = errors.New("keyset does not hold this version")

// Keyset is the master key in all its versions. The newest version encrypts,
// every version decrypts, and no version is ever dropped: a snapshot that some
// bucket still keeps may need any of them. It is safe for concurrent use,
// because it is never changed: Rotate returns a new one.
type Keyset struct {
	handle   *keyset.Handle
	aead     tink.AEAD
	versions []int // ascending; the last one is primary
	print    string
	marks    map[int]string // of each version; tells keys apart, gives none away
}

// NewKeyset makes a keyset of one new random key, version 1.
func NewKeyset() (*Keyset, error) {
	return addVersion(keyset.NewManager(), 1)
}

// Rotate returns a keyset with everything of k and one new version, which is
// the one that encrypts. k is unchanged.
func (k *Keyset) Rotate() (*Keyset, error) {
	return addVersion(keyset.NewManagerFromHandle(k.handle), k.Primary()+1)
}

func addVersion(m *keyset.Manager, version int) (*Keyset, error) {
	params, err := aesgcm.NewParameters(aesgcm.ParametersOpts{
		KeySizeInBytes: keySize, IVSizeInBytes: ivSize, TagSizeInBytes: tagSize,
		Variant: aesgcm.VariantTink,
	})
	if err != nil {
		return nil, fmt.Errorf("new master key: %w", err)
	}
	secret, err := secretdata.NewBytesFromRand(keySize)
	if err != nil {
		return nil, fmt.Errorf("new master key: %w", err)
	}
	// Tink's key id is the version, so that its own ciphertext prefix and
	// Vault's "vault:vN:" name the same key.
	key, err := aesgcm.NewKey(secret, uint32(version), params)
	if err != nil {
		return nil, fmt.Errorf("new master key: %w", err)
	}
	id, err := m.AddKey(key)
	if err != nil {
		return nil, fmt.Errorf("new master key: %w", err)
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, fmt.Errorf("new master key: %w", err)
	}
	h, err := m.Handle()
	if err != nil {
		return nil, fmt.Errorf("new master key: %w", err)
	}
	return fromHandle(h)
}

// SelfTest says whether what the keyset encrypts is what it decrypts.
func (k *Keyset) SelfTest() error {
	c, err := k.Encrypt([]byte("watchdog"))
	if err != nil {
		return err
	}
	p, err := k.Decrypt(c)
	if err == nil && string(p) != "watchdog" {
		err = errors.New("what was encrypted is not what is decrypted")
	}
	return err
}

// ParseKeyset reads what Marshal wrote. Text before the keyset's first line is
// passed over, so that a file may explain itself. The error is one of
// ErrEmpty, ErrNotKeyset, ErrEncrypted, ErrTruncated and ErrDamaged, and holds
// nothing of the content. data is not kept; callers may wipe it.
func ParseKeyset(data []byte) (*Keyset, error) {
	switch trimmed := bytes.TrimSpace(data); {
	case len(trimmed) == 0:
		return nil, ErrEmpty
	case len(data) > maxKeyset:
		return nil, fmt.Errorf("%w: %d bytes, at most %d expected", ErrNotKeyset, len(data), maxKeyset)
	case bytes.HasPrefix(trimmed, []byte("age-encryption.org/")),
		bytes.HasPrefix(trimmed, []byte("-----BEGIN AGE ENCRYPTED FILE-----")):
		return nil, ErrEncrypted
	}
	begin := bytes.Index(data, []byte("-----BEGIN "+pemType+"-----"))
	if begin < 0 {
		return nil, fmt.Errorf("%w: it has no line %q", ErrNotKeyset, "-----BEGIN "+pemType+"-----")
	}
	if !bytes.Contains(data[begin:], []byte("-----END "+pemType+"-----")) {
		return nil, fmt.Errorf("%w: it has no line %q", ErrTruncated, "-----END "+pemType+"-----")
	}
	block, _ := pem.Decode(data[begin:])
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("%w: its lines are not base64", ErrDamaged)
	}
	defer clear(block.Bytes)
	want, ok := block.Headers[pemFingerprint]
	if !ok {
		return nil, fmt.Errorf("%w: it has no %s line", ErrDamaged, pemFingerprint)
	}
	// Tink's own message is dropped: it may quote what it read.
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(block.Bytes)))
	if err != nil {
		return nil, fmt.Errorf("%w: its content cannot be read", ErrDamaged)
	}
	k, err := fromHandle(h)
	if err != nil {
		return nil, err
	}
	if k.print != want {
		return nil, fmt.Errorf("%w: its fingerprint is %s, its %s line says %q",
			ErrDamaged, k.print, pemFingerprint, want)
	}
	return k, nil
}

// Marshal gives the keyset as text (PEM; some hundred bytes, lines of 64
// characters). It is the master key itself: it belongs into a systemd
// credential or an age-encrypted escrow and nowhere else. Callers wipe it with
// clear() once it is written.
func (k *Keyset) Marshal() ([]byte, error) {
	var raw bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewBinaryWriter(&raw)); err != nil {
		return nil, fmt.Errorf("marshal master keyset: %w", err)
	}
	defer clear(raw.Bytes())
	return pem.EncodeToMemory(&pem.Block{
		Type:    pemType,
		Headers: map[string]string{pemFingerprint: k.print},
		Bytes:   raw.Bytes(),
	}), nil
}

// Fingerprint names the keyset, all versions together, without giving
// anything of it away: "SHA256:" and 43 characters of base64. Two keysets with
// the same fingerprint open the same ciphertexts.
func (k *Keyset) Fingerprint() string { return k.print }

// Primary is the version that encrypts, the highest one.
func (k *Keyset) Primary() int { return k.versions[len(k.versions)-1] }

// Versions lists what the keyset can decrypt, ascending.
func (k *Keyset) Versions() []int { return slices.Clone(k.versions) }

// String says which keyset it is, never what is in it.
func (k *Keyset) String() string {
	return fmt.Sprintf("master keyset %s (version %d)", k.print, k.Primary())
}

// GoString keeps %#v from printing the keys.
func (k *Keyset) GoString() string { return k.String() }

// Encrypt seals plaintext with the newest version. The result has the shape of
// Vault's transit engine, "vault:vN:base64".
func (k *Keyset) Encrypt(plaintext []byte) (string, error) {
	c, err := k.aead.Encrypt(plaintext, associatedData)
	if err != nil {
		return "", fmt.Errorf("encrypt with master key: %w", err)
	}
	return ciphertextPrefix + strconv.Itoa(k.Primary()) + ":" + base64.StdEncoding.EncodeToString(c), nil
}

// Decrypt opens what Encrypt of this keyset, or of one that it was rotated
// from, has sealed. Errors: ErrVersion, ErrDecrypt.
func (k *Keyset) Decrypt(ciphertext string) ([]byte, error) {
	version, raw, err := splitCiphertext(ciphertext)
	if err != nil {
		return nil, err
	}
	if _, ok := slices.BinarySearch(k.versions, version); !ok {
		return nil, fmt.Errorf("%w: ciphertext is of v%d, keyset %s holds v%d to v%d",
			ErrVersion, version, k.print, k.versions[0], k.Primary())
	}
	// Tink takes the key from its own prefix; the two names must agree.
	if len(raw) < 5 || raw[0] != 1 || binary.BigEndian.Uint32(raw[1:]) != uint32(version) {
		return nil, ErrDecrypt
	}
	p, err := k.aead.Decrypt(raw, associatedData)
	if err != nil {
		return nil, ErrDecrypt
	}
	return p, nil
}

// splitCiphertext takes "vault:vN:base64" apart. Only the one spelling that
// Encrypt writes is taken.
func splitCiphertext(s string) (version int, raw []byte, err error) {
	rest, ok := strings.CutPrefix(s, ciphertextPrefix)
	if !ok {
		return 0, nil, fmt.Errorf("%w: it does not start with %q", ErrDecrypt, ciphertextPrefix)
	}
	number, body, ok := strings.Cut(rest, ":")
	if !ok {
		return 0, nil, fmt.Errorf("%w: it has no second colon", ErrDecrypt)
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != number {
		return 0, nil, fmt.Errorf("%w: its version is not a positive number", ErrDecrypt)
	}
	raw, err = base64.StdEncoding.Strict().DecodeString(body)
	if err != nil || strings.ContainsAny(body, "\r\n") {
		return 0, nil, fmt.Errorf("%w: it is not base64", ErrDecrypt)
	}
	return int(n), raw, nil
}

// fromHandle checks the invariants of a keyset of ours: AES-256-GCM with
// Tink's prefix only, all enabled, the highest id primary.
func fromHandle(h *keyset.Handle) (*Keyset, error) {
	k := &Keyset{handle: h, marks: map[int]string{}}
	mac := hmac.New(sha256.New, []byte("strongroom master keyset fingerprint v1"))
	keys := make(map[int][]byte, h.Len())
	defer func() {
		for _, b := range keys {
			clear(b)
		}
	}()
	primary := 0
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("%w: its entry %d cannot be read", ErrDamaged, i)
		}
		key, ok := e.Key().(*aesgcm.Key)
		if !ok {
			return nil, fmt.Errorf("%w: its version %d is not an AES-GCM key", ErrDamaged, e.KeyID())
		}
		p := key.Parameters().(*aesgcm.Parameters)
		switch id := e.KeyID(); {
		case p.KeySizeInBytes() != keySize || p.Variant() != aesgcm.VariantTink:
			return nil, fmt.Errorf("%w: its version %d is not AES-256-GCM", ErrDamaged, id)
		case e.KeyStatus() != keyset.Enabled:
			return nil, fmt.Errorf("%w: its version %d is disabled", ErrDamaged, id)
		case id < 1 || id > 1<<30:
			return nil, fmt.Errorf("%w: it has a version %d", ErrDamaged, id)
		}
		v := int(e.KeyID())
		k.versions = append(k.versions, v)
		keys[v] = key.KeyBytes().Data(insecuresecretdataaccess.Token{})
		if e.IsPrimary() {
			primary = v
		}
	}
	if len(k.versions) == 0 {
		return nil, fmt.Errorf("%w: it holds no key", ErrDamaged)
	}
	slices.Sort(k.versions)
	if len(keys) != len(k.versions) || primary != k.Primary() {
		return nil, fmt.Errorf("%w: its newest version is not the one that encrypts", ErrDamaged)
	}
	for _, v := range k.versions {
		var id [4]byte
		binary.BigEndian.PutUint32(id[:], uint32(v))
		mac.Write(id[:])
		mac.Write(keys[v])
		k.marks[v] = mark(keys[v])
	}
	k.print = "SHA256:" + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
	var err error
	if k.aead, err = aead.New(h); err != nil {
		return nil, fmt.Errorf("%w: its keys cannot be used", ErrDamaged)
	}
	return k, nil
}

// mark names one key without giving it away.
func mark(key []byte) string {
	m := hmac.New(sha256.New, []byte("strongroom master key mark v1"))
	m.Write(key)
	return string(m.Sum(nil))
}
