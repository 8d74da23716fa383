package vaultapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

const raftSnapshot = "sys/storage/raft/snapshot"

// Snapshot streams a raft snapshot to w: Vault's stock archive, whose own sums
// the caller checks. It has no time limit but ctx's. An error means that what
// w got is worthless.
func (c *Client) Snapshot(ctx context.Context, w io.Writer) error {
	if err := c.stream(ctx, request{method: http.MethodGet, path: raftSnapshot}, nil, w); err != nil {
		return fmt.Errorf("take raft snapshot: %w", err)
	}
	return nil
}

// RestoreSnapshot replaces all of Vault's storage by the archive in r. force
// accepts an archive that another cluster's keys have sealed.
func (c *Client) RestoreSnapshot(ctx context.Context, r io.Reader, force bool) error {
	path := raftSnapshot
	if force {
		path += "-force"
	}
	if err := c.stream(ctx, request{method: http.MethodPost, path: path}, r, io.Discard); err != nil {
		return fmt.Errorf("restore raft snapshot: %w", err)
	}
	return nil
}

// stream makes one call that is not repeated, as in can be read once only.
func (c *Client) stream(ctx context.Context, r request, in io.Reader, out io.Writer) error {
	resp, sent, err := c.send(ctx, r, in)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
			body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			return errors.Join(refusal(r, resp.StatusCode, body), err)
		}
		_, err = io.Copy(out, resp.Body)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", r.method, r.path, err)
		if sent && r.changes() {
			err = fmt.Errorf("%w: %w", err, errUncertain)
		}
	}
	return err
}
