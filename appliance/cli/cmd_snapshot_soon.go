package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/config/machine"
)

func soonCommand() *cobra.Command {
	var o snapshot.SoonOptions
	c := &cobra.Command{
		Use:   "soon",
		Short: "Wait until rotations are over and a snapshot is due",
		Long: `Waits until the file that the secrets engine touches after each rotation
($STRONGROOM_CHANGED_FILE) has been left alone for a while, and the last snapshot
is not too recent, then removes it and ends. The unit that starts it takes the
snapshot then, so that several rotations in one go make one snapshot.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Changed == "" {
				return &Error{Code: ExitUsage, Err: errors.New("no FILE that is touched after a rotation"), Hint: "give the file that $STRONGROOM_CHANGED_FILE of vault.service names"}
			}
			if o.Quiet < 0 || o.Most < 0 || o.Every < 0 {
				return &Error{Code: ExitUsage, Err: errors.New("--quiet, --most and --every must not be negative")}
			}
			err := snapshot.AwaitQuiet(c.Context(), o)
			if errors.Is(err, snapshot.ErrNoMark) {
				return &Error{Code: ExitUsage, Err: err, Hint: "give the file that $STRONGROOM_CHANGED_FILE of vault.service names"}
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "keys were rotated: a snapshot is due")
			return nil
		},
	}
	argument.One(c, "FILE", "changed", &o.Changed)
	f := c.Flags()
	f.StringVar(&o.Changed, "changed", "", "file that is touched after a rotation")
	f.StringVar(&o.TakeStateDir, "take-state", machine.SnapshotState, "folder of the taking job's state: it tells when the last one was taken")
	f.DurationVar(&o.Quiet, "quiet", time.Minute, "how long no rotation must have followed")
	f.DurationVar(&o.Most, "most", 5*time.Minute, "wait no longer than this for an end of rotations")
	f.DurationVar(&o.Every, "every", 5*time.Minute, "least distance to the last snapshot")
	return c
}
