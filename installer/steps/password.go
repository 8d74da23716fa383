package steps

import (
	"encoding/base32"
	"fmt"
	"io"
	"strings"
)

// password is 130 random bits in groups that a person can type.
func (e *Env) password() (string, error) {
	raw := make([]byte, 20)
	if _, err := io.ReadFull(e.Rand, raw); err != nil {
		return "", fmt.Errorf("make a password: %w", err)
	}
	text := strings.ToLower(base32.StdEncoding.EncodeToString(raw))[:26]
	clear(raw)
	var groups []string
	for i := 0; i < len(text); i += 6 {
		groups = append(groups, text[i:min(i+6, len(text))])
	}
	return strings.Join(groups, "-"), nil
}
