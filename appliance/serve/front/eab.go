package front

import (
	"fmt"
	"os"

	"github.com/mholt/acmez/v3/acme"

	"strongroom.example/appliance/base/credential"
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
	id, key, err := credential.EAB(file, text)
	if err != nil {
		return nil, fmt.Errorf("account at the CA: %w", err)
	}
	return &acme.EAB{KeyID: id, MACKey: key}, nil
}
