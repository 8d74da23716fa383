package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/migrate"
)

// migrateOptions are what the steps share.
type migrateOptions struct {
	vault vaultAccess
	root  string
	plan  string
	json  bool
}

func migrateCommand() *cobra.Command {
	o := &migrateOptions{}
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Move secrets from .env files into Vault, with a way back at each step",
		Long: `Step by step: scan looks and changes nothing; plan writes a file that you edit;
apply writes to Vault; verify compares; cutover takes the secrets out of the
.env files, with an encrypted backup; check finds what still sets a moved
variable. rollback is the way back: files that nobody has edited since come back
byte for byte, others keep what was edited.

Values are never printed, unless --reveal asks for it.`,
	}
	f := c.PersistentFlags()
	f.StringVar(&o.root, "root", ".", "top folder of the source tree")
	f.StringVar(&o.plan, "plan-file", "", "file of the plan (default: "+migrate.PlanFile+" in the root)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	c.AddCommand(migrateScanCommand(o), migratePlanCommand(o), migrateApplyCommand(o), migrateVerifyCommand(o), migrateCutoverCommand(o), migrateCheckCommand(o), migrateRollbackCommand(o))
	return c
}

func (o *migrateOptions) planFile() string {
	if o.plan != "" {
		return o.plan
	}
	return filepath.Join(o.root, migrate.PlanFile)
}

// planAbove says that a folder above the root has a plan, for who stands in a
// folder of the tree; else it is empty.
func (o *migrateOptions) planAbove() string {
	dir, err := filepath.Abs(o.root)
	if o.plan != "" || err != nil {
		return ""
	}
	for above := filepath.Dir(dir); above != dir; dir, above = above, filepath.Dir(above) {
		if st, err := os.Stat(filepath.Join(above, migrate.PlanFile)); err == nil && st.Mode().IsRegular() {
			return fmt.Sprintf("a plan is in %q, above this folder: run it there, or name that folder with --root", above)
		}
	}
	return ""
}

// orAbove is what to do where there is no plan.
func (o *migrateOptions) orAbove(hint string) string {
	if above := o.planAbove(); above != "" {
		return above
	}
	return hint
}

func (o *migrateOptions) loadPlan() (*migrate.Plan, error) {
	p, err := migrate.LoadPlan(o.planFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: o.orAbove("write one with strongroom migrate plan --app NAME")}
	}
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "correct the plan: see docs/migrate.md"}
	}
	return p, nil
}

func (o *migrateOptions) store() (*migrate.Vault, error) {
	c, err := o.vault.client()
	if err != nil {
		return nil, err
	}
	return migrate.NewVault(c), nil
}

// migrateError gives the exit code and what to do.
func migrateError(err error) error {
	var refused *migrate.Refused
	var file *fs.PathError // a socket is Vault's
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was changed; correct the files or the plan and run it again"}
	case errors.Is(err, statefile.ErrBusy):
		return &Error{Code: ExitFailed, Err: err, Hint: "wait until it ends"}
	case errors.Is(err, kv.ErrChanged):
		return &Error{Code: ExitFailed, Err: err, Hint: "run it again: it takes up where it stopped"}
	case errors.As(err, &file) && errors.Is(err, os.ErrPermission):
		return &Error{Code: ExitOperator, Err: err, Hint: "run it as the user whose tree it is: the journal and the backups are that user's alone"}
	case errors.Is(err, migrate.ErrWrongIdentity):
		return &Error{Code: ExitOperator, Err: err, Hint: "give --identity FILE with the private key of a recipient of the backup"}
	}
	return vaultError(err)
}

// problems prints what stands in the way, one a line.
func problems(c *cobra.Command, all []migrate.Problem) {
	for _, p := range all {
		word := "note"
		if p.Fatal {
			word = "error"
		}
		fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", word, p)
	}
}

func addFrom(c *cobra.Command, from *string) {
	c.Flags().StringVar(from, "from", "", "also take what another store prints, from this file or from standard input (-): flat JSON or lines of NAME=VALUE")
}

// readFrom reads what --from names, once, into memory alone.
func readFrom(c *cobra.Command, from string) (data []byte, err error) {
	switch from {
	case "":
		return nil, nil
	case "-":
		data, err = migrate.ReadOtherStore(c.InOrStdin())
	default:
		// A pipe that nobody writes to is empty: it is not waited for.
		f, openErr := os.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if openErr != nil {
			return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--from: %w", openErr)}
		}
		defer f.Close()
		data, err = migrate.ReadOtherStore(f)
	}
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--from %q: %w", from, err)}
	}
	if from != "-" {
		fmt.Fprintf(c.ErrOrStderr(), "note: %s stays as it is: delete it when its secrets are in Vault\n", from)
	}
	return data, nil
}
