package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/migrate"
)

// checkOptions make a scan a check.
type checkOptions struct {
	check    bool
	baseline string
	update   bool
	format   string
}

func (o *checkOptions) add(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&o.check, "check", false, "end with 3 if there is a secret in a file that git does not ignore")
	f.StringVar(&o.baseline, "baseline", "", "file of the findings that are known: only others count; it has --check in it")
	f.BoolVar(&o.update, "update-baseline", false, "take all findings for known, and write that to the file of --baseline")
	f.StringVar(&o.format, "format", "text", "form of the output: text, json, sarif")
}

func (o *checkOptions) wanted() bool { return o.check || o.baseline != "" || o.update }

func scanFormat(o scanOptions, format string) (string, error) {
	switch {
	case format != "text" && format != "json" && format != "sarif":
		return "", &Error{Code: ExitUsage, Err: fmt.Errorf("--format %q is none of text, json and sarif", format)}
	case o.json && format == "sarif":
		return "", &Error{Code: ExitUsage, Err: errors.New("--json and --format sarif"), Hint: "one of them"}
	case o.json:
		return "json", nil
	}
	return format, nil
}

func (o *checkOptions) run(c *cobra.Command, scan scanOptions) error {
	format, err := scanFormat(scan, o.format)
	if err != nil {
		return err
	}
	known := migrate.NewBaseline(nil)
	switch data, err := migrate.ReadBaseline(o.baseline); {
	case o.update && o.baseline == "":
		return &Error{Code: ExitUsage, Err: errors.New("--update-baseline without --baseline"), Hint: "give the file"}
	case o.baseline == "" || o.update && errors.Is(err, os.ErrNotExist):
	case errors.Is(err, os.ErrNotExist):
		return &Error{Code: ExitUsage, Err: fmt.Errorf("there is no baseline %q", o.baseline), Hint: "write it with --update-baseline"}
	case err != nil:
		return &Error{Code: ExitFailed, Err: fmt.Errorf("baseline: %w", err)}
	case o.update:
	default:
		if known, err = migrate.ParseBaseline(o.baseline, data); err != nil {
			return &Error{Code: ExitUsage, Err: err, Hint: "write it anew with --update-baseline"}
		}
	}
	scan.noHistory, scan.compare = true, true
	r, err := scan.run(c)
	if err != nil {
		return err
	}
	all := migrate.Committed(c.Context(), scan.root, r.Findings())
	if o.update {
		return o.write(c, r, all)
	}
	with := known.Compare(all, r.Tree(c.Context(), o.baseline))
	out := c.OutOrStdout()
	switch format {
	case "json":
		err = printJSON(c, struct {
			Found int `json:"found"`
			migrate.Compared
			Problems []migrate.Problem `json:"problems"`
		}{len(all), with, r.Problems})
	case "sarif":
		err = printSARIF(c, r, all, &with)
	default:
		for _, f := range with.Fresh {
			fmt.Fprintf(out, "%s:%d: %s %s (%s): %s\n", f.File, f.Line, dash(f.Name), strings.Join(f.Secret, "; "), f.Kind, f.Advice)
		}
		problems(c, r.Problems)
		for _, to := range slices.Sorted(maps.Keys(with.Moved)) {
			fmt.Fprintf(out, "note: %s was %s, and what is known of that is known of it: write the baseline anew with --update-baseline\n", to, with.Moved[to])
		}
		for _, f := range with.Carried {
			fmt.Fprintf(out, "note: %s:%d: %s stood in %s before, and is known: write the baseline anew with --update-baseline\n", f.File, f.Line, dash(f.Name), f.From.File)
		}
		if len(with.Gone) > 0 {
			fmt.Fprintf(out, "note: %d of the baseline are no longer there: write it anew with --update-baseline\n", len(with.Gone))
		}
		fmt.Fprintf(out, "%d files, %d secrets, %d of them new\n", r.Files, len(all), len(with.Fresh))
	}
	if err != nil {
		return err
	}
	if len(with.Fresh) > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%d secrets that no baseline knows", len(with.Fresh)),
			Hint: "take them out, or, if they are none, take them for known: strongroom migrate scan --baseline FILE --update-baseline"}
	}
	return scanFaults(r)
}

func (o *checkOptions) write(c *cobra.Command, r *migrate.Report, all []migrate.Finding) error {
	if err := scanFaults(r); err != nil {
		problems(c, r.Fatal())
		return err
	}
	data, err := migrate.NewBaseline(all).Encode()
	if err != nil {
		return err
	}
	if err := atomicfile.Rewrite(o.baseline, data, 0o644); err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: %d findings are known now; it holds no values\n", o.baseline, len(all))
	return nil
}

func printSARIF(c *cobra.Command, r *migrate.Report, all []migrate.Finding, with *migrate.Compared) error {
	data, err := migrate.SARIF(c.Root().Version, all, with, r.Problems)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s\n", data)
	return err
}
