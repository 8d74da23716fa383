package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

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
	mounts, err := c.Mounts(ctx)
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
	state, err := c.Read(ctx, mount+"reconcile")
	if err == nil {
		r.WasFenced, err = state.Bool("fenced")
	}
	if err != nil {
		return r, fmt.Errorf("reconcile %s: %w", mount, err)
	}
	for range maxRounds {
		before := r.Checked
		finished, err := r.round(ctx, c)
		if err != nil {
			return r, fmt.Errorf("reconcile %s: %w", mount, err)
		}
		// Finished and yet not done: some keys could not be checked. Another
		// round at once would meet the same providers.
		if r.Done || finished || r.Checked == before {
			break
		}
	}
	if !r.Done {
		return r, fmt.Errorf("%w at %s: %d", ErrProblems, mount, len(r.Problems))
	}
	return r, nil
}

// round lets the engine go on, and takes what it tells; finished says that it has
// looked at every key.
func (r *Reconciled) round(ctx context.Context, c *vaultapi.Client) (finished bool, err error) {
	data, err := c.Write(ctx, r.Mount+"reconcile", map[string]any{"max_seconds": roundSeconds})
	if err != nil {
		return false, err
	}
	got := Reconciled{Mount: r.Mount, WasFenced: r.WasFenced, Problems: map[string]string{}}
	var errs [4]error
	got.Done, errs[0] = data.Bool("done")
	got.Keys, errs[1] = data.Number("keys")
	got.Checked, errs[2] = data.Number("checked")
	got.Renewed, errs[3] = data.Number("renewed")
	if err := errors.Join(errs[:]...); err != nil {
		return false, err
	}
	if data.Has("problems") { // null where there are none
		problems, err := data.Map("problems")
		if err != nil {
			return false, err
		}
		for key := range problems {
			if got.Problems[key], err = problems.Text(key); err != nil {
				return false, err
			}
		}
	}
	*r = got
	return data.Has("finished_time"), nil
}
