package credential

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// Pair reads what holds two texts, such as a user's name and password: two lines
// of TOML with exactly these names, neither empty. Its error quotes nothing of
// data.
func Pair(data []byte, first, second string) (a, b string, err error) {
	var got map[string]any
	if _, err := toml.Decode(string(data), &got); err == nil && len(got) == 2 {
		a, _ = got[first].(string)
		b, _ = got[second].(string)
	}
	if a == "" || b == "" {
		return "", "", fmt.Errorf("must hold the lines %s = \"…\" and %s = \"…\", and nothing else", first, second)
	}
	return a, b, nil
}

// EAB reads an account at a certificate authority (RFC 8555, section 7.3.4): the
// lines key_id and mac_key. CAs hand the key out with and without padding, in
// either alphabet; what is returned is base64url without. Its error quotes nothing
// of data.
func EAB(data []byte) (keyID, macKey string, err error) {
	keyID, macKey, err = Pair(data, "key_id", "mac_key")
	if err != nil {
		return "", "", err
	}
	macKey = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(macKey), "=")
	if _, err := base64.RawURLEncoding.DecodeString(macKey); err != nil {
		return "", "", errors.New("holds a mac_key that is not base64")
	}
	return keyID, macKey, nil
}
