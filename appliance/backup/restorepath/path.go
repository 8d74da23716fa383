// Package restorepath brings single secrets of a snapshot back into a Vault and
// touches nothing else.
//
// It is a package of its own since it brings up a whole scratch Vault, front
// included, which a program that only restores has no use for.
package restorepath

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"strongroom.example/appliance/backup/isolate"
	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/kms"
)

// ErrNoSecret means that the snapshot has nothing at a path.
var ErrNoSecret = errors.New("the snapshot has no such secret")

// ErrNoMetadata means that a secret is back and that its custom metadata could not
// be written.
var ErrNoMetadata = errors.New("brought back, without its custom metadata")

// PathsOptions of bringing back single secrets.
type PathsOptions struct {
	Snapshot *restore.Checked
	// Paths are full paths of secrets ("secret/app/prod/name"); one that ends
	// in / stands for all below it.
	Paths []string
	// Live is where they go, with a token that may write them.
	Live *vaultapi.Client
	// Login logs in to the Vault that the snapshot is brought up in. It knows
	// the tokens, users and roles of the time of the snapshot.
	Login func(ctx context.Context, c *vaultapi.Client) error
	// Keyset is the master key that the snapshot is sealed with.
	Keyset   *kms.Keyset
	Programs scratch.Programs
	// PluginDir is the machine's plugin directory, whose files the restored
	// catalog names; empty: Programs.Plugin alone.
	PluginDir string
	// Dir is an empty folder that the caller removes; as large as the Vault.
	Dir string
	// Hide are folders that the brought up Vault must not see, beside those where
	// Live's audit devices write, as far as its token may know.
	Hide     []string
	Patience time.Duration
	// Step is told of each step as it begins; may be nil.
	Step func(name string)
}

// Paths brings back single secrets, each as a new version, and touches nothing
// else. The snapshot is brought up in a Vault of its own for that, which is cut
// off from every network and gone afterwards. It needs root.
func Paths(ctx context.Context, o PathsOptions) (copied []Copied, err error) {
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if err := mountsOf(ctx, o.Live, o.Paths); err != nil {
		return nil, err
	}
	audit, err := auditFolders(ctx, o.Live)
	if err != nil {
		return nil, err
	}
	o.Hide = append(audit, o.Hide...)
	set := proc.NewSet()
	defer func() { err = errors.Join(err, set.Close()) }()

	o.Step("bring the snapshot up in a Vault of its own, without a network")
	up, err := bringUp(ctx, set, o)
	if err != nil {
		return nil, err
	}
	o.Step("copy what was asked for")
	var errs []error
	for _, path := range o.Paths {
		names, err := expand(ctx, up, path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, name := range names {
			c, err := copySecret(ctx, up, o.Live, name)
			errs = append(errs, err)
			if err == nil || c.NoMetadata {
				copied = append(copied, c)
			}
		}
	}
	return copied, errors.Join(errs...)
}

// mountsOf sees that every path can be written at all before anything is done.
func mountsOf(ctx context.Context, c *vaultapi.Client, paths []string) error {
	var errs []error
	for _, p := range paths {
		_, err := mountOf(ctx, c, strings.TrimSuffix(p, "/"))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// bringUp starts a Vault, restores the snapshot into it and logs in.
func bringUp(ctx context.Context, set *proc.Set, o PathsOptions) (*vaultapi.Client, error) {
	front, err := scratch.FreeAddress()
	if err != nil {
		return nil, err
	}
	v, err := scratch.Start(ctx, set, scratch.Options{
		Dir: o.Dir, Programs: o.Programs, PluginDir: o.PluginDir, Keyset: o.Keyset, FrontAddress: front,
		Wrap: isolate.Command(o.Programs.Strongroom, o.Hide, o.Programs.Vault),
	})
	if err != nil {
		return nil, err
	}
	c, err := v.Local()
	if err != nil {
		return nil, err
	}
	init, err := c.Init(ctx, vaultapi.InitRequest{RecoveryShares: 1, RecoveryThreshold: 1})
	if err != nil {
		return nil, err
	}
	c.SetToken(init.RootToken)
	if err := v.WaitActive(ctx); err != nil {
		return nil, err
	}
	// Its own epoch differs from the snapshot's: the engines stay fenced.
	if err := restore.Into(ctx, c, o.Snapshot, o.Patience); err != nil {
		return nil, err
	}
	c.SetToken("")
	if err := o.Login(ctx, c); err != nil {
		return nil, fmt.Errorf("log in to the Vault of the snapshot: %w", err)
	}
	if _, err := c.LookupSelf(ctx); err != nil {
		if vaultapi.IsDenied(err) {
			return nil, fmt.Errorf("log in to the Vault of the snapshot: %w: %w", restore.ErrTokenGone, err)
		}
		return nil, fmt.Errorf("log in to the Vault of the snapshot: %w", err)
	}
	return c, nil
}

// expand gives the secrets that a path stands for.
func expand(ctx context.Context, c *vaultapi.Client, path string) ([]string, error) {
	if !strings.HasSuffix(path, "/") {
		return []string{path}, nil
	}
	m, err := mountOf(ctx, c, path)
	if err != nil {
		return nil, fmt.Errorf("in the snapshot: %w", err)
	}
	names, err := m.list(ctx, c, strings.TrimPrefix(path, m.path))
	if err != nil {
		return nil, fmt.Errorf("list %q in the snapshot: %w", path, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%q: %w", path, ErrNoSecret)
	}
	for i := range names {
		names[i] = m.path + names[i]
	}
	return names, nil
}
