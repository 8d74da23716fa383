package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config/machine"
)

func retireCommand(o *snapshotOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "retire CLUSTER/NAME...",
		Short: "Take a snapshot out of the choice, and have it deleted",
		Long: `Marks snapshots in every place that has them, so that nothing chooses one as the
newest any more: for those of a machine that went on although another one had taken
its place, or of a clock that was years ahead. The next prune deletes them, where object
lock lets it. It is refused where no other verified snapshot would be left.`,
		Example: `  strongroom snapshot retire 0b7ea4a6-22d4-4aa1-90ee-93e3d3e6c4f1/20300101T000000Z-1a2b3c4d`,
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runRetire(c, o, args) },
	}
}

func runRetire(c *cobra.Command, o *snapshotOptions, args []string) error {
	ids := make([]snapshot.ID, len(args))
	for i, arg := range args {
		var err error
		if ids[i], err = snapshot.ParseID(arg); err != nil {
			return &Error{Code: ExitUsage, Err: err, Hint: "strongroom snapshot list shows the names"}
		}
	}
	b, err := o.backup()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		held := 0
		for _, d := range o.destinations(b, machine.SnapshotState) {
			err := snapshot.Retire(c.Context(), d, id, time.Now())
			if err == nil {
				held++
				fmt.Fprintf(c.OutOrStdout(), "retired %s in %s\n", id, d.Name())
			} else if !errors.Is(err, snapshot.ErrNoSnapshot) || errors.Is(err, snapshot.ErrLast) {
				held++
				errs = append(errs, err)
			}
		}
		if held == 0 {
			errs = append(errs, fmt.Errorf("%s: %w of this name in any place", id, snapshot.ErrNoSnapshot))
		}
	}
	return snapshotError(errors.Join(errs...))
}
