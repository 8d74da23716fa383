package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// The states of a variable as Verify sees it.
const (
	StateOK        = "ok"        // Vault has the file's value
	StateMoved     = "moved"     // Vault has a value, and the file has none any more
	StateMissing   = "missing"   // Vault has nothing
	StateDiffers   = "differs"   // Vault has another value
	StateUnchecked = "unchecked" // the file cannot be read
)

// Verified is one variable of the plan.
type Verified struct {
	Name        string `json:"name"`
	File        string `json:"file"`
	Environment string `json:"environment"`
	Place       string `json:"place"`
	State       string `json:"state"`

	apiKey bool
}

// Good says whether nothing is amiss.
func (v Verified) Good() bool { return v.State == StateOK || v.State == StateMoved }

// Verify compares the files with Vault. It changes nothing. The result has the
// plan's order, without what stays plain.
func Verify(ctx context.Context, root string, plan *Plan, store Store, workers int) (out []Verified, err error) {
	j, err := newJob(root, plan, store)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	return j.verify(ctx, workers)
}

func (j *job) verify(ctx context.Context, workers int) ([]Verified, error) {
	if workers <= 0 {
		workers = 8
	}
	var index []int
	for i, e := range j.plan.Variable {
		if e.Kind != KindPlain {
			index = append(index, i)
		}
	}
	states := make([]string, len(j.plan.Variable))
	var mu sync.Mutex
	err := parallel(ctx, index, workers, func(ctx context.Context, i int) error {
		s, err := j.verifyOne(ctx, j.plan.Variable[i])
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		states[i] = s
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	var out []Verified
	for _, i := range index {
		e := j.plan.Variable[i]
		out = append(out, Verified{e.Name, e.File, e.Environment, e.place(), states[i], e.Kind == KindAPIKey})
	}
	return out, nil
}

func (j *job) verifyOne(ctx context.Context, e Entry) (string, error) {
	vars, faults := j.files.get(e.File)
	if len(faults) > 0 {
		return StateUnchecked, nil
	}
	local, there := vars[e.Name]
	var stored any
	switch e.Kind {
	case KindDatabase:
		ok, err := j.store.DatabaseRole(ctx, e.Mount, e.Path)
		if err != nil {
			return "", err
		}
		if !ok {
			return StateMissing, nil
		}
		return StateMoved, nil // a role has no value to compare
	case KindAPIKey:
		key, ok, err := j.store.APIKey(ctx, e.Mount, e.Path)
		if errors.Is(err, ErrNoDefinition) {
			return StateMissing, nil
		}
		if err != nil {
			return "", err
		}
		if ok {
			stored = key
		}
	default:
		s, err := j.store.Read(ctx, e.Mount, e.Path)
		if err != nil {
			return "", err
		}
		stored = s.Data[e.Field]
	}
	switch {
	case stored == nil:
		return StateMissing, nil
	case !there:
		return StateMoved, nil
	case j.equal(local.Value, stored):
		return StateOK, nil
	}
	return StateDiffers, nil
}
