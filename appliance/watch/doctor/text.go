package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"strongroom.example/appliance/base/vaultapi"
)

// maxText bounds a line of evidence, in characters.
const maxText = 300

// oneLine keeps what others wrote on one line, and from moving the cursor.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > maxText {
		s = string(r[:maxText]) + "…"
	}
	return s
}

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
		return "no connection: " + oneLine(dial.Err.Error())
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.Is(err, fs.ErrNotExist):
		return "not there"
	}
	return oneLine(err.Error())
}

// list joins names, the first few of many.
func list(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
