package kms

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/serve/escrow"
)

func TestExport(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	k := newKeyset(t)
	own, known, elsewhere := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(known, escrow.ConfirmationFile), []byte(`{"format":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	e := Export{Escrow: own, Rand: rand.Reader, Now: time.Now}
	for _, tt := range []struct {
		name, dir string
		ours      bool
	}{
		{"the machine's, still empty", own, true},
		{"one in which something is known", known, true},
		{"anywhere else", elsewhere, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := filepath.Join(tt.dir, "master-key.age")
			ours, err := e.To(out, k, id.Recipient())
			if err != nil || ours != tt.ours {
				t.Fatalf("%t, %v", ours, err)
			}
			sealed, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			text, err := escrow.Open(sealed, id)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ParseKeyset(text); err != nil || got.Fingerprint() != k.Fingerprint() {
				t.Errorf("%v, %v", got, err)
			}
			if fi, err := os.Stat(out); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", fi, err)
			}
			asks, err := filepath.Glob(filepath.Join(tt.dir, "check-*"))
			if err != nil || len(asks) > 0 != tt.ours {
				t.Errorf("questions %q, %v", asks, err)
			}
		})
	}
	// What fails leaves what was there.
	before, err := os.ReadFile(filepath.Join(own, "master-key.age"))
	if err != nil {
		t.Fatal(err)
	}
	noise := errors.New("no randomness")
	if _, err := (Export{Escrow: own, Rand: iotest.ErrReader(noise), Now: time.Now}).To(filepath.Join(own, "master-key.age"), k, id.Recipient()); !errors.Is(err, noise) {
		t.Error(err)
	}
	if _, err := e.To(filepath.Join(own, "master-key.age"), k); err == nil {
		t.Error("an escrow for nobody")
	}
	if after, err := os.ReadFile(filepath.Join(own, "master-key.age")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the escrow has changed, %v", err)
	}
	if _, err := e.To(filepath.Join(elsewhere, "none", "x.age"), k, id.Recipient()); err == nil {
		t.Error("into a folder that is not there")
	}
}

func TestEscrowFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "other.age")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		dir: filepath.Join(dir, "master-key.age"), file: file, filepath.Join(dir, "new.age"): filepath.Join(dir, "new.age"),
	} {
		if got, err := EscrowFile(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if got, err := EscrowFile(filepath.Join(file, "below")); err == nil {
		t.Errorf("below a file: %q", got)
	}
}
