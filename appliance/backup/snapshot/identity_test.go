package snapshot

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"strongroom.example/config/recipient"
)

// sshKey makes an SSH key pair: the authorized_keys line and the PEM file.
func sshKey(t testing.TB, key any, passphrase string) (line, file string) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), string(pem.EncodeToMemory(block))
}

func newEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestParseIdentitiesNeverQuotesTheKey(t *testing.T) {
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	secret := x.String()
	_, err = ParseIdentities([]byte(secret[:len(secret)-1]), nil)
	if err == nil || strings.Contains(err.Error(), secret[16:40]) {
		t.Fatalf("got %v, want an error without the key", err)
	}
}

// Every kind of recipient that is accepted can really open a snapshot.
func TestEveryRecipientOpens(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	edLine, edFile := sshKey(t, newEd25519(t), "")
	lockedLine, lockedFile := sshKey(t, newEd25519(t), "correct horse")
	rsaLine, rsaFile := sshKey(t, rsaKey, "")
	kinds := []struct{ name, line, file string }{
		{"x25519", x.Recipient().String(), x.String()},
		{"ssh-ed25519", edLine, edFile},
		{"ssh-ed25519 with a passphrase", lockedLine, lockedFile},
		{"ssh-rsa", rsaLine, rsaFile},
	}
	var lines []string
	for _, k := range kinds {
		lines = append(lines, k.line)
	}
	recipients, err := recipient.Read(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	d := newMem("mem")
	o := takeOptions(t, newKeys(t), bytesSource(buildArchive(t, archiveSpec{})), d)
	o.Recipients = recipients
	if _, err := Take(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			data := []byte(k.file)
			ids, err := ParseIdentities(data, func() ([]byte, error) { return []byte("correct horse"), nil })
			if err != nil {
				t.Fatal(err)
			}
			clear(data) // as callers do
			v := verifyOptions(t, newKeys(t), d)
			v.Identities = ids
			if _, err := Verify(t.Context(), v); err != nil {
				t.Error(err)
			}
		})
	}
}

// A snapshot is not damaged because somebody mistypes.
func TestWrongPassphrase(t *testing.T) {
	line, file := sshKey(t, newEd25519(t), "correct horse")
	recipients, err := recipient.Read(strings.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	d := newMem("mem")
	o := takeOptions(t, newKeys(t), bytesSource(buildArchive(t, archiveSpec{})), d)
	o.Recipients = recipients
	if _, err := Take(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	none := errors.New("nobody is there")
	for name, c := range map[string]struct {
		passphrase string
		err        error
	}{
		"wrong": {"battery staple", nil},
		"empty": {"", nil},
		"none":  {"", none},
	} {
		t.Run(name, func(t *testing.T) {
			ids, err := ParseIdentities([]byte(file), func() ([]byte, error) { return []byte(c.passphrase), c.err })
			if err != nil {
				t.Fatal(err)
			}
			v := verifyOptions(t, newKeys(t), d)
			v.Identities = ids
			_, err = Verify(t.Context(), v)
			if !errors.Is(err, ErrPassphrase) || errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v", err)
			}
			if c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("%v does not say why", err)
			}
			if c.passphrase != "" && strings.Contains(err.Error(), c.passphrase) {
				t.Error("the error quotes the passphrase")
			}
		})
	}
}
