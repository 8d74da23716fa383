package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

type verifyOptions struct {
	*snapshotOptions
	identities       []string
	id               string
	state, takeState string
	unlessStandby    bool
	prune, passOver  bool
	beside           bool
	unsigned         bool
	timeout          time.Duration
}

func verifyCommand(shared *snapshotOptions) *cobra.Command {
	o := verifyOptions{snapshotOptions: shared}
	c := &cobra.Command{
		Use:   "verify",
		Short: "Download, decrypt and check the newest snapshot in every place",
		Long: `Downloads the snapshot that this machine has stored last from every place, or the
newest one where it has stored none, decrypts it, checks Vault's own sums and
compares all of it with the manifest. Only then is it recorded as good. No place
waits for another.

Exit code 3: a snapshot is damaged, incomplete or not there. 4: the identity
does not open it. The last good record is never changed by a failure.`,
		Example: `  strongroom snapshot verify
  strongroom snapshot verify /mnt/backup --identity ~/.ssh/id_ed25519`,
		RunE: func(c *cobra.Command, _ []string) error { return runVerify(c, o) },
	}
	argument.Several(c, "FOLDER", "dir", &shared.dirs)
	f := c.Flags()
	f.StringArrayVar(&o.identities, "identity", nil, "file with an age identity or an SSH private key, repeatable (default: systemd's credential)")
	f.StringVar(&o.id, "id", "", "which snapshot, CLUSTER/NAME as list shows it (default: the newest)")
	f.BoolVar(&o.unsigned, "unsigned", false, unsignedUsage)
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+machine.VerifyState+")")
	f.StringVar(&o.takeState, "take-state", machine.SnapshotState, "folder of the taking job's state: what it recorded must be what is there")
	f.DurationVar(&o.timeout, "timeout", 4*time.Hour, "give up after this time")
	f.BoolVar(&o.prune, "prune", false, "then remove what is no longer to be kept, as the verb prune does")
	f.BoolVar(&o.passOver, "pass-over-told", false, "do not fail for a place that cannot be asked where the taking job has told of it already")
	f.BoolVar(&o.beside, "beside-takes", false, "started by the taking job, which may still store in other places: pass over what was read back since that began, and read what it stores meanwhile. Where it has noted nothing new all is read")
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
	good, gone, err := o.verify(ctx, b)
	if errors.Is(err, errNoIdentity) {
		return byHand(ExitUsage, errNoIdentity, "give --identity FILE: the private key of one of the recipients")
	}
	chosen := o.chosen()
	if err != nil && !chosen && !typed(err) {
		// Verify records its own failures; those before it are recorded here.
		err = errors.Join(err, snapshot.RecordVerifyFailure(stateDir(o.state, machine.VerifyState), time.Now(), err))
	}
	if o.json {
		err = errors.Join(err, printJSON(c, good))
	} else {
		for name, rec := range good {
			fmt.Fprintf(c.OutOrStdout(), "good %s in %s: %s, raft index %d, taken %s\n",
				rec.ID, name, words.Size(rec.Size), rec.RaftIndex, rec.TakenAt.Format(time.RFC3339))
		}
		// Verify fails by itself where the clock stays in doubt.
		err = errors.Join(err, printPruned(c, gone, false))
	}
	if chosen || typed(err) {
		return err
	}
	return alertOf(c, b, "snapshot verify", err)
}

// chosen says that a person has named the snapshot or the places: see snapshot.VerifyOptions.
func (o *verifyOptions) chosen() bool { return o.id != "" || len(o.dirs) > 0 }

// standsBy says whether the taking job's last run stood aside.
func standsBy(takeState string) bool {
	s, err := snapshot.LoadTakeState(takeState)
	return err == nil && s.Standby != nil
}

// verify gives the records of the places that are good, what was pruned, and all
// errors.
func (o *verifyOptions) verify(ctx context.Context, b config.Backup) (map[string]snapshot.VerifiedRecord, []pruned, error) {
	identities, err := readIdentities(o.identities, machine.CredDrillKey)
	if err != nil {
		return nil, nil, err
	}
	var id snapshot.ID
	if o.id != "" {
		if id, err = snapshot.ParseID(o.id); err != nil {
			return nil, nil, &Error{Code: ExitUsage, Err: err, Hint: "strongroom snapshot list shows the names"}
		}
	}
	v := snapshot.VerifyOptions{
		Identities: identities, ClusterID: o.cluster, ID: id,
		StateDir: stateDir(o.state, machine.VerifyState), TakeStateDir: o.takeState, ToolVersion: o.version,
		PassOver: o.passOver, Unsigned: o.unsigned, Chosen: o.chosen(),
		Beside: o.beside,
	}
	var mu sync.Mutex
	var gone []pruned
	if o.prune {
		policy := policyOf(b.Keep)
		if err := policy.Validate(); err != nil {
			return nil, nil, &Error{Code: ExitUsage, Err: err, Hint: "see docs/backup.md"}
		}
		v.Then = func(ctx context.Context, d snapshot.Destination, cluster string, good snapshot.ID) error {
			res, err := snapshot.Prune(ctx, snapshot.PruneOptions{Destination: d, ClusterID: cluster, Good: good, Policy: policy, TakeStateDir: o.takeState})
			mu.Lock()
			defer mu.Unlock()
			gone = append(gone, prunedOf(snapshot.Pruned{Place: d.Name(), PruneResult: res}))
			return err
		}
	}
	good, err := snapshot.VerifyPlaces(ctx, o.destinations(b, o.takeState), v)
	mu.Lock()
	defer mu.Unlock()
	return good, slices.Clone(gone), snapshotError(err)
}
