package vaultapi

import (
	"context"
	"fmt"
	"io"
)

// Snapshot streams a raft snapshot to w: Vault's stock archive, whose own sums
// the caller checks. It has no time limit but ctx's. An error means that what
// w got is worthless.
func (c *Client) Snapshot(ctx context.Context, w io.Writer) error {
	long, err := c.api.Clone()
	if err != nil {
		return fmt.Errorf("take raft snapshot: %w", err)
	}
	long.SetToken(c.api.Token())
	long.SetClientTimeout(0)
	if err := long.Sys().RaftSnapshotWithContext(ctx, w); err != nil {
		return fmt.Errorf("take raft snapshot: %w", err)
	}
	return nil
}

// RestoreSnapshot replaces all of Vault's storage by the archive in r. force
// accepts an archive that another cluster's keys have sealed.
func (c *Client) RestoreSnapshot(ctx context.Context, r io.Reader, force bool) error {
	long, err := c.api.Clone()
	if err != nil {
		return fmt.Errorf("restore raft snapshot: %w", err)
	}
	long.SetToken(c.api.Token())
	long.SetClientTimeout(0)
	if err := long.Sys().RaftSnapshotRestoreWithContext(ctx, r, force); err != nil {
		return fmt.Errorf("restore raft snapshot: %w", err)
	}
	return nil
}
