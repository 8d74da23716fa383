package escrow

import (
	"bytes"
	"errors"
	"testing"

	"filippo.io/age"
)

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestSealOpen(t *testing.T) {
	ann, bob, eve := identity(t), identity(t), identity(t)
	plain := []byte("canary-4711\n")
	sealed, err := Seal(plain, ann.Recipient(), bob.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("4711")) {
		t.Fatal("the escrow holds its secret in clear")
	}
	for _, id := range []age.Identity{ann, bob} {
		got, err := Open(sealed, id)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	}
	if _, err := Open(sealed, eve); !errors.Is(err, ErrWrongIdentity) {
		t.Fatalf("want ErrWrongIdentity, got %v", err)
	}
}

func TestDamage(t *testing.T) {
	ann := identity(t)
	sealed, err := Seal([]byte("canary"), ann.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	for n := range sealed {
		if _, err := Open(sealed[:n], ann); err == nil && n < len(bytes.TrimSpace(sealed)) {
			t.Errorf("truncated to %d of %d bytes it still opened", n, len(sealed))
		}
		// A flipped bit in base64 may decode to the same bytes only where the
		// encoding is not canonical, which the reader refuses.
		bad := bytes.Clone(sealed)
		bad[n] ^= 1
		if got, err := Open(bad, ann); err == nil && !bytes.Equal(got, []byte("canary")) {
			t.Errorf("damaged at byte %d it opened to something else", n)
		}
	}
	if _, err := Open(make([]byte, maxSealed+1), ann); err == nil {
		t.Error("an endless file must be refused")
	}
	if _, err := Seal([]byte("x")); err == nil {
		t.Error("no recipient must be refused")
	}
}
