package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
)

// maxText bounds a line of evidence, in characters.
const maxText = 300

// plain is an error in words for who reads a report.
func plain(err error) string {
	var dial *net.OpError
	switch {
	case vaultapi.IsDenied(err):
		return "Vault refuses: the login has ended, or its policy does not allow it"
	case vaultapi.IsRefusal(err):
		return fmt.Sprintf("Vault answers %d", vaultapi.Status(err))
	case errors.As(err, &dial):
		// Before the file's errors: a socket that is not there is a program that
		// does not run.
		return "no connection: " + words.Line(dial.Err.Error(), maxText)
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.Is(err, fs.ErrNotExist):
		return "not there"
	}
	return words.Line(err.Error(), maxText)
}
