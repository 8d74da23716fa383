package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config/machine"
)

// packCommand is what systemd starts for who asks at machine.FilesSocket.
func packCommand(shared *snapshotOptions) *cobra.Command {
	drillKey := machine.DrillKeyPub
	c := &cobra.Command{
		Use:    "pack",
		Hidden: true,
		Short:  "Hand the configuration's files, encrypted, to the job that takes snapshots",
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := shared.backup()
			if err == nil && len(b.Files) == 0 {
				err = errors.New("[backup] names no files")
			}
			if err != nil {
				return snapshot.Refuse(c.OutOrStdout(), err)
			}
			var hidden []error
			b.CheckHidden(func(key string, err error) { hidden = append(hidden, fmt.Errorf("%s: %w", key, err)) })
			if err := errors.Join(hidden...); err != nil {
				return snapshot.Refuse(c.OutOrStdout(), err)
			}
			to, err := snapshot.Readers(b.Recipients, drillKey)
			if err != nil {
				return snapshot.Refuse(c.OutOrStdout(), err)
			}
			return snapshot.Pack(c.Context(), c.OutOrStdout(), os.TempDir(), to, snapshot.FilesFrom(b.Files...))
		},
	}
	c.Flags().StringVar(&drillKey, "drill-key", drillKey, "file with the drill's age recipient; passed over where it is not there")
	return c
}
