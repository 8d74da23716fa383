package escrow

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/statefile"
)

// checksPerFile is how many challenges an escrow file has in its life. One is
// used up each time that somebody asks for a challenge.
const checksPerFile = 64

// nonceBytes of randomness are in a challenge.
const nonceBytes = 16

// checksFormat is the version of the layout of Checks.
const checksFormat = 1

// Checks are challenges about one escrow file, made while its content is known:
// the machine does not keep the recovery keys or the administrator's password,
// and so could not judge an answer later. What is stored gives nothing away: an
// answer is the SHA-256 of a nonce and the content, and only the SHA-256 of the
// answer is kept. The content must hold at least 128 random bits.
type Checks struct {
	Format int    `json:"format"`
	File   string `json:"file"` // base name of the escrow file
	// SealedSHA256 is of the escrow file as stored, hex: another file, even of
	// the same content, has to be confirmed anew.
	SealedSHA256 string `json:"sealed_sha256"`
	// Key is the fingerprint of the master key, for its escrow.
	Key    string    `json:"key,omitempty"`
	MadeAt time.Time `json:"made_at"`
	Unused []check   `json:"unused"`
}

// check is one challenge.
type check struct {
	Nonce        string `json:"nonce"`
	AnswerSHA256 string `json:"answer_sha256"`
}

// NewChecks makes the challenges for the escrow file of that base name, which
// holds sealed; plain is what is inside, key the master key's fingerprint or "".
func NewChecks(file string, sealed, plain []byte, key string, random io.Reader, now time.Time) (Checks, error) {
	if err := checkFileName(file); err != nil {
		return Checks{}, err
	}
	c := Checks{Format: checksFormat, File: file, SealedSHA256: sum(sealed), Key: key, MadeAt: now.UTC()}
	raw := make([]byte, nonceBytes)
	for range checksPerFile {
		if _, err := io.ReadFull(random, raw); err != nil {
			return Checks{}, fmt.Errorf("make escrow challenge: %w", err)
		}
		nonce := hex.EncodeToString(raw)
		c.Unused = append(c.Unused, check{nonce, sum([]byte(Answer(nonce, plain)))})
	}
	return c, nil
}

// Answer is what somebody who has opened the escrow file answers to a nonce:
// the SHA-256, in hex, of the nonce, a line feed and the content. With stock
// tools:
//
//	{ echo NONCE; age -d -i KEY FILE; } | sha256sum
func Answer(nonce string, plain []byte) string {
	h := sha256.New()
	h.Write([]byte(nonce + "\n"))
	h.Write(plain)
	return hex.EncodeToString(h.Sum(nil))
}

// Name is the base name of the file that holds c. It belongs to one version of
// the escrow file, so it can be written before that one is.
func (c Checks) Name() string {
	return checksPrefix + c.File + "-" + c.SealedSHA256[:16] + checksSuffix
}

// Stale are those of a folder's names that c has made useless, once it and its
// escrow file are there: the challenges of earlier versions of the file, and
// what killed writes of challenges have left.
func (c Checks) Stale(names []string) []string {
	var stale []string
	prefix := checksPrefix + c.File + "-"
	for _, n := range names {
		whole := strings.HasPrefix(n, prefix) && strings.HasSuffix(n, checksSuffix) && n != c.Name()
		half := strings.HasPrefix(n, "."+prefix) && strings.Contains(n, checksSuffix+".tmp-")
		if whole || half {
			stale = append(stale, n)
		}
	}
	return stale
}

// ChecksName is the base name of the file with the challenges for an escrow
// file of that base name and content.
func ChecksName(file string, sealed []byte) string {
	return Checks{File: file, SealedSHA256: sum(sealed)}.Name()
}

const (
	checksPrefix = "check-"
	checksSuffix = ".json"
)

// Encode is c as it is stored.
func (c Checks) Encode() ([]byte, error) { return statefile.Encode(c) }

// parseChecks reads what Encode wrote.
func parseChecks(data []byte) (Checks, error) {
	var c Checks
	if err := statefile.Decode(data, checksFormat, &c); err != nil {
		return Checks{}, fmt.Errorf("escrow challenges: %w", err)
	}
	if err := checkFileName(c.File); err != nil {
		return Checks{}, err
	}
	if !isSum(c.SealedSHA256) {
		return Checks{}, errors.New("escrow challenges: no sum of the escrow file")
	}
	for _, u := range c.Unused {
		if !isNonce(u.Nonce) || !isSum(u.AnswerSHA256) {
			return Checks{}, errors.New("escrow challenges: one is damaged")
		}
	}
	return c, nil
}

// loadChecks gives, by file, the challenges of the version that is in dir, or,
// where the file itself has been taken away, of the newest.
func loadChecks(dir string) (map[string]Checks, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("escrow folder: %w", err)
	}
	sums, next := map[string]string{}, map[string]string{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), NextSuffix); ok && e.Type().IsRegular() {
			if next[name], err = sumOf(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
		if strings.HasSuffix(e.Name(), sealedSuffix) && e.Type().IsRegular() {
			if sums[e.Name()], err = sumOf(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	found := map[string]Checks{}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), checksPrefix) || !strings.HasSuffix(e.Name(), checksSuffix) {
			continue
		}
		data, err := readSmall(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		c, err := parseChecks(data)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", filepath.Join(dir, e.Name()), err)
		}
		if s, there := sums[c.File]; there && s != c.SealedSHA256 {
			continue // of a version that was replaced, or is not yet in force
		}
		if next[c.File] == c.SealedSHA256 {
			continue // of a rotation that is not confirmed
		}
		if old, ok := found[c.File]; !ok || c.MadeAt.After(old.MadeAt) {
			found[c.File] = c
		}
	}
	// A file without challenges is known all the same.
	for name, s := range sums {
		if _, ok := found[name]; !ok {
			found[name] = Checks{Format: checksFormat, File: name, SealedSHA256: s}
		}
	}
	return found, nil
}

const sealedSuffix = ".age"

// NextSuffix is that of an escrow file that a rotation has left to be confirmed; it is not
// in force.
const NextSuffix = ".next"

// checkFileName refuses what is not the base name of an escrow file.
func checkFileName(s string) error {
	name := strings.TrimSuffix(s, sealedSuffix)
	if name == s || name == "" || len(s) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("escrow file %q: want a name such as master-key.age", s)
	}
	return nil
}

func isNonce(s string) bool { return isHex(s, 2*nonceBytes) }
func isSum(s string) bool   { return isHex(s, 2*sha256.Size) }

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func sumOf(path string) (string, error) {
	b, err := readSmall(path)
	if err != nil {
		return "", err
	}
	return sum(b), nil
}

// readSmall reads a file of at most maxSealed bytes.
func readSmall(path string) ([]byte, error) {
	b, err := atomicfile.ReadSmall(path, maxSealed)
	if err != nil {
		return nil, fmt.Errorf("escrow: %w", err)
	}
	return b, nil
}
