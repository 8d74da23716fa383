package cli

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

type pruneOptions struct {
	*snapshotOptions
	keep          config.BackupKeep
	dryRun        bool
	takeState     string
	unlessStandby bool
}

func pruneCommand(shared *snapshotOptions) *cobra.Command {
	o := pruneOptions{snapshotOptions: shared}
	c := &cobra.Command{
		Use:   "prune",
		Short: "Delete the snapshots that are no longer to be kept",
		Long: `Keeps, for each of the last hours, days, weeks and months that have any, the newest
verified snapshot, and deletes the others, with the remains of interrupted uploads.

The newest verified snapshot is never deleted, nor anything newer; where nothing
is verified, no complete snapshot is. What object lock holds stays. "Newest" is what
Vault's raft index and the lineage say, never a date. While this machine's clock is
in doubt nothing is deleted.`,
		RunE: func(c *cobra.Command, _ []string) error { return runPrune(c, o) },
	}
	argument.Several(c, "FOLDER", "dir", &shared.dirs)
	f := c.Flags()
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "change nothing, and show what would be deleted, and why the others stay")
	f.IntVar(&o.keep.Hourly, "keep-hourly", 0, "hours for which to keep one each (default: the configuration's)")
	f.IntVar(&o.keep.Daily, "keep-daily", 0, "days for which to keep one each")
	f.IntVar(&o.keep.Weekly, "keep-weekly", 0, "weeks for which to keep one each")
	f.IntVar(&o.keep.Monthly, "keep-monthly", 0, "months for which to keep one each")
	f.StringVar(&o.takeState, "take-state", machine.SnapshotState, "folder of the taking job's state: it tells the cluster")
	f.BoolVar(&o.unlessStandby, "unless-standby", false, "do nothing where the taking job stood aside because Vault is a standby")
	return c
}

// pruned is what --json prints for one place.
type pruned struct {
	Place     string     `json:"place"`
	Deleted   int        `json:"deleted"`
	Swept     int        `json:"swept"`
	Decisions []decision `json:"decisions"`
}

type decision struct {
	ID   string `json:"id"`
	Keep bool   `json:"keep"`
	Why  string `json:"why"`
}

func runPrune(c *cobra.Command, o pruneOptions) error {
	if o.unlessStandby && standsBy(o.takeState) {
		fmt.Fprintln(c.OutOrStdout(), "standby: the leader prunes")
		return nil
	}
	b, err := o.backup()
	if err != nil {
		return err
	}
	keep := b.Keep
	if o.keep != (config.BackupKeep{}) {
		keep = o.keep
	}
	policy := policyOf(keep)
	if err := policy.Validate(); err != nil {
		return &Error{Code: ExitUsage, Err: err, Hint: "see " + c.CommandPath() + " --help"}
	}
	done, err := snapshot.PrunePlaces(c.Context(), o.destinations(b, o.takeState), o.takeState, snapshot.PruneOptions{ClusterID: o.cluster, Policy: policy, DryRun: o.dryRun})
	errs := []error{err}
	all := []pruned{}
	for _, res := range done {
		all = append(all, prunedOf(res))
	}
	if o.json {
		errs = append(errs, printJSON(c, all))
	} else {
		errs = append(errs, printPruned(c, all, o.dryRun))
	}
	for _, res := range done {
		if res.Doubt != nil {
			errs = append(errs, fmt.Errorf("nothing was deleted: %w", res.Doubt))
			break
		}
	}
	return alertOf(c, b, "snapshot prune", snapshotError(errors.Join(errs...)))
}

func policyOf(k config.BackupKeep) snapshot.Policy {
	return snapshot.Policy{Hourly: k.Hourly, Daily: k.Daily, Weekly: k.Weekly, Monthly: k.Monthly}
}

func prunedOf(res snapshot.Pruned) pruned {
	p := pruned{Place: res.Place, Deleted: res.Deleted, Swept: res.Swept, Decisions: []decision{}}
	for _, dec := range res.Decisions {
		p.Decisions = append(p.Decisions, decision{dec.Entry.ID.String(), dec.Keep, dec.Why})
	}
	return p
}

func printPruned(c *cobra.Command, all []pruned, dryRun bool) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, p := range all {
		kept := 0
		for _, d := range p.Decisions {
			verb := "delete"
			if d.Keep {
				verb = "keep"
				kept++
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", verb, d.ID, d.Why)
		}
		if dryRun {
			fmt.Fprintf(w, "%s: would delete %d and keep %d\n", p.Place, len(p.Decisions)-kept, kept)
			continue
		}
		fmt.Fprintf(w, "%s: deleted %d, kept %d, removed %d interrupted uploads\n", p.Place, p.Deleted, kept, p.Swept)
	}
	return w.Flush()
}
