package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config/recipient"
)

// state is where the snapshot jobs keep their records.
func (r *run) state(job string) (string, error) {
	dir := filepath.Join(r.o.Dir, "data", "snapshot-"+job)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("folder of the %s job: %w", job, err)
	}
	return dir, nil
}

// takeSnapshot is what the snapshot timer's job does: a login that can do
// nothing else, and public keys only.
func (r *run) takeSnapshot(ctx context.Context) (string, error) {
	c, err := r.vault.Local()
	if err != nil {
		return "", err
	}
	health, err := c.Health(ctx)
	if err != nil {
		return "", err
	}
	if err := c.LoginAppRole(ctx, r.snapshotRole.roleID, r.snapshotRole.secretID); err != nil {
		return "", err
	}
	own, err := recipient.Parse(r.identity.Recipient().String())
	if err != nil {
		return "", err
	}
	if r.snapshots, err = snapshot.NewDir(r.vault.Layout.Snapshots()); err != nil {
		return "", err
	}
	state, err := r.state("take")
	if err != nil {
		return "", err
	}
	taken, err := snapshot.Take(ctx, snapshot.TakeOptions{
		Source:       c,
		Vault:        snapshot.InfoOf(health),
		Recipients:   append([]recipient.Recipient{own}, r.o.Recipients...),
		Destinations: []snapshot.Destination{r.snapshots},
		StateDir:     state,
		ToolVersion:  r.o.Version,
	})
	if err != nil {
		return "", err
	}
	r.clusterID = taken.Manifest.ClusterID
	if err := c.RevokeSelf(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %d KiB, by an AppRole that can do nothing else", taken.Manifest.ID, (taken.Manifest.Snapshot.Size+1023)/1024), nil
}

// verifySnapshot is what the verify job does: it holds the private key, and
// reads back what was stored.
func (r *run) verifySnapshot(ctx context.Context) (string, error) {
	take, err := r.state("take")
	if err != nil {
		return "", err
	}
	state, err := r.state("verify")
	if err != nil {
		return "", err
	}
	rec, err := snapshot.Verify(ctx, snapshot.VerifyOptions{
		Destination:  r.snapshots,
		Identities:   []age.Identity{r.identity},
		ClusterID:    r.clusterID,
		StateDir:     state,
		TakeStateDir: take,
		ToolVersion:  r.o.Version,
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("read back, decrypted, every sum checked; raft index %d", rec.RaftIndex), nil
}
