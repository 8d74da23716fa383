package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

type verifyOptions struct {
	*snapshotOptions
	identities       []string
	id               string
	state, takeState string
	unlessStandby    bool
	timeout          time.Duration
}

func verifyCommand(shared *snapshotOptions) *cobra.Command {
	o := verifyOptions{snapshotOptions: shared}
	c := &cobra.Command{
		Use:   "verify",
		Short: "Download, decrypt and check the newest snapshot in every place",
		Long: `Downloads the newest snapshot from every place, decrypts it, checks Vault's own
sums and compares all of it with the manifest. Only then is it recorded as good.

Exit code 3: a snapshot is damaged, incomplete or not there. 4: the identity
does not open it. The last good record is never changed by a failure.`,
		Example: `  strongroom snapshot verify
  strongroom snapshot verify --dir /mnt/backup --identity ~/.ssh/id_ed25519`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runVerify(c, o) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.identities, "identity", nil, "file with an age identity or an SSH private key, repeatable (default: systemd's credential)")
	f.StringVar(&o.id, "id", "", "which snapshot, CLUSTER/NAME as list shows it (default: the newest)")
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+machine.VerifyState+")")
	f.StringVar(&o.takeState, "take-state", machine.SnapshotState, "folder of the taking job's state: what it recorded must be what is there")
	f.DurationVar(&o.timeout, "timeout", 4*time.Hour, "give up after this time")
	f.BoolVar(&o.unlessStandby, "unless-standby", false, "do nothing where the taking job stood aside because Vault is a standby")
	return c
}

func runVerify(c *cobra.Command, o verifyOptions) error {
	spareMemory()
	if o.unlessStandby && standsBy(o.takeState) {
		fmt.Fprintln(c.OutOrStdout(), "standby: the leader verifies")
		return nil
	}
	b, err := o.backup()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), o.timeout)
	defer cancel()
	good, err := o.verify(ctx, b)
	if errors.Is(err, errNoIdentity) {
		return byHand(ExitUsage, errNoIdentity, "give --identity FILE: the private key of one of the recipients")
	}
	if err != nil {
		// Verify records its own failures; those before it are recorded here.
		err = errors.Join(err, snapshot.RecordVerifyFailure(stateDir(o.state, machine.VerifyState), time.Now(), err))
	}
	if o.json {
		err = errors.Join(err, printJSON(c, good))
	} else {
		for name, rec := range good {
			fmt.Fprintf(c.OutOrStdout(), "good %s in %s: %s, raft index %d, taken %s\n",
				rec.ID, name, size(rec.Size), rec.RaftIndex, rec.TakenAt.Format(time.RFC3339))
		}
	}
	return alertOf(c, b, "snapshot verify", err)
}

// standsBy says whether the taking job's last run stood aside.
func standsBy(takeState string) bool {
	s, err := snapshot.LoadTakeState(takeState)
	return err == nil && s.Standby != nil
}

// verify gives the records of the places that are good, and all errors.
func (o *verifyOptions) verify(ctx context.Context, b config.Backup) (map[string]snapshot.VerifiedRecord, error) {
	dests, err := destinations(b)
	if err != nil {
		return nil, err
	}
	identities, err := readIdentities(o.identities, machine.CredDrillKey)
	if err != nil {
		return nil, err
	}
	var id snapshot.ID
	if o.id != "" {
		if id, err = snapshot.ParseID(o.id); err != nil {
			return nil, &Error{Code: ExitUsage, Err: err, Hint: "strongroom snapshot list shows the names"}
		}
	}
	good := map[string]snapshot.VerifiedRecord{}
	var errs []error
	for _, d := range dests {
		cluster := id.Cluster
		if cluster == "" {
			if cluster, err = o.clusterIn(ctx, d, o.takeState); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		rec, err := snapshot.Verify(ctx, snapshot.VerifyOptions{
			Destination: d, Identities: identities, ClusterID: cluster, ID: id,
			StateDir: stateDir(o.state, machine.VerifyState), TakeStateDir: o.takeState, ToolVersion: o.version,
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		good[d.Name()] = rec
	}
	return good, snapshotError(errors.Join(errs...))
}
