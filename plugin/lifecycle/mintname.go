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
// Its text is sr-MOUNT-KEY-INSTALLATION-VERSION-ATTEMPT: what comes first is
// what a search by prefix needs. At most 64 bytes of [a-z0-9-].
type MintName struct {
	Mount        string // 8 characters: which engine
	Key          string // 12 characters: which key (its uid, not its name)
	Installation string // up to 8 characters: which machine minted it
	Version      int
	Attempt      string // 6 characters
}

const mintPrefix = "sr"

// String is the name.
func (m MintName) String() string {
	return strings.Join([]string{mintPrefix, m.Mount, m.Key, m.Installation, strconv.Itoa(m.Version), m.Attempt}, "-")
}

// KeyPrefix begins the names of all versions of one key, from whichever
// installation.
func (m MintName) KeyPrefix() string {
	return strings.Join([]string{mintPrefix, m.Mount, m.Key, ""}, "-")
}

// ParseMintName takes apart what MintName.String made.
func ParseMintName(s string) (MintName, error) {
	parts := strings.Split(s, "-")
	if len(s) > 64 || len(parts) != 6 || parts[0] != mintPrefix {
		return MintName{}, fmt.Errorf("name %.80q: not one that this engine gives", s)
	}
	for _, p := range parts[1:] {
		if p == "" {
			return MintName{}, fmt.Errorf("name %q: a part is empty", s)
		}
	}
	version, err := strconv.Atoi(parts[4])
	if err != nil || version < 1 || strconv.Itoa(version) != parts[4] {
		return MintName{}, fmt.Errorf("name %q: %q is no version", s, parts[4])
	}
	return MintName{Mount: parts[1], Key: parts[2], Installation: parts[3], Version: version, Attempt: parts[5]}, nil
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
