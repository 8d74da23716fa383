package cli

import (
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/words"
)

// listed is one snapshot in one place, as --json prints it.
type listed struct {
	Place    string    `json:"place"`
	ID       string    `json:"id"`
	TakenAt  time.Time `json:"taken_at"`
	Size     int64     `json:"size"` // bytes, with all that belongs to it
	Complete bool      `json:"complete"`
	Verified bool      `json:"verified"`
}

func (l listed) state() string {
	switch {
	case l.Verified:
		return "verified"
	case l.Complete:
		return "not verified"
	}
	return "incomplete"
}

func snapshotListCommand(o *snapshotOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the snapshots in every place",
		Long: `Lists the snapshots in every place, oldest first: of all clusters, or of the one
that --cluster names. "verified" means that one was downloaded, decrypted and
checked, here or on another machine.`,
		Example: `  strongroom snapshot list
  strongroom snapshot list /mnt/backup`,
		RunE: func(c *cobra.Command, _ []string) error { return runSnapshotList(c, o) },
	}
	argument.Several(c, "FOLDER", "dir", &o.dirs)
	return c
}

func runSnapshotList(c *cobra.Command, o *snapshotOptions) error {
	b, err := o.backup()
	if err != nil {
		return err
	}
	found, err := snapshot.ListPlaces(c.Context(), destinations(b), o.cluster)
	errs := []error{err}
	all := []listed{}
	for _, e := range found {
		all = append(all, listed{e.Place, e.ID.String(), e.ID.Time(), e.Size, e.Complete, e.Verified})
	}
	if o.json {
		errs = append(errs, printJSON(c, all))
	} else {
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "TAKEN\tSIZE\tSTATE\tNAME\tPLACE")
		for _, l := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", l.TakenAt.Format("2006-01-02 15:04"), words.Size(l.Size), l.state(), l.ID, l.Place)
		}
		errs = append(errs, w.Flush())
	}
	return snapshotError(errors.Join(errs...))
}
