package lifecycle

import (
	"fmt"
	"strconv"
	"strings"
)

// MintName is the name under which a version is created at the provider. It is
// written to the log before the provider is asked, so that after a crash the
// key can be found by it; the attempt makes each try a name of its own.
//
// Its text is sr-MOUNT-KEY-INSTALLATION-VERSION-ATTEMPT-LABEL: what comes first is
// what a search by prefix needs. At most MaxMintName bytes of [a-z0-9-]. The label
// is for people, so that they see in a service's console whose key it is. It is left
// out where there is no place for it, and no key is ours because of it.
type MintName struct {
	Mount        string // 8 characters: which engine
	Key          string // 12 characters: which key (its uid, not its name)
	Installation string // up to 8 characters: which machine minted it
	Version      int
	Attempt      string // 6 characters
	Label        string // what Label gives of the key's name
}

const mintPrefix = "sr"

// MaxMintName bounds a name, in bytes.
const MaxMintName = 64

// maxVersionNumber is beyond what any key reaches: a name with a higher one is not
// ours, and must not become the number that ours are counted from.
const maxVersionNumber = 1_000_000_000

// String is the name.
func (m MintName) String() string {
	name := strings.Join([]string{mintPrefix, m.Mount, m.Key, m.Installation, strconv.Itoa(m.Version), m.Attempt}, "-")
	label := m.Label
	if over := len(name) + 1 + len(label) - MaxMintName; over > 0 {
		// Of app/production/billing the end says more than the beginning.
		label = label[min(over, len(label)):]
		if _, rest, ok := strings.Cut(label, "-"); ok {
			label = rest
		}
	}
	if label == "" {
		return name
	}
	return name + "-" + label
}

// Label is a key's name in the letters that the name at a provider may have.
func Label(key string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(key), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "-")
}

// KeyPrefix begins the names of all versions of one key, from whichever
// installation.
func (m MintName) KeyPrefix() string {
	return strings.Join([]string{mintPrefix, m.Mount, m.Key, ""}, "-")
}

const identityParts = 6

// WithoutLabel is what of a name tells whose it is.
func WithoutLabel(name string) string {
	parts := strings.SplitN(name, "-", identityParts+1)
	if len(parts) <= identityParts || parts[0] != mintPrefix {
		return name
	}
	return strings.Join(parts[:identityParts], "-")
}

// ListedAs tells whether a key that was made under a name may be listed under
// another: that one, or with its label cut off or left out, and nothing else.
func ListedAs(made, listed string) bool {
	return listed != "" && strings.HasPrefix(made, listed) && len(listed) >= len(WithoutLabel(made))
}

// CutFrom tells whether a service may list a key by this name that was made under the
// other, wherever it cuts names: what is left says whose it is, though not which.
func CutFrom(made, listed string) bool {
	n, err := ParseMintName(made)
	return err == nil && strings.HasPrefix(made, listed) && len(listed) >= len(n.KeyPrefix())
}

// ParseMintName takes apart what MintName.String made.
func ParseMintName(s string) (MintName, error) {
	parts := strings.SplitN(s, "-", identityParts+1)
	if len(s) > MaxMintName || len(parts) < identityParts || parts[0] != mintPrefix {
		return MintName{}, fmt.Errorf("name %.80q: not one that this engine gives", s)
	}
	for _, p := range parts[1:] {
		if p == "" {
			return MintName{}, fmt.Errorf("name %q: a part is empty", s)
		}
	}
	version, err := strconv.Atoi(parts[4])
	if err != nil || version < 1 || version > maxVersionNumber || strconv.Itoa(version) != parts[4] {
		return MintName{}, fmt.Errorf("name %q: %q is no version", s, parts[4])
	}
	m := MintName{Mount: parts[1], Key: parts[2], Installation: parts[3], Version: version, Attempt: parts[5]}
	if len(parts) > identityParts {
		m.Label = parts[identityParts]
	}
	return m, nil
}

// InstallationTag shortens an installation's id to what fits into a name:
// its first eight letters and digits, in lower case. No id gives "local".
func InstallationTag(id string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(id) {
		if b.Len() == 8 {
			break
		}
		if ('a' <= r && r <= 'z') || ('0' <= r && r <= '9') {
			b.WriteRune(r)
		}
	}
	if b.Len() == 0 {
		return "local"
	}
	return b.String()
}
