package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// Reconciled is what one apikeys engine found out.
type Reconciled struct {
	Mount string `json:"mount"`
	// WasFenced tells whether the engine had seen that it was restored.
	WasFenced bool  `json:"was_fenced"`
	Done      bool  `json:"done"`
	Keys      int64 `json:"keys"`
	Checked   int64 `json:"checked"`
	Renewed   int64 `json:"renewed"`
	// Problems are of keys that could not be checked, by their names.
	Problems map[string]string `json:"problems"`
}

// roundSeconds is how long an engine works before it answers. It looks at the
// time between two keys only, and the client waits for 60 s.
const roundSeconds = 30

// maxRounds bounds how often one engine is told to go on: four hours.
const maxRounds = 480

// Reconcile lets every apikeys engine compare its keys with their providers and
// act again. ErrTokenGone when the restored Vault does not know the token,
// ErrProblems when an engine stays fenced.
func Reconcile(ctx context.Context, c *vaultapi.Client) ([]Reconciled, error) {
	mounts, err := c.API().Sys().ListMountsWithContext(ctx)
	if vaultapi.IsDenied(err) {
		return nil, fmt.Errorf("reconcile: %w: %w", ErrTokenGone, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reconcile: list mounts: %w", err)
	}
	var paths []string
	for path, m := range mounts {
		if m.Type == machine.PluginName {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	var out []Reconciled
	var errs []error
	for _, path := range paths {
		r, err := reconcileOne(ctx, c, path)
		out = append(out, r)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

func reconcileOne(ctx context.Context, c *vaultapi.Client, mount string) (Reconciled, error) {
	r := Reconciled{Mount: mount}
	state, err := c.API().Logical().ReadWithContext(ctx, mount+"reconcile")
	if err != nil {
		return r, fmt.Errorf("reconcile %s: %w", mount, err)
	}
	if state != nil {
		r.WasFenced, _ = state.Data["fenced"].(bool)
	}
	for range maxRounds {
		s, err := c.API().Logical().WriteWithContext(ctx, mount+"reconcile", map[string]any{"max_seconds": roundSeconds})
		if err != nil {
			return r, fmt.Errorf("reconcile %s: %w", mount, err)
		}
		if s == nil {
			return r, fmt.Errorf("reconcile %s: an empty answer", mount)
		}
		before := r.Checked
		r.read(s)
		// Finished and yet not done: some keys could not be checked. Another
		// round at once would meet the same providers.
		if r.Done || s.Data["finished_time"] != nil || r.Checked == before {
			break
		}
	}
	if !r.Done {
		return r, fmt.Errorf("%w at %s: %d", ErrProblems, mount, len(r.Problems))
	}
	return r, nil
}

func (r *Reconciled) read(s *api.Secret) {
	r.Done, _ = s.Data["done"].(bool)
	r.Keys, r.Checked, r.Renewed = vaultapi.Number(s.Data["keys"]), vaultapi.Number(s.Data["checked"]), vaultapi.Number(s.Data["renewed"])
	r.Problems = map[string]string{}
	problems, _ := s.Data["problems"].(map[string]any)
	for key, p := range problems {
		r.Problems[key] = fmt.Sprint(p)
	}
}
