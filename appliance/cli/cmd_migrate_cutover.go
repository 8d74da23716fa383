package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/config/recipient"
)

type cutoverOptions struct {
	*migrateOptions
	recipients []string
	patchCode  bool
	dryRun     bool
}

func migrateCutoverCommand(shared *migrateOptions) *cobra.Command {
	o := cutoverOptions{migrateOptions: shared}
	c := &cobra.Command{
		Use:   "cutover [FOLDER]",
		Short: "Take the moved secrets out of the .env files",
		Long: `Verifies that Vault has every secret, encrypts a backup of each file that will
change to --recipient, and takes the secrets out of the .env files; every other
byte of them stays. Changes to Python code are shown as unified diffs, and made
only with --patch-code; their values are masked.`,
		Example: `  strongroom migrate cutover --dry-run
  strongroom migrate cutover --recipient ~/.ssh/id_ed25519.pub`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			return runCutover(c, o)
		},
	}
	o.vault.add(c.PersistentFlags())
	f := c.Flags()
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, repeatable: age1…, an SSH public key, or a file of them")
	f.BoolVar(&o.patchCode, "patch-code", false, "also apply the patches to Python code")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "change nothing, and show what would be changed")
	return c
}

func runCutover(c *cobra.Command, o cutoverOptions) error {
	to, err := readRecipients(o.recipients)
	if err != nil {
		return err
	}
	if len(to) == 0 && !o.dryRun {
		return &Error{Code: ExitUsage, Err: errors.New("no --recipient"), Hint: "name the key that can open the backup, such as --recipient ~/.ssh/id_ed25519.pub"}
	}
	plan, err := o.loadPlan()
	if err != nil {
		return err
	}
	store, err := o.store()
	if err != nil {
		return err
	}
	search, err := migrate.NewSearch(c.Context(), o.root, plan, store)
	if err != nil {
		return migrateError(err)
	}
	r, err := migrate.Cutover(c.Context(), migrate.CutoverOptions{
		Root: o.root, Plan: plan, Store: store, Recipients: recipient.Age(to), PatchCode: o.patchCode, DryRun: o.dryRun,
	})
	if err != nil {
		if r.Backup == "" { // nothing was begun
			return migrateError(err)
		}
		if !o.json {
			printCutover(c, o, r)
			fmt.Fprintln(c.OutOrStdout(), "it stopped there: run it again to go on, or strongroom migrate rollback to go back")
		} else if err := printJSON(c, r); err != nil {
			return err
		}
		return migrateError(err)
	}
	remains, err := search.Run(c.Context())
	if err != nil {
		printCutover(c, o, r)
		return &Error{Code: ExitFailed, Err: err, Hint: "the cutover is done; strongroom migrate verify looks for what is left"}
	}
	if o.json {
		err = printJSON(c, struct {
			migrate.CutoverReport
			Remains migrate.Remains `json:"remains"`
		}{r, remains})
		if err != nil {
			return err
		}
	} else {
		printCutover(c, o, r)
		if o.dryRun {
			fmt.Fprintln(c.OutOrStdout(), "what would be left after that:")
		}
		printRemains(c.OutOrStdout(), remains, 0)
	}
	if n := len(r.Unplanned); n > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%s that look like secrets and that no plan moves", words.Count(n, "variable")), Hint: "run strongroom migrate plan, apply and cutover again: what is done stays done"}
	}
	return nil
}

func printCutover(c *cobra.Command, o cutoverOptions, r migrate.CutoverReport) {
	out := c.OutOrStdout()
	for _, ch := range r.Changes {
		verb := "would take"
		if ch.Applied {
			verb = "took"
		}
		if len(ch.Removed) > 0 {
			fmt.Fprintf(out, "%s: %s out %s\n", ch.File, verb, strings.Join(ch.Removed, ", "))
		}
		if o.dryRun {
			fmt.Fprint(out, ch.Diff)
		}
		if ch.Diff != "" && !ch.Applied && (o.dryRun || !o.patchCode) {
			fmt.Fprintf(out, "not patched: %s: strongroom migrate cutover --patch-code makes the change that --dry-run shows; without it the program needs strongroom env exec\n", ch.File)
		}
		if ch.Diff != "" && ch.Applied {
			fmt.Fprintf(out, "%s: patched\n", ch.File)
		}
		for _, h := range ch.ByHand {
			fmt.Fprintf(out, "note: %s\n", placed(ch.File, h))
		}
	}
	for _, p := range r.Unplanned {
		fmt.Fprintf(out, "in clear: %s\n", p)
	}
	if r.Backup != "" {
		fmt.Fprintf(out, "backup: %s. Way back: strongroom migrate rollback --identity FILE\n", r.Backup)
	}
}

// placed is what is to be done by hand, as FILE:LINE: why.
func placed(file, why string) string {
	if rest, ok := strings.CutPrefix(why, "line "); ok {
		if line, what, ok := strings.Cut(rest, ": "); ok {
			return file + ":" + line + ": " + what
		}
	}
	return file + ": " + why
}
