package provider

import "fmt"

// MaxNameBytes bounds CreateRequest.Name.
const MaxNameBytes = 64

// CheckName tells whether name may be given to Create: 1 to MaxNameBytes bytes
// of [a-zA-Z0-9_-]. Every provider asks it first, because names end up in URLs,
// request bodies and the consoles of other services.
func CheckName(name string) error {
	if name == "" || len(name) > MaxNameBytes {
		return fmt.Errorf("name %.80q: must have 1 to %d bytes, has %d", name, MaxNameBytes, len(name))
	}
	for i := range len(name) {
		if !nameByte(name[i]) {
			return fmt.Errorf("name %q: byte %q at %d is not one of a-z, A-Z, 0-9, _ and -", name, name[i], i)
		}
	}
	return nil
}

func nameByte(b byte) bool {
	return b == '_' || b == '-' ||
		'0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}
