package credential

import (
	"encoding/base64"
	"fmt"
	"strings"

	"strongroom.example/config"
)

// EAB reads an account at a certificate authority (RFC 8555, section 7.3.4): the
// lines key_id and mac_key. CAs hand the key out with and without padding, in
// either alphabet; what is returned is base64url without. Its error quotes nothing
// of data.
func EAB(file string, data []byte) (keyID, macKey string, err error) {
	keyID, macKey, err = config.DecodePair(file, data, "key_id", "mac_key")
	if err != nil {
		return "", "", err
	}
	macKey = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(macKey), "=")
	if _, err := base64.RawURLEncoding.DecodeString(macKey); err != nil {
		return "", "", fmt.Errorf("%s: mac_key: is not base64", file)
	}
	return keyID, macKey, nil
}
