package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

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
		Long: `Six steps: scan looks and changes nothing; plan writes a file that you edit;
apply writes to Vault; verify compares; cutover takes the secrets out of the
.env files, with an encrypted backup; rollback restores every byte.

Values are never printed, unless --reveal asks for it.`,
	}
	f := c.PersistentFlags()
	f.StringVar(&o.root, "root", ".", "top folder of the source tree")
	f.StringVar(&o.plan, "plan-file", "", "file of the plan (default: "+migrate.PlanFile+" in the root)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	c.AddCommand(migrateScanCommand(o), migratePlanCommand(o), migrateApplyCommand(o), migrateVerifyCommand(o), migrateCutoverCommand(o), migrateRollbackCommand(o))
	return c
}

func (o *migrateOptions) planFile() string {
	if o.plan != "" {
		return o.plan
	}
	return filepath.Join(o.root, migrate.PlanFile)
}

func (o *migrateOptions) loadPlan() (*migrate.Plan, error) {
	p, err := migrate.LoadPlan(o.planFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "write one with strongroom migrate plan --app NAME"}
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
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was changed; correct the files or the plan and run it again"}
	case errors.Is(err, statefile.ErrBusy):
		return &Error{Code: ExitFailed, Err: err, Hint: "wait until it ends"}
	case errors.Is(err, kv.ErrChanged):
		return &Error{Code: ExitFailed, Err: err, Hint: "run it again: it takes up where it stopped"}
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
