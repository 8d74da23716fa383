package front

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/mholt/acmez/v3/acme"
)

// systemRoots is where Debian and Ubuntu keep the roots that they trust, in one
// file.
const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

// rootFiles adds the system's roots to those of a CA in one's own network:
// Caddy would otherwise trust the latter alone, for every CA.
func rootFiles(own []string) []string {
	if len(own) == 0 {
		return nil
	}
	if _, err := os.Stat(systemRoots); err != nil {
		return own
	}
	return append(append([]string{}, own...), systemRoots)
}

// readEAB reads the account that the operator has at a CA. Its errors quote
// nothing of the file.
func readEAB(file string) (*acme.EAB, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("account at the CA: %w", err)
	}
	defer clear(text)
	eab, err := parseEAB(string(text))
	if err != nil {
		return nil, fmt.Errorf("account at the CA: %q %w", file, err)
	}
	return eab, nil
}

func parseEAB(text string) (*acme.EAB, error) {
	var in struct {
		KeyID  string `toml:"key_id"`
		MACKey string `toml:"mac_key"`
	}
	md, err := toml.Decode(text, &in)
	switch {
	case err != nil: // its message quotes the line
		return nil, fmt.Errorf("is no TOML file with key_id and mac_key, a line each")
	case len(md.Undecoded()) > 0 || in.KeyID == "" || in.MACKey == "":
		return nil, fmt.Errorf("must hold key_id and mac_key, a line each, and nothing else")
	}
	// CAs hand it out with and without padding, in either alphabet; acmez wants
	// base64url without.
	key := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(in.MACKey), "=")
	if _, err := base64.RawURLEncoding.DecodeString(key); err != nil {
		return nil, fmt.Errorf("holds a mac_key that is not base64")
	}
	return &acme.EAB{KeyID: in.KeyID, MACKey: key}, nil
}
