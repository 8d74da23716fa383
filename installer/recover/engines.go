package recover

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"strongroom.example/appliance/base/vaultapi"
)

// engines has every mount of the secrets engine run the plugin of this
// installer: the snapshot may be of an older version, whose file is not here.
func (s engineStep) engines(ctx context.Context, c *vaultapi.Client) error {
	p, err := s.Env.EnginePlugin()
	if err != nil {
		return err
	}
	if err := c.RegisterPlugin(ctx, p); err != nil {
		return err
	}
	mounts, err := c.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var ours []string
	for path, m := range mounts {
		if m.Type != p.Name {
			continue
		}
		ours = append(ours, path)
		if m.PluginVersion == p.Version {
			continue
		}
		if err := c.TunePlugin(ctx, path, p.Version); err != nil {
			return fmt.Errorf("have %s run plugin version %s: %w", path, p.Version, err)
		}
	}
	slices.Sort(ours)
	// A mount whose plugin was not there when Vault unsealed is left out until
	// Vault starts again; and so started it has the raised epoch from the first.
	if err := s.Env.RestartVault(ctx); err != nil {
		return err
	}
	return answerAll(ctx, c, ours)
}

// answerAll is nil when every engine answers, as a process of its own that
// Vault has started.
func answerAll(ctx context.Context, c *vaultapi.Client, mounts []string) error {
	for _, path := range mounts {
		if _, err := c.Read(ctx, path+"reconcile"); err != nil {
			return fmt.Errorf("the engine at %s: %w", path, err)
		}
	}
	return nil
}

// endRootTokens ends the root tokens that are not this client's: of a recovery
// that was killed, or of the time of the snapshot. Nobody is to hold one.
func endRootTokens(ctx context.Context, c *vaultapi.Client) error {
	self, err := c.LookupSelf(ctx)
	var own string
	if err == nil {
		own, err = self.Text("accessor")
	}
	if err != nil {
		return fmt.Errorf("look at the own token: %w", err)
	}
	accessors, err := c.List(ctx, "auth/token/accessors")
	if err != nil {
		return fmt.Errorf("list tokens: %w", err)
	}
	for _, accessor := range accessors {
		if accessor == own {
			continue
		}
		t, err := c.LookupAccessor(ctx, accessor)
		if errors.Is(err, vaultapi.ErrTokenGone) {
			continue
		}
		var policies []string
		if err == nil {
			policies, err = t.Strings("policies")
		}
		if err != nil {
			return fmt.Errorf("look at a token: %w", err)
		}
		if !slices.Contains(policies, "root") {
			continue
		}
		if err := c.RevokeAccessor(ctx, accessor); err != nil && !errors.Is(err, vaultapi.ErrTokenGone) {
			return fmt.Errorf("end a root token: %w", err)
		}
	}
	return nil
}
