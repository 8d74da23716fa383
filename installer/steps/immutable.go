package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// immutable refuses a configuration that says otherwise of what was settled when Vault
// was initialised. It is held against what is in force, and not against the
// configuration that is kept here: a wrong one can always be put right.
func (s preflight) immutable(ctx context.Context) error {
	inUse, err := s.exists(machine.DoctorSecretFile)
	if err != nil {
		return err
	}
	data, err := s.vaultHasData()
	if err != nil || !data {
		return err
	}
	return errors.Join(s.sameNode(ctx, inUse), s.sameShares(ctx, inUse))
}

// sameNode holds node.id against raft's own where Vault can be asked, else against what
// was written down with the first data.
func (s preflight) sameNode(ctx context.Context, inUse bool) error {
	want := s.Config.Node.ID
	nodes := []string(nil)
	if inUse && s.notReady(ctx) == "" {
		// Whoever can't log in finds that out later, with what to do about it.
		nodes, _ = s.raftNodes(ctx)
	}
	if len(nodes) == 0 {
		id, err := s.nodeOnDisk()
		if err != nil || id == "" {
			return err
		}
		nodes = []string{id}
	}
	if slices.Contains(nodes, want) {
		return nil
	}
	return fmt.Errorf("node.id is %q, and this Vault's data is of node %q: %s; set it back", want, strings.Join(nodes, ", "), why("node.id"))
}

// raftNodes asks Vault for its nodes, as the doctor does.
func (s preflight) raftNodes(ctx context.Context) ([]string, error) {
	c, err := s.doctorClient(ctx)
	if err != nil {
		return nil, err
	}
	raft, err := c.Raft(ctx)
	if end := c.RevokeSelf(context.WithoutCancel(ctx)); err == nil {
		err = end
	}
	var ids []string
	for _, n := range raft.Nodes {
		ids = append(ids, n.ID)
	}
	return ids, err
}

var nodeInHCL = regexp.MustCompile(`(?m)^\s*node_id\s*=\s*"([^"]+)"`)

// nodeOnDisk is what was written down; "" where nothing was. Versions before 0.2 have
// left it in Vault's configuration alone.
func (s preflight) nodeOnDisk() (string, error) {
	b, err := s.Host.ReadFile(machine.NodeFile)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	b, err = s.Host.ReadFile(machine.VaultHCL)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if m := nodeInHCL.FindSubmatch(b); m != nil {
		return string(m[1]), nil
	}
	return "", nil
}

// sameShares holds the split of the recovery key against Vault's own, which it tells to
// anybody.
func (s preflight) sameShares(ctx context.Context, inUse bool) error {
	if !inUse || s.notReady(ctx) != "" {
		return nil
	}
	c, err := s.Vault("")
	if err != nil {
		return nil
	}
	is, err := c.SealStatus(ctx)
	if err != nil || is.Shares == 0 {
		return nil // a Vault that is away is the next steps' matter
	}
	var errs []error
	for _, k := range []struct {
		key      string
		want, is int
	}{{"escrow.shares", s.Config.Escrow.Shares, is.Shares}, {"escrow.threshold", s.Config.Escrow.Threshold, is.Threshold}} {
		if k.want != k.is {
			errs = append(errs, fmt.Errorf("%s is %d, and in force is %d: %s", k.key, k.want, k.is, why(k.key)))
		}
	}
	return errors.Join(errs...)
}

// why a key can't be changed.
func why(key string) string {
	c, _ := config.ClassOf(key)
	return c.Procedure
}
