package snapshot

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
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

func TestParseRecipients(t *testing.T) {
	x, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	ed, _ := sshKey(t, newEd25519(t), "")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecLine, _ := sshKey(t, ec, "")
	tests := []struct {
		name, text string
		want       int
		fault      string
	}{
		{"an age recipient", x.Recipient().String() + "\n", 1, ""},
		{"an SSH key with a comment", ed + " operator@laptop", 1, ""},
		{"an SSH key with options", `from="10.0.0.0/8",no-pty ` + ed, 1, ""},
		{"both, with comments and empty lines", "# keys\n\n" + x.Recipient().String() + "\n" + ed + "\n", 2, ""},
		{"nothing", "# none\n", 0, "no recipient"},
		{"an ecdsa key", ed + "\n" + ecLine, 0, `line 2: recipient "ecdsa-sha2-nistp256`},
		{"two faults", "age1x\nnonsense\n", 0, "line 2"},
		{"a secret key", x.String(), 0, "secret key"},
		{"a line without end", strings.Repeat("a", 1<<20), 0, "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseRecipients(strings.NewReader(tt.text))
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Fatalf("got error %v, want one with %q", err, tt.fault)
				}
				if strings.Contains(err.Error(), "AGE-SECRET-KEY-1") {
					t.Fatal("the error shows the secret key")
				}
				return
			}
			if err != nil || len(got) != tt.want {
				t.Fatalf("got %d recipients, %v, want %d", len(got), err, tt.want)
			}
			for _, r := range got {
				if !strings.HasPrefix(r.Fingerprint, "SHA256:") {
					t.Errorf("fingerprint %q", r.Fingerprint)
				}
			}
		})
	}
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
	recipients, err := ParseRecipients(strings.NewReader(strings.Join(lines, "\n")))
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
	recipients, err := ParseRecipients(strings.NewReader(line))
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
