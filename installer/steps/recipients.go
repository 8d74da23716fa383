package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"filippo.io/age"

	"strongroom.example/config/recipient"
	"strongroom.example/installer/host"
)

// Recipients are the keys that the escrow is encrypted to: the configured ones,
// or those that may log in as account. notes tell of keys that were passed
// over.
func Recipients(h *host.Host, configured []string, account string) (to []age.Recipient, notes []string, err error) {
	if len(configured) == 0 {
		if configured, notes, err = LoginKeys(h, account); err != nil {
			return nil, nil, err
		}
	}
	for _, s := range configured {
		r, err := recipient.Parse(s)
		if err != nil {
			return nil, nil, fmt.Errorf("escrow recipient: %w", err)
		}
		to = append(to, r.Recipient)
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
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' {
			continue
		}
		r, err := recipient.Parse(s)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s line %d can't open an escrow: %v", file, n, err))
			continue
		}
		keys = append(keys, r.Line)
	}
	return keys, notes, nil
}
