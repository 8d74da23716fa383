package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"filippo.io/age"
	"golang.org/x/term"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/config/recipient"
)

// errIdentity is of a key that cannot be read.
var errIdentity = errors.New("identity")

// errNoIdentity is a command by hand that was given no key; a job has its own.
var errNoIdentity = errors.New("no identity")

// readIdentities reads files with private keys, or a systemd credential where
// none is given. The passphrase of an SSH key is asked for on a terminal.
func readIdentities(files []string, own string) ([]age.Identity, error) {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = credential.Path(f)
	}
	if len(names) == 0 {
		if !credential.InUnit() {
			return nil, &Error{Code: ExitUsage, Err: errNoIdentity, Hint: "give --identity FILE: the private key of one of the recipients"}
		}
		names = []string{own}
	}
	var all []age.Identity
	for _, name := range names {
		data, err := credential.Read(name)
		if err != nil {
			return nil, &Error{Code: ExitOperator, Err: fmt.Errorf("%w: %w", errIdentity, err)}
		}
		ids, err := snapshot.ParseIdentities(data, passphraseFor(name))
		if err != nil {
			hint := ""
			if _, public := recipient.Parse(strings.TrimSpace(string(data))); public == nil {
				hint = "this is the public key: give the file with the private key"
			}
			return nil, &Error{Code: ExitOperator, Err: fmt.Errorf("%w %q: %w", errIdentity, name, err), Hint: hint}
		}
		all = append(all, ids...)
	}
	return all, nil
}

// passphraseFor asks on the terminal, also when standard input is a pipe; nil
// where there is none.
func passphraseFor(name string) func() ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	return func() ([]byte, error) {
		defer tty.Close()
		fmt.Fprintf(tty, "Passphrase of %s: ", name)
		defer fmt.Fprintln(tty)
		return term.ReadPassword(int(tty.Fd()))
	}
}
