package generated

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"
	"strings"

	"strongroom.example/plugin/provider/internal/fields"
)

// format is what a key looks like: prefix, random part, checksum.
type format struct {
	prefix   string
	length   int
	alphabet string
	policy   string // in place of length and alphabet
	checksum bool
}

// readFormat reads a format and records every fault in m.
func readFormat(m *fields.Map, policies bool) format {
	f := format{
		prefix:   m.String("prefix", "", maxPrefix),
		length:   m.Int("length", defaultLength, 1, maxLength),
		policy:   m.String("password_policy", "", maxPolicyName),
		checksum: m.OneOf("checksum", "none", "none", "crc32") == "crc32",
	}
	if i := strings.IndexFunc(f.prefix, notPrefix); i >= 0 {
		m.Fail("prefix", "%q: only a-z, A-Z, 0-9, _, - and . are allowed", f.prefix)
	}
	name := m.OneOf("alphabet", "base62", alphabetNames...)
	f.alphabet = alphabetOf(name)
	custom := m.String("characters", "", 128)
	if m.Has("characters") {
		if m.Has("alphabet") {
			m.Fail("characters", "cannot stand beside alphabet")
		}
		if err := checkCharacters(custom); err != nil {
			m.Fail("characters", "%v", err)
			return f
		}
		f.alphabet = custom
	}
	if m.Has("password_policy") {
		f.usePolicy(m, policies)
		return f
	}
	if got := entropy(f.length, len(f.alphabet)); got < MinEntropyBits {
		need := int(math.Ceil(MinEntropyBits / math.Log2(float64(len(f.alphabet)))))
		m.Fail("length", "%d characters out of %d give %.0f bits, needed are %d: at least %d characters",
			f.length, len(f.alphabet), got, MinEntropyBits, need)
	}
	return f
}

func (f *format) usePolicy(m *fields.Map, policies bool) {
	switch {
	case f.policy == "":
		m.Fail("password_policy", "must not be empty")
	case !policies:
		m.Fail("password_policy", "%q: there is no Vault here to ask for it", f.policy)
	}
	for _, name := range []string{"length", "alphabet", "characters"} {
		if m.Has(name) {
			m.Fail(name, "cannot stand beside password_policy, which says it all")
		}
	}
}

func entropy(length, alphabet int) float64 {
	return float64(length) * math.Log2(float64(alphabet))
}

func notPrefix(r rune) bool {
	return !strings.ContainsRune(base62+"_-.", r)
}

var errStuck = errors.New("the random bytes are not random")

// checkCharacters wants at least two printable ASCII characters, each once:
// one that comes twice would be drawn twice as often. Space, quotes and
// backslash are refused, because keys travel through shells and files.
func checkCharacters(s string) error {
	seen := map[byte]bool{}
	for i := range len(s) {
		c := s[i]
		switch {
		case c <= ' ' || c > '~' || c == '"' || c == '\'' || c == '\\':
			return fmt.Errorf("%q: %q is not allowed", s, c)
		case seen[c]:
			return fmt.Errorf("%q: %q is there twice", s, c)
		}
		seen[c] = true
	}
	if len(s) < 2 {
		return fmt.Errorf("%q: at least 2 different characters are needed", s)
	}
	return nil
}

// draw takes n characters of alphabet, each with the same probability: a byte
// is cut to the bits that number the alphabet and thrown away where it lies
// beyond (a remainder would favour the first characters).
func draw(r io.Reader, alphabet string, n int) (string, error) {
	mask := byte(1<<bits.Len(uint(len(alphabet)-1)) - 1)
	in := bufio.NewReaderSize(r, 2*n)
	out := make([]byte, 0, n)
	for tries := 0; len(out) < n; tries++ {
		if tries > 64*n+1024 { // less than every second byte is thrown away
			return "", errStuck
		}
		b, err := in.ReadByte()
		if err != nil {
			return "", err
		}
		if i := int(b & mask); i < len(alphabet) {
			out = append(out, alphabet[i])
		}
	}
	return string(out), nil
}

// Checksum is the CRC-32 (IEEE) of a key's random part in base62, six
// characters with leading zeros, as at the end of GitHub's tokens
// (https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/).
// With it, a scanner for leaked keys can tell a key from a chance match.
func Checksum(random string) string {
	sum := crc32.ChecksumIEEE([]byte(random))
	out := []byte("000000")
	for i := len(out) - 1; sum > 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return string(out)
}
