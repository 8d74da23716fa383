package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/drill"
	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config/machine"
)

// The two halves that the units run, and what root does before them.

func drillFetchCommand(version string) *cobra.Command {
	var s drillSource
	var state string
	var timeout, wait time.Duration
	var again retries
	s.version = version
	c := &cobra.Command{
		Use:   "fetch",
		Short: "Fetch a snapshot for the drill: network, and no key",
		Long: `Copies the newest verified snapshot, still encrypted, into the drill's state
folder. strongroom-drill-fetch.service runs it; "strongroom drill run" goes on
from there without a network. What it could not fetch in the end, it notes for
"strongroom status" and "strongroom doctor", to which it is a drill that failed.`,
		RunE: func(c *cobra.Command, _ []string) error {
			spareMemory()
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			dir := stateDir(state, machine.DrillState)
			f, err := drill.FetchJob{
				StateDir: dir, Tries: again.tries(c, "drill fetch"), Now: time.Now,
				Chosen: s.chosen(), Fresh: drill.DefaultMaxRPO, Wait: wait,
				Options: func(ctx context.Context) (drill.FetchOptions, error) { return s.options(ctx, dir) },
			}.Run(ctx)
			if err != nil {
				return drillError(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "fetched %s from %s in %s\n", f.ID, f.From, f.FinishedAt.Sub(f.StartedAt).Round(10*time.Millisecond))
			return nil
		},
	}
	argument.Several(c, "FOLDER", "dir", &s.dirs)
	s.add(c)
	c.Flags().StringVar(&state, "state", "", "folder of the job's state (default: systemd's, else "+machine.DrillState+")")
	c.Flags().DurationVar(&timeout, "timeout", 3*time.Hour, "give up after this time, all tries together")
	c.Flags().DurationVar(&wait, "await-fresh", 0, "wait so long for a verified snapshot that is not too old: after a start there is one soon")
	again.add(c)
	return c
}

func drillRunCommand(version string) *cobra.Command {
	var k drillKeys
	var state string
	c := &cobra.Command{
		Use:   "run",
		Short: "Drill with the fetched snapshot: keys, and no network",
		Long: `Restores what "strongroom drill fetch" has left, checks it, and writes the report.
It must be cut off from every network already, as strongroom-drill.service is:
before anything is restored it looks whether that is so.

Exit code 75: nothing failed but the age of the data, or a clock is in doubt; the unit
drills again with a later snapshot.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			spareMemory()
			dir, err := filepath.Abs(stateDir(state, machine.DrillState))
			if err != nil {
				return err
			}
			o, err := k.options(c, version, dir)
			if err == nil {
				o.Isolated = true
				o.EscrowKey, err = drill.Prepared(dir)
			}
			if err != nil {
				return drillError(cannotBegin(dir, err))
			}
			report, err := drill.Run(c.Context(), o)
			failed := drillError(errors.Join(err, printReport(c, report, false)))
			if known := new(Error); errors.Is(err, drill.ErrTooOld) && errors.As(failed, &known) {
				known.Code = exitAgain
			}
			return failed
		},
	}
	k.add(c)
	c.Flags().StringVar(&state, "state", "", "folder of the job's state (default: systemd's, else "+machine.DrillState+")")
	return c
}

func drillPrepareCommand() *cobra.Command {
	var state, from string
	c := &cobra.Command{
		Use:    "prepare",
		Short:  "What root does before the drill's units",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir := stateDir(state, machine.DrillState)
			key, err := drill.EscrowedKey(from)
			if err != nil {
				return cannotBegin(dir, escrowFault(err))
			}
			return drillError(drill.Prepare(dir, key))
		},
	}
	c.Flags().StringVar(&state, "state", "", "folder of the job's state (default: systemd's, else "+machine.DrillState+")")
	c.Flags().StringVar(&from, "escrow", machine.EscrowDir, "the escrow's folder")
	return c
}

func verifyReportCommand() *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "verify-report FILE",
		Short: "Check the signature of a drill's report, and print it",
		Long: `Checks that a drill's report is what the drill signed, and prints it. The public
key can be carried off the machine, so that a report is good evidence elsewhere.

Exit code 3: the report was changed, another key signed it, or nobody did. It says
nothing about whether the drill passed: the report does.`,
		Example: `  strongroom drill verify-report /var/lib/strongroom/drill/last.json
  strongroom drill verify-report --key drill-signing.pub last.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			pub, err := atomicfile.ReadSmall(keyFile, atomicfile.MaxSmall)
			if err != nil {
				return &Error{Code: ExitUsage, Err: fmt.Errorf("--key: %w", err), Hint: "give the file drill-signing.pub of the machine that drilled"}
			}
			key, err := signing.ParsePublic(pub)
			if err != nil {
				return &Error{Code: ExitUsage, Err: fmt.Errorf("--key %q: %w", keyFile, err)}
			}
			data, err := credential.Read(credential.Path(args[0]))
			if err != nil {
				return &Error{Code: ExitUsage, Err: err}
			}
			s, err := report.Parse(data)
			if err == nil {
				err = s.Verify(key)
			}
			if err != nil {
				return &Error{Code: ExitDrift, Err: fmt.Errorf("%q: %w", args[0], err), Hint: "do not rely on it: run strongroom drill again"}
			}
			fmt.Fprintf(c.OutOrStdout(), "%ssigned by %s\n", s.Report.Text(), signing.Fingerprint(key))
			return nil
		},
	}
	c.Flags().StringVar(&keyFile, "key", machine.DrillSigningPub, "file with the public key that checks the report's signature")
	return c
}
