package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// maxNote is more than the escrow has of an administrator, in bytes.
const maxNote = 4 << 10

const hintLogin = "age -d -i KEY local-admin.age | ssh root@HOST strongroom login"

type loginOptions struct{ vault vaultAccess }

func loginCommand() *cobra.Command {
	o := new(loginOptions)
	c := &cobra.Command{
		Use:   "login",
		Short: "Log in on this machine with the administrator's password in the escrow",
		Long: `Reads from standard input what the escrow's local-admin.age holds, logs in with it
over this machine's socket, and leaves the token where vault login does, for
vault, strongroom and strongroom-installer. On a terminal it asks for the password.

Nobody outside reaches that log-in, so nobody can lock it by wrong passwords. It
lasts for an hour: vault token revoke -self ends it before.`,
		Example: "  age -d -i ~/.ssh/id_ed25519 local-admin.age | ssh root@vault.example.com strongroom login",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	o.vault.addPlace(c.Flags())
	return c
}

func (o *loginOptions) run(c *cobra.Command) error {
	home, err := os.UserHomeDir()
	if err != nil {
		return &Error{Code: ExitOperator, Err: fmt.Errorf("where the token would be left: %w", err), Hint: "set HOME"}
	}
	who, err := readPerson(c)
	if err != nil {
		return err
	}
	v, err := o.vault.Client()
	if err != nil {
		return err
	}
	v.SetToken("")
	err = v.LoginUserpassAt(c.Context(), who.Mount, who.User, who.Password)
	switch {
	case vaultapi.IsBadRequest(err):
		return &Error{Code: ExitOperator, Err: err, Hint: "it is not the password that Vault has: the newest copy of the escrow has it; else docs/locked-out.md"}
	case err != nil:
		return vaultError(err)
	}
	file := filepath.Join(home, ".vault-token")
	if err := atomicfile.Write(file, []byte(v.Token()), 0o600); err != nil {
		return errors.Join(err, v.RevokeSelf(c.Context()))
	}
	fmt.Fprintf(c.OutOrStdout(), "Logged in as %s. The token is in %s; end it with vault token revoke -self.\n", who, file)
	return nil
}

// readPerson takes a file of the escrow as it was opened, or the password alone.
func readPerson(c *cobra.Command) (access.Person, error) {
	who := access.Person{Mount: machine.AuthLocal, User: "admin"}
	in := c.InOrStdin()
	var text []byte
	var err error
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(c.ErrOrStderr(), "Password of %s (in local-admin.age of the escrow): ", who)
		text, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(c.ErrOrStderr())
	} else {
		text, err = io.ReadAll(io.LimitReader(in, maxNote+1))
	}
	defer clear(text)
	if err != nil {
		return who, &Error{Code: ExitFailed, Err: fmt.Errorf("read the password: %w", err)}
	}
	if person, err := access.ParsePerson(text); err == nil && len(text) <= maxNote {
		return person, nil
	}
	who.Password = strings.TrimSpace(string(text))
	if who.Password == "" || len(text) > maxNote || strings.ContainsAny(who.Password, " \t\r\n") {
		return who, &Error{Code: ExitUsage, Err: errors.New("standard input holds neither a password nor an opened local-admin.age of the escrow"), Hint: hintLogin}
	}
	return who, nil
}
