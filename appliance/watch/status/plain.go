package status

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// plain is an error on one line, in words for who looks at a screen.
func plain(err error) string {
	var answer *api.ResponseError
	var dial *net.OpError
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden:
		return "the login may not read this"
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return "Vault has nothing there"
	case errors.As(err, &answer) && len(answer.Errors) > 0:
		return strings.Join(strings.Fields(strings.Join(answer.Errors, "; ")), " ")
	case errors.As(err, &dial):
		return "no connection: " + strings.Join(strings.Fields(dial.Err.Error()), " ")
	case errors.Is(err, fs.ErrPermission):
		return "not readable for this user; root can"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
