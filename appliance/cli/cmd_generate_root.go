package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/systembus"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/wayin"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

const (
	maxShare       = 1 << 10   // bytes of one recovery key
	maxShares      = 64 << 10  // bytes of all that is read of them
	maxVaultConfig = 256 << 10 // bytes of Vault's configuration file
)

type generateRootOptions struct {
	vault  vaultAccess
	config string
	lock   string
	close  bool
	reload func(context.Context) error
	// restart and gate are for OpenBao.
	restart func(context.Context) error
	gate    func() (*wayin.Gate, error)
	// door is OpenBao's socket, held by who has doorLock.
	door, doorLock string
}

func generateRootCommand() *cobra.Command {
	return (&generateRootOptions{
		config:  machine.VaultHCL,
		lock:    machine.OperationLock,
		reload:  func(ctx context.Context) error { return systembus.Reload(ctx, machine.UnitVault) },
		restart: func(ctx context.Context) error { return systembus.Restart(ctx, machine.UnitVault) },
		gate:    wayin.MachineGate,
		door:    machine.DoorSocket, doorLock: machine.DoorLock,
	}).command()
}

func (o *generateRootOptions) command() *cobra.Command {
	c := &cobra.Command{
		Use:   "generate-root",
		Short: "Make a root token with the recovery keys",
		Long: `For when nobody can log in any more: reads recovery keys from standard input, one a
line, as they are in the escrow, and prints a root token. It takes root, on
Vault's own machine.

Vault 2.x makes root tokens only for callers who have a token. For as long as this
runs, Vault's configuration file says that the recovery keys will do. OpenBao makes
them on a socket of root's own, for which it is restarted, twice. What a killed run
has left in that file goes at the next one, and whenever the server starts.

End the token when somebody can log in again: vault token revoke -self`,
		Example: `  age -d -i ~/.ssh/id_ed25519 recovery-keys-1.age | ssh root@vault.example.com strongroom generate-root`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.close {
				return o.shut()
			}
			return o.run(c)
		},
	}
	o.vault.addPlace(c.Flags())
	c.Flags().BoolVar(&o.close, "close", false, "only take out of Vault's configuration what a killed run has left there")
	return c
}

func (o *generateRootOptions) read() ([]byte, error) {
	return atomicfile.ReadSmall(o.config, maxVaultConfig)
}

// write keeps the file's owner and mode: Vault reads it, and nobody but root writes.
func (o *generateRootOptions) write(data []byte) error {
	f, err := atomicfile.Create(o.config, 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	f.Like(o.config)
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// shut runs at each start of Vault, before it: so it signals nobody.
func (o *generateRootOptions) shut() error {
	return wayin.CloseUnheld(o.read, o.write, o.door, o.doorLock)
}

func (o *generateRootOptions) run(c *cobra.Command) error {
	end, err := begin(c, o.lock)
	if err != nil {
		return err
	}
	defer end()
	v, err := o.vault.Client()
	if err != nil {
		return err
	}
	v.SetToken("")
	shares, err := readShares(c)
	if err != nil {
		return err
	}
	door := wayin.Door{Vault: v, Read: o.read, Write: o.write, Reload: o.reload, Patience: 30 * time.Second}
	health, err := v.Health(c.Context())
	if err != nil {
		return vaultError(err)
	}
	if health.Product == config.ProductOpenBao {
		door.Reload, door.Patience = o.restart, 2*time.Minute
		if door.Gate, err = o.gate(); err != nil {
			return err
		}
	}
	token, err := door.GenerateRoot(c.Context(), shares)
	if token != "" {
		// Also where the door stays open: nobody else has it.
		if _, said := fmt.Fprintln(c.OutOrStdout(), token); said != nil {
			err = errors.Join(err, o.end(v, token), fmt.Errorf("print the root token: %w", said))
		}
	}
	switch {
	case errors.Is(err, wayin.ErrLeftOpen):
		return &Error{Code: ExitFailed, Err: err, Hint: "systemctl restart " + machine.UnitVault + " closes it"}
	case errors.Is(err, vaultapi.ErrFewShares):
		return &Error{Code: ExitOperator, Err: err, Hint: "give those of several files, one after the other: (age -d … ; age -d …) | strongroom generate-root"}
	case vaultapi.IsBadRequest(err):
		return &Error{Code: ExitOperator, Err: err, Hint: "these are no recovery keys of this Vault: the newest escrow has them"}
	case errors.Is(err, os.ErrPermission):
		return &Error{Code: ExitOperator, Err: err, Hint: "run it as root, on Vault's own machine"}
	case err != nil:
		return vaultError(err)
	}
	fmt.Fprintln(c.ErrOrStderr(), "A root token may do everything: end it with vault token revoke -self.")
	return nil
}

// end ends a token that nobody has seen.
func (o *generateRootOptions) end(v *vaultapi.Client, token string) error {
	v.SetToken(token)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return v.RevokeSelf(ctx)
}

const hintShares = "age -d -i KEY recovery-keys-1.age | strongroom generate-root"

// readShares reads recovery keys, one a line. On a terminal they are not shown, and
// an empty line is the last.
func readShares(c *cobra.Command) ([]string, error) {
	in := c.InOrStdin()
	next := lines(in)
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		next = func() (string, error) {
			fmt.Fprint(c.ErrOrStderr(), "Recovery key (an empty line is the end): ")
			defer fmt.Fprintln(c.ErrOrStderr())
			line, err := term.ReadPassword(int(f.Fd()))
			if err == nil && len(line) == 0 {
				err = io.EOF
			}
			return string(line), err
		}
	}
	var out []string
	for {
		line, err := next()
		switch share := strings.TrimSpace(line); {
		case len(share) > maxShare:
			return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("recovery key %d has %d bytes or more: standard input holds something else", len(out)+1, maxShare), Hint: hintShares}
		case share != "" && !slices.Contains(out, share):
			out = append(out, share)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, &Error{Code: ExitFailed, Err: fmt.Errorf("read the recovery keys: %w", err)}
		}
	}
	if len(out) == 0 {
		return nil, &Error{Code: ExitUsage, Err: errors.New("no recovery keys on standard input"), Hint: hintShares}
	}
	return out, nil
}

func lines(in io.Reader) func() (string, error) {
	r := bufio.NewReader(io.LimitReader(in, maxShares))
	return func() (string, error) { return r.ReadString('\n') }
}
