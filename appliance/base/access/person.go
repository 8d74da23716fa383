package access

import (
	"errors"
	"strings"

	"strongroom.example/config/machine"
)

// Person is a log-in by name and password.
type Person struct{ Mount, User, Password string }

// String hides the password.
func (p Person) String() string { return p.User + " of auth/" + p.Mount + "/" }

// GoString hides the password from %#v.
func (p Person) GoString() string { return p.String() }

// ParsePerson reads what the escrow has of an administrator: how to log in, then the
// password.
func ParsePerson(plain []byte) (Person, error) {
	how, rest, ok := strings.Cut(strings.TrimSpace(string(plain)), "\n")
	p := Person{Mount: machine.AuthUserpass, Password: strings.TrimSpace(rest)}
	for _, option := range strings.Fields(how) {
		if mount, named := strings.CutPrefix(option, "-path="); named {
			p.Mount = mount
		}
	}
	_, user, named := strings.Cut(how, "username=")
	p.User = strings.TrimSpace(user)
	if !ok || !named || p.User == "" || p.Password == "" || p.Mount == "" || strings.ContainsAny(p.User, " /") || strings.ContainsAny(p.Mount, "/.") || strings.Contains(p.Password, "\n") {
		// Not quoted: it is a secret.
		return Person{}, errors.New("it does not hold an administrator's login")
	}
	return p, nil
}
