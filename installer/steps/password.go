package steps

import (
	"encoding/base32"
	"fmt"
	"io"
	"strings"
)

// password is so many random bits, or a few more, in groups that a person can type.
// userpass takes 72 bytes at most.
func (e *Env) password(bits int) (string, error) {
	raw := make([]byte, (bits+7)/8)
	if _, err := io.ReadFull(e.Rand, raw); err != nil {
		return "", fmt.Errorf("make a password: %w", err)
	}
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))[:(bits+4)/5]
	clear(raw)
	var groups []string
	for i := 0; i < len(text); i += 6 {
		groups = append(groups, text[i:min(i+6, len(text))])
	}
	return strings.Join(groups, "-"), nil
}
