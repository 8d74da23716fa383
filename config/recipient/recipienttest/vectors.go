// Package recipienttest has one table of what is a recipient and what is none, for
// every entrance that takes one.
package recipienttest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

// Vector is something that may be given as a recipient.
type Vector struct {
	Name string
	Text string
	// Fault is a part of what is said of it; empty where it is taken.
	Fault string
	// Secret must stand in no message; empty for none.
	Secret string
}

// Vectors makes the table, with new keys.
func Vectors(t testing.TB) []Vector {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	classic, err := age.GenerateX25519Identity()
	must(err)
	hybrid, err := age.GenerateHybridIdentity()
	must(err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	edLine, rsaLine, ecLine := line(t, ed.Public()), line(t, rsaKey.Public()), line(t, ecKey.Public())
	block, err := ssh.MarshalPrivateKey(ed, "test")
	must(err)
	private := string(pem.EncodeToMemory(block))
	body := strings.Split(private, "\n")[1]
	x := classic.Recipient().String()
	mistyped := x[:len(x)-1] + "q"
	if mistyped == x {
		mistyped = x[:len(x)-1] + "p"
	}
	small := "ssh-rsa " + base64.StdEncoding.EncodeToString(smallRSA())
	const neither, secret = "neither an age recipient", "private key"
	return []Vector{
		{"an age key", x, "", ""},
		{"an age key with blanks around it", " " + x + "\t", "", ""},
		{"an ed25519 key", edLine, "", ""},
		{"an ed25519 key with a comment", edLine + " me at home", "", ""},
		{"an ed25519 key with options", `restrict,command="echo \"a b\"" ` + edLine + " me", "", ""},
		{"an ed25519 key with tabs", strings.Replace(edLine, " ", "\t", 1), "", ""},
		{"an RSA key", rsaLine, "", ""},
		{"nothing", "", "empty", ""},
		{"blanks", "  ", "empty", ""},
		{"garbage", "garbage", neither, ""},
		{"a type and no key", "ssh-ed25519 !!!", "ssh-ed25519", ""},
		{"a type alone", "ssh-ed25519", "ssh-ed25519", ""},
		{"a broken ECDSA key", "ecdsa-sha2-nistp256 AAAA me", "ecdsa-sha2-nistp256", ""},
		{"a mistyped age key", mistyped, "no age recipient", ""},
		{"a truncated age key", x[:40], "no age recipient", ""},
		{"an age key and more", x + " me", "no age recipient", ""},
		{"a plugin's key", "age1yubikey1" + x[5:], "no age recipient", ""},
		{"a post-quantum key", hybrid.Recipient().String(), "post-quantum", ""},
		{"a broken post-quantum key", "age1pq1qqqq", "post-quantum", ""},
		{"an ECDSA key", ecLine, "ecdsa-sha2-nistp256", ""},
		{"a small RSA key", small, "too small", ""},
		{"two keys", x + "\n" + edLine, "line break", ""},
		{"two SSH keys", edLine + "\n" + rsaLine, "line break", ""},
		{"a comment and a key", "# mine\n" + edLine, "line break", ""},
		{"an age private key", classic.String(), secret, classic.String()[16:40]},
		{"an age private key with a blank before it", " " + classic.String(), secret, classic.String()[16:40]},
		{"an age private key in small letters", strings.ToLower(classic.String()), secret, strings.ToLower(classic.String()[16:40])},
		{"a post-quantum private key", hybrid.String(), secret, hybrid.String()[20:44]},
		{"an SSH private key", private, secret, body[:40]},
		{"a line of an SSH private key", body, neither, body[:24]},
	}
}

func line(t testing.TB, public any) string {
	t.Helper()
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// smallRSA is the wire form (RFC 4253, 6.6) of an RSA key of 1024 bits, which Go
// makes no more.
func smallRSA() []byte {
	n := make([]byte, 129)
	n[1], n[128] = 0xc5, 0x0b
	return ssh.Marshal(struct {
		Type string
		E, N []byte
	}{"ssh-rsa", []byte{1, 0, 1}, n})
}
