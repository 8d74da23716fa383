package kms

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
)

func newKeyset(t testing.TB) *Keyset {
	t.Helper()
	k, err := NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func marshal(t testing.TB, k *Keyset) []byte {
	t.Helper()
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeysetSurvivesStorageAndRotation(t *testing.T) {
	v1 := newKeyset(t)
	c1, err := v1.Encrypt([]byte("root key"))
	if err != nil {
		t.Fatal(err)
	}
	v2, err := v1.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if v1.Primary() != 1 || v2.Primary() != 2 || fmt.Sprint(v2.Versions()) != "[1 2]" {
		t.Fatalf("versions: v1 %v, v2 %v", v1.Versions(), v2.Versions())
	}
	if v1.Fingerprint() == v2.Fingerprint() {
		t.Fatal("rotation left the fingerprint as it was")
	}
	stored, err := ParseKeyset(append([]byte("Keep this secret.\n\n"), marshal(t, v2)...))
	if err != nil {
		t.Fatal(err)
	}
	if stored.Fingerprint() != v2.Fingerprint() {
		t.Fatalf("fingerprint %s became %s in storage", v2.Fingerprint(), stored.Fingerprint())
	}
	c2, err := stored.Encrypt([]byte("root key"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c1, "vault:v1:") || !strings.HasPrefix(c2, "vault:v2:") || strings.Count(c2, ":") != 2 {
		t.Fatalf("ciphertexts %q and %q do not name their versions", c1, c2)
	}
	for _, c := range []string{c1, c2} {
		if p, err := stored.Decrypt(c); err != nil || string(p) != "root key" {
			t.Fatalf("decrypt %q: %q, %v", c, p, err)
		}
	}
	if _, err := v1.Decrypt(c2); !errors.Is(err, ErrVersion) {
		t.Fatalf("an old keyset on new data: got %v, want ErrVersion", err)
	}
}

func TestParseKeysetRefuses(t *testing.T) {
	whole := marshal(t, newKeyset(t))
	other := marshal(t, newKeyset(t))
	body := func(b []byte) string { return strings.Split(string(b), "\n")[4] }
	tests := []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, ErrEmpty},
		{"white space", []byte(" \n\t"), ErrEmpty},
		{"another file", []byte("hello"), ErrNotKeyset},
		{"another PEM", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), ErrNotKeyset},
		{"age, binary", []byte("age-encryption.org/v1\n-> X25519 abc\n"), ErrEncrypted},
		{"age, armored", []byte("-----BEGIN AGE ENCRYPTED FILE-----\nabc\n"), ErrEncrypted},
		{"too large", bytes.Repeat([]byte("x"), maxKeyset+1), ErrNotKeyset},
		{"cut off in the first line", whole[:20], ErrNotKeyset},
		{"cut off in the keys", whole[:len(whole)/2], ErrTruncated},
		{"cut off in the last line", whole[:len(whole)-10], ErrTruncated},
		{"a line lost", bytes.Replace(whole, []byte(body(whole)+"\n"), nil, 1), ErrDamaged},
		{"keys of another keyset", bytes.Replace(whole, []byte(body(whole)), []byte(body(other)), 1), ErrDamaged},
		{"no fingerprint", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: []byte("x")}), ErrDamaged},
		{"no key in it", pem.EncodeToMemory(&pem.Block{Type: pemType, Headers: map[string]string{pemFingerprint: "x"}}), ErrDamaged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseKeyset(tt.data); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Keysets that Tink itself takes, but that are not ours.
func TestParseKeysetRefusesForeignTinkKeysets(t *testing.T) {
	build := func(templates ...*tinkpb.KeyTemplate) *keyset.Handle {
		m := keyset.NewManager()
		for _, tmpl := range templates {
			id, err := m.Add(tmpl)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.SetPrimary(id); err != nil {
				t.Fatal(err)
			}
		}
		h, err := m.Handle()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	tests := []struct {
		name   string
		handle *keyset.Handle
		want   string
	}{
		{"AES-128", build(aead.AES128GCMKeyTemplate()), "not AES-256-GCM"},
		{"no prefix", build(aead.AES256GCMNoPrefixKeyTemplate()), "not AES-256-GCM"},
		{"ChaCha20", build(aead.ChaCha20Poly1305KeyTemplate()), "not an AES-GCM key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var raw bytes.Buffer
			if err := insecurecleartextkeyset.Write(tt.handle, keyset.NewBinaryWriter(&raw)); err != nil {
				t.Fatal(err)
			}
			_, err := ParseKeyset(pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: raw.Bytes(),
				Headers: map[string]string{pemFingerprint: "SHA256:x"}}))
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// One changed byte anywhere in the file is either refused or harmless; it never
// gives a keyset with other keys.
func TestParseKeysetWithAnyByteChanged(t *testing.T) {
	k := newKeyset(t)
	whole := marshal(t, k)
	for i := range whole {
		for _, bit := range []byte{0x01, 0x20, 0x80} {
			bad := bytes.Clone(whole)
			bad[i] ^= bit
			if got, err := ParseKeyset(bad); err == nil && got.Fingerprint() != k.Fingerprint() {
				t.Fatalf("byte %d changed by %#x gave keyset %s", i, bit, got)
			}
		}
	}
	for i := range whole[:len(whole)-len("-\n")] {
		if _, err := ParseKeyset(whole[:i]); err == nil {
			t.Fatalf("%d of %d bytes were taken for a whole keyset", i, len(whole))
		}
	}
}

func TestDecryptRefuses(t *testing.T) {
	k := newKeyset(t)
	k2, err := k.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	c, err := k2.Encrypt([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := newKeyset(t).Encrypt([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	body := strings.TrimPrefix(c, "vault:v2:")
	tests := []struct {
		name, c string
		want    error
	}{
		{"empty", "", ErrDecrypt},
		{"no prefix", body, ErrDecrypt},
		{"no version", "vault:v:" + body, ErrDecrypt},
		{"version 0", "vault:v0:" + body, ErrDecrypt},
		{"negative version", "vault:v-1:" + body, ErrDecrypt},
		{"version with zeros", "vault:v02:" + body, ErrDecrypt},
		{"version with a sign", "vault:v+2:" + body, ErrDecrypt},
		{"version not held", "vault:v3:" + body, ErrVersion},
		{"version of another key", "vault:v1:" + body, ErrDecrypt},
		{"huge version", "vault:v99999999999999999999:" + body, ErrDecrypt},
		{"two parts", "vault:v2", ErrDecrypt},
		{"not base64", "vault:v2:!!!", ErrDecrypt},
		{"line break in base64", "vault:v2:" + body[:4] + "\n" + body[4:], ErrDecrypt},
		{"cut off", c[:len(c)-8], ErrDecrypt},
		{"nothing in it", "vault:v2:", ErrDecrypt},
		{"another keyset's", foreign, ErrDecrypt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if p, err := k2.Decrypt(tt.c); !errors.Is(err, tt.want) || p != nil {
				t.Fatalf("got %q, %v, want %v", p, err, tt.want)
			}
		})
	}
}

func TestKeysetPrintsNoKey(t *testing.T) {
	k := newKeyset(t)
	block, _ := pem.Decode(marshal(t, k))
	// The key's own 32 bytes end six bytes (tags of status, id, prefix type)
	// before the end of the protobuf; any run of them would give it away.
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		out := fmt.Sprintf(verb, k)
		if !strings.Contains(out, k.Fingerprint()) {
			t.Errorf("%s does not name the keyset: %q", verb, out)
		}
		for i := 0; i+8 <= len(block.Bytes); i++ {
			if strings.Contains(out, string(block.Bytes[i:i+8])) {
				t.Fatalf("%s prints key material", verb)
			}
		}
	}
}

func FuzzParseKeyset(f *testing.F) {
	k := newKeyset(f)
	whole := marshal(f, k)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("-----BEGIN " + pemType + "-----\n-----END " + pemType + "-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseKeyset(data)
		if err != nil {
			return
		}
		// What is taken once is taken again, as the same keyset.
		again, err := ParseKeyset(marshal(t, got))
		if err != nil || again.Fingerprint() != got.Fingerprint() {
			t.Fatalf("keyset does not survive storage: %v", err)
		}
	})
}

func FuzzDecrypt(f *testing.F) {
	k := newKeyset(f)
	c, err := k.Encrypt([]byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c)
	f.Add("vault:v1:AQAAAAE=")
	f.Fuzz(func(t *testing.T, in string) {
		if p, err := k.Decrypt(in); err == nil && in != c {
			t.Fatalf("forged ciphertext %q opened to %q", in, p)
		}
	})
}

// spoilt is an AEAD that fails, or opens to something else.
type spoilt struct{ encrypt, decrypt error }

func (s spoilt) Encrypt([]byte, []byte) ([]byte, error) { return []byte{1, 0, 0, 0, 1}, s.encrypt }
func (s spoilt) Decrypt([]byte, []byte) ([]byte, error) { return []byte("other"), s.decrypt }

func TestSelfTest(t *testing.T) {
	k := newKeyset(t)
	if err := k.SelfTest(); err != nil {
		t.Error(err)
	}
	broken := errors.New("broken")
	for name, a := range map[string]spoilt{"cannot encrypt": {encrypt: broken}, "cannot decrypt": {decrypt: broken}, "opens to something else": {}} {
		bad := *k
		bad.aead = a
		if err := bad.SelfTest(); err == nil {
			t.Errorf("%s: it passes", name)
		}
	}
}
