package status

import (
	"errors"
	"io/fs"
	"net"
	"strings"

	"strongroom.example/appliance/base/vaultapi"
)

// plain is an error on one line, in words for who looks at a screen.
func plain(err error) string {
	var dial *net.OpError
	switch {
	case vaultapi.IsDenied(err):
		return "the login may not read this"
	case vaultapi.IsNotFound(err):
		return "Vault has nothing there"
	case len(vaultapi.Reasons(err)) > 0:
		return strings.Join(strings.Fields(strings.Join(vaultapi.Reasons(err), "; ")), " ")
	case errors.As(err, &dial):
		return "no connection: " + strings.Join(strings.Fields(dial.Err.Error()), " ")
	case errors.Is(err, fs.ErrPermission):
		return "not readable for this user; root can"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
