package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"

	"strongroom.example/installer/host"
)

// Recipients are the keys that the escrow is encrypted to: the configured ones,
// or those that may log in as account. notes tell of keys that were passed
// over.
func Recipients(h *host.Host, configured []string, account string) (to []age.Recipient, notes []string, err error) {
	if len(configured) > 0 {
		for _, s := range configured {
			r, err := parseRecipient(s)
			if err != nil {
				return nil, nil, fmt.Errorf("escrow recipient: %w", err)
			}
			to = append(to, r)
		}
		return to, nil, nil
	}
	keys, notes, err := LoginKeys(h, account)
	if err != nil {
		return nil, nil, err
	}
	for _, key := range keys {
		r, err := parseRecipient(key)
		if err != nil {
			return nil, nil, err
		}
		to = append(to, r)
	}
	return to, notes, nil
}

// LoginKeys are the public keys that may log in as account and that age can
// encrypt to, each as a line of its own.
func LoginKeys(h *host.Host, account string) (keys, notes []string, err error) {
	u, err := h.User(account)
	if err != nil {
		return nil, nil, err
	}
	file := path.Join(u.Home, ".ssh", "authorized_keys")
	b, err := h.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, []string{file + " is not there"}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		key := keyIn(string(line))
		if key == "" {
			continue
		}
		if _, err := parseRecipient(key); err != nil {
			kind, _, _ := strings.Cut(key, " ")
			notes = append(notes, fmt.Sprintf("%s line %d: a key of type %s can't open an escrow", file, n, kind))
			continue
		}
		// Tabs would be none of the configuration's forms.
		keys = append(keys, strings.Join(strings.Fields(key), " "))
	}
	return keys, notes, nil
}

func parseRecipient(s string) (age.Recipient, error) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "age1") {
		r, err := age.ParseX25519Recipient(s)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
		return r, nil
	}
	r, err := agessh.ParseRecipient(s)
	if err != nil {
		kind, _, _ := strings.Cut(s, " ")
		return nil, fmt.Errorf("key of type %q: %w", kind, err)
	}
	return r, nil
}

// keyIn is the key of a line of authorized_keys (sshd(8)), without the options
// before it; "" for a comment or an empty line.
func keyIn(line string) string {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return ""
	}
	// Options end at the first space outside quotes.
	quoted := false
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '\\' && quoted:
			i++
		case line[i] == '"':
			quoted = !quoted
		case (line[i] == ' ' || line[i] == '\t') && !quoted:
			if isKeyType(line[:i]) {
				return line
			}
			rest := strings.TrimSpace(line[i:])
			if kind, _, _ := strings.Cut(rest, " "); isKeyType(kind) {
				return rest
			}
			return line
		}
	}
	return line
}

func isKeyType(s string) bool {
	for _, p := range []string{"ssh-", "ecdsa-", "sk-"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
