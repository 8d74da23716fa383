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

// VerifyOptions say what to compare.
type VerifyOptions struct {
	Root  string
	Plan  *Plan
	Store Store
	// OtherStore is what another store has printed, for a plan made with it. Without
	// it what came from there is looked for in Vault, and not compared.
	OtherStore []byte
}

// Verify compares the files with Vault. It changes nothing. The result has the
// plan's order, without what stays plain.
func Verify(ctx context.Context, o VerifyOptions) (out []Verified, err error) {
	j, err := newJob(o.Root, o.Plan, o.Store)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	j.files.other = o.OtherStore
	return j.verify(ctx)
}

func (j *job) verify(ctx context.Context) ([]Verified, error) {
	var index []int
	for i, e := range j.plan.Variable {
		if e.Kind != KindPlain {
			index = append(index, i)
		}
	}
	states := make([]string, len(j.plan.Variable))
	var mu sync.Mutex
	err := parallel(ctx, index, 8, func(ctx context.Context, i int) error {
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
	if e.Kind == KindDatabase {
		ok, err := j.store.DatabaseRole(ctx, e.Mount, e.Path)
		if err != nil {
			return "", err
		}
		if !ok {
			return StateMissing, nil
		}
		return StateMoved, nil // a role has no value to compare
	}
	stored, err := j.stored(ctx, e)
	if err != nil {
		return "", err
	}
	switch {
	case stored == nil:
		return StateMissing, nil
	case !there || local.Value == "":
		return StateMoved, nil
	case j.equal(local.Value, stored):
		return StateOK, nil
	}
	return StateDiffers, nil
}

// stored is what Vault has of a variable that is no database's; nil for nothing.
func (j *job) stored(ctx context.Context, e Entry) (any, error) {
	if e.Kind != KindAPIKey {
		s, err := j.store.Read(ctx, e.Mount, e.Path)
		return s.Data[e.Field], err
	}
	key, ok, err := j.store.APIKey(ctx, e.Mount, e.Path)
	if errors.Is(err, ErrNoDefinition) || err == nil && !ok {
		return nil, nil
	}
	return key, err
}
