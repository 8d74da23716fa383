// Package recipient says what a public key looks like that things are encrypted
// to with age: backups, the escrow, exports. Whoever takes one, in a file or on a
// command line, asks here, so that all of them take the same. It knows no private
// keys, but for refusing them.
package recipient

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"
)

// Forms is what a recipient may be, for messages and help.
const Forms = "age1…, ssh-ed25519 … or ssh-rsa …"

var (
	// ErrSecret means that a private key was given in a public one's place.
	ErrSecret = errors.New("this is a private key, a secret key: give the public one, and treat this one as lost")
	// ErrPostQuantum means an age1pq1… key. age encrypts nothing to such a key and
	// one of another kind together, and the keys of the machine's own, which every
	// backup is encrypted to besides, are of the other kind.
	ErrPostQuantum = errors.New("post-quantum recipients (age1pq1…) are not taken: age can't encrypt to them and to the machine's own keys together")
)

// Recipient is a public key that something is encrypted to.
type Recipient struct {
	age.Recipient
	// Line is the key as Parse reads it back: without options, with its comment.
	Line string
	// Fingerprint identifies the key without being it: "SHA256:" and base64,
	// for SSH keys the same that ssh-keygen -l shows.
	Fingerprint string
}

// Parse reads one recipient: an age1… key, or a line of authorized_keys (sshd(8))
// of the types ssh-ed25519 and ssh-rsa; options before it don't matter. Its errors
// quote nothing that may be a secret.
func Parse(s string) (Recipient, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return Recipient{}, errors.New("a recipient is empty")
	case isSecret(s):
		return Recipient{}, ErrSecret
	case strings.ContainsAny(s, "\n\r"):
		// Of several lines only the first would be read.
		return Recipient{}, errors.New("a recipient holds a line break: give one key each")
	case strings.HasPrefix(s, "age1pq1"):
		return Recipient{}, ErrPostQuantum
	case strings.HasPrefix(s, "age1"):
		r, err := age.ParseX25519Recipient(s)
		if err != nil {
			return Recipient{}, fmt.Errorf("%q is no age recipient: look whether it was copied wholly", shorten(s))
		}
		sum := sha256.Sum256([]byte(s))
		return Recipient{r, s, "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])}, nil
	}
	key, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(s))
	if kind, _, _ := strings.Cut(s, " "); err != nil && sshType.MatchString(kind) {
		if kind != ssh.KeyAlgoED25519 && kind != ssh.KeyAlgoRSA {
			return Recipient{}, wrongType(kind)
		}
		return Recipient{}, fmt.Errorf("the key of type %q can't be read: look whether it was copied wholly", kind)
	}
	if err != nil {
		// Not quoted: nobody knows what it is.
		return Recipient{}, errors.New("neither an age recipient (age1…) nor an ssh-ed25519 or ssh-rsa public key")
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA:
	default:
		return Recipient{}, wrongType(key.Type())
	}
	r, err := agessh.ParseRecipient(line)
	if err != nil {
		return Recipient{}, fmt.Errorf("age can't encrypt to the key %s of type %q: too small, or damaged", ssh.FingerprintSHA256(key), key.Type())
	}
	return Recipient{r, strings.Join(append(strings.Fields(line), strings.Fields(comment)...), " "), ssh.FingerprintSHA256(key)}, nil
}

// sshType is what the name of an SSH key's type looks like.
var sshType = regexp.MustCompile(`^(ssh|ecdsa|sk)-[a-z0-9@.-]+$`)

func wrongType(kind string) error {
	return fmt.Errorf("age can't encrypt to an SSH key of type %q, only to ssh-ed25519, ssh-rsa and age1… keys", kind)
}

// isSecret is true for what may be a private key, or a part of one.
func isSecret(s string) bool {
	s = strings.ToUpper(s)
	return strings.Contains(s, "AGE-SECRET-KEY-") || strings.Contains(s, "AGE-PLUGIN-") || strings.Contains(s, "PRIVATE KEY-----")
}

// shorten keeps a quoted key readable.
func shorten(s string) string {
	if len(s) > 48 {
		return s[:48] + "…"
	}
	return s
}

// maxLine bounds one line of a file, in bytes: an ssh-rsa key of 16384 bits fits.
const maxLine = 16 << 10

// mostFaults is how many faulty lines of a file are told.
const mostFaults = 5

// Read reads recipients, one a line, as Parse does; empty lines and lines that
// start with # are skipped. Faulty lines are reported together, the first ones. A file with a
// private key in it is ErrSecret, whatever else it holds.
func Read(r io.Reader) ([]Recipient, error) {
	var out []Recipient
	var errs []error
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rc, err := Parse(line)
		if errors.Is(err, ErrSecret) {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		out = append(out, rc)
	}
	if err := s.Err(); err != nil {
		errs = append(errs, fmt.Errorf("read recipients: %w", err))
	}
	if more := len(errs) - mostFaults; more > 0 { // another kind of file, most likely
		errs = append(errs[:mostFaults], fmt.Errorf("and %d more lines", more))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if len(out) == 0 {
		return nil, errors.New("no recipient is in it")
	}
	return out, nil
}

// FromArgs takes each argument of --recipient as a recipient, or as a file of
// them.
func FromArgs(args []string) ([]Recipient, error) {
	var all []Recipient
	for _, arg := range args {
		r, err := Parse(arg)
		if err == nil {
			all = append(all, r)
			continue
		}
		if errors.Is(err, ErrSecret) || errors.Is(err, ErrPostQuantum) {
			return nil, fmt.Errorf("--recipient: %w", err)
		}
		// A pipe that nobody writes to is empty: it is not waited for.
		f, openErr := os.OpenFile(arg, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if openErr != nil {
			return nil, fmt.Errorf("--recipient%s: %w; as a file: %w", quotePath(arg), err, errno(openErr))
		}
		rs, err := Read(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("--recipient %q: %w", arg, err)
		}
		all = append(all, rs...)
	}
	return all, nil
}

// quotePath is s, where it was surely meant as a file's name: nobody knows what
// else may stand there.
func quotePath(s string) string {
	for _, prefix := range []string{"/", "./", "../", "~"} {
		if strings.HasPrefix(s, prefix) {
			return fmt.Sprintf(" %q", s)
		}
	}
	return ""
}

// errno is why a file can't be opened, without its name.
func errno(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// Age is rs for the age library.
func Age(rs []Recipient) []age.Recipient {
	out := make([]age.Recipient, len(rs))
	for i, r := range rs {
		out[i] = r.Recipient
	}
	return out
}
