package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

var note = Kind{Name: "test note", Member: "note", Max: 1 << 10}

type content struct {
	Text string `json:"text"`
}

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func encode(t *testing.T, k Kind, text string, key ed25519.PrivateKey) []byte {
	t.Helper()
	b, err := k.Encode(content{text}, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t *testing.T, k Kind, data []byte) *Envelope {
	t.Helper()
	e, err := k.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Whatever one byte is changed to, the file is refused, or says the same: white
// space between tokens is not signed.
func TestEveryByte(t *testing.T) {
	key := testKey(1)
	good := encode(t, note, "a <&> b", key)
	want, err := note.message(parse(t, note, good).Content)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			e, err := note.Parse(bad)
			if err != nil || e.Verify(public(key)) != nil {
				refused++
				continue
			}
			if got, err := note.message(e.Content); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("byte %d, bit %d: the signature is good, the content is another", i, bit)
			}
		}
	}
	if refused < 8*len(good)/2 {
		t.Errorf("only %d of %d changes were refused", refused, 8*len(good))
	}
}

func TestParseRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"nothing": "", "no object": "[]", "no member": "{}",
		"an unknown name":      `{"note": {}, "verdict": "passed"}`,
		"two":                  `{"note": {}, "note": {"text": "x"}}`,
		"two, in another case": `{"note": {}, "Note": {"text": "x"}}`,
		"two signatures":       `{"note": {}, "signature": {}, "Signature": {}}`,
		"something after it":   `{"note": {}} {}`, "a bracket after it": `{"note": {}}}`,
		"cut": `{"note": {}`, "too long": `{"note": {"text": "` + strings.Repeat("x", note.Max) + `"}}`,
	} {
		if e, err := note.Parse([]byte(data)); err == nil {
			t.Errorf("%s is taken: %s", name, e.Content)
		}
	}
}

func FuzzParse(f *testing.F) {
	key := testKey(1)
	good, err := note.Encode(content{"x"}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"note": {}, "signature": {"algorithm": "ed25519"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := note.Parse(data)
		if err != nil || e.Verify(public(key)) != nil {
			return
		}
		if got, err := note.message(e.Content); err != nil || string(got) != "strongroom test note v1\n"+`{"text":"x"}` {
			t.Errorf("forged: %q", data)
		}
	})
}

func TestSignatures(t *testing.T) {
	key := testKey(1)
	good := encode(t, note, "x", key)
	other := note
	other.Name = "test memo"
	// with puts the signature of one file beside the content of another.
	with := func(content, signed []byte) []byte {
		i, j := bytes.Index(content, []byte(`"signature"`)), bytes.Index(signed, []byte(`"signature"`))
		return append(bytes.Clone(content[:i]), signed[j:]...)
	}
	replaced := func(old, next string) []byte { return bytes.Replace(good, []byte(old), []byte(next), 1) }
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"good":              {good, nil},
		"not signed":        {encode(t, note, "x", nil), ErrNotSigned},
		"another's content": {with(good, encode(t, note, "y", key)), ErrSignature},
		"another kind's":    {with(good, encode(t, other, "x", key)), ErrSignature},
		"another key":       {encode(t, note, "x", testKey(2)), ErrSignature},
		"another key under the id of this one": {bytes.Replace(encode(t, note, "x", testKey(2)),
			[]byte(Fingerprint(public(testKey(2)))), []byte(Fingerprint(public(key))), 1), ErrSignature},
		"an algorithm": {replaced("ed25519", "none"), ErrSignature},
		"no key id":    {replaced(Fingerprint(public(key)), ""), ErrSignature},
		"null":         {[]byte(`{"note": {"text":"x"}, "signature": null}`), ErrNotSigned},
		"empty":        {[]byte(`{"note": {"text":"x"}, "signature": {}}`), ErrSignature},
	} {
		e := parse(t, note, c.data)
		if err := e.Verify(public(key)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		ring := &Keyring{}
		ring.Use("taker", "box", public(key), day(1))
		if _, err := ring.Verify(e, "taker"); !errors.Is(err, c.want) {
			t.Errorf("%s, by the keyring: %v, want %v", name, err, c.want)
		}
	}
	var wide bytes.Buffer
	if err := json.Indent(&wide, good, "", "\t\t"); err != nil {
		t.Fatal(err)
	}
	if err := parse(t, note, wide.Bytes()).Verify(public(key)); err != nil {
		t.Errorf("laid out anew: %v", err)
	}
}

func TestKeys(t *testing.T) {
	key := testKey(3)
	seed := base64.StdEncoding.EncodeToString(key.Seed())
	got, err := ParseKey([]byte(seed + "\n"))
	if err != nil || !got.Equal(key) {
		t.Errorf("signing key: %v", err)
	}
	for _, bad := range []string{"", "x", seed[:20], seed + "AAAA"} {
		if _, err := ParseKey([]byte(bad)); err == nil || bad != "" && strings.Contains(err.Error(), bad) && len(bad) > 1 {
			t.Errorf("%d characters: %v", len(bad), err)
		}
	}
	line := EncodePublic(public(key))
	for _, text := range []string{string(line), strings.TrimPrefix(string(line), "ed25519 ")} {
		if p, err := ParsePublic([]byte(text)); err != nil || !p.Equal(public(key)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParsePublic([]byte("ed25519 AAAA")); err == nil {
		t.Error("a short public key is taken")
	}
}
