package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config/machine"
)

// listed is one snapshot in one place, as --json prints it.
type listed struct {
	Place    string    `json:"place"`
	ID       string    `json:"id"`
	TakenAt  time.Time `json:"taken_at"`
	Size     int64     `json:"size"` // bytes, with all that belongs to it
	Complete bool      `json:"complete"`
	Verified bool      `json:"verified"`
	// Newest is what restore and drill would choose.
	Newest  bool `json:"newest"`
	Retired bool `json:"retired"`
	InDoubt bool `json:"in_doubt"` // nobody knows when it was taken
	// Hidden: somebody has deleted it, and the bucket has kept its versions.
	Hidden bool `json:"hidden"`
	// Epoch, Lineage and RaftIndex say which is newer.
	Epoch     int64  `json:"epoch"`
	Lineage   string `json:"lineage"`
	RaftIndex uint64 `json:"raft_index"`
	// Untrusted is why it is never chosen: no key of the keyring has signed it.
	Untrusted string `json:"untrusted,omitempty"`
	// Unreadable is why nothing is known of it: its manifest could not be read.
	Unreadable string `json:"unreadable,omitempty"`
}

func (l listed) state() string {
	state := "incomplete"
	switch {
	case l.Complete && l.Unreadable != "":
		state = "MANIFEST UNREADABLE"
	case l.Verified:
		state = "verified"
	case l.Complete:
		state = "not verified"
	}
	for _, also := range []struct {
		is   bool
		word string
	}{{l.Newest, "newest"}, {l.Retired, "retired"}, {l.InDoubt, "date in doubt"}, {l.Untrusted != "", "NOT SIGNED"}, {l.Hidden, "DELETED, kept by the bucket"}} {
		if also.is {
			state += ", " + also.word
		}
	}
	return state
}

func snapshotListCommand(o *snapshotOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the snapshots in every place",
		Long: `Lists the snapshots in every place, oldest first by lineage and raft index, which no
wrong clock changes: of all clusters, or of the one
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
	places := o.destinations(b, machine.SnapshotState)
	found, err := snapshot.ListPlaces(c.Context(), places, o.cluster)
	errs := []error{err}
	all := []listed{}
	newest := map[string]snapshot.ID{} // by cluster
	clusters := map[string]bool{}
	for _, e := range found {
		clusters[e.ID.Cluster] = true
	}
	for cluster := range clusters {
		first, err := snapshot.NewestFirst(found, func(p snapshot.Placed) bool { return p.Verified && p.ID.Cluster == cluster })
		if err != nil {
			fmt.Fprintf(c.ErrOrStderr(), "note: %v; restore asks for one by --id\n", err)
		} else if len(first) > 0 {
			newest[cluster] = first[0].ID
		}
	}
	now := time.Now()
	for _, e := range found {
		p := e.Position
		all = append(all, listed{
			Place: e.Place, ID: e.ID.String(), TakenAt: e.ID.Time(), Size: e.Size, Complete: e.Complete, Verified: e.Verified && e.Unread == nil,
			Unreadable: text(e.Unread), Untrusted: text(e.Untrusted), Newest: newest[e.ID.Cluster] == e.ID, Retired: e.Retired, InDoubt: e.InDoubt(now), Hidden: e.Hidden, Epoch: p.Epoch, Lineage: p.Lineage, RaftIndex: p.Index,
		})
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
	strangers := snapshot.Strangers(c.Context(), places)
	for _, name := range slices.Sorted(maps.Keys(strangers)) {
		fmt.Fprintf(c.ErrOrStderr(), "note: %s in %s: of no snapshot, and left alone\n", words.Count(strangers[name], "object"), name)
	}
	return snapshotError(errors.Join(errs...))
}

// text is an error's; empty where there is none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
