package kvexport

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"

	"strongroom.example/appliance/base/vaultapi/kv"
)

// FieldChange is one field of a secret, before and after a rollback. The values
// are JSON.
type FieldChange struct {
	Name   string
	Change string // added, removed, changed or same
	Old    json.RawMessage
	New    json.RawMessage
}

// String hides the values.
func (f FieldChange) String() string { return f.Change + " " + f.Name }

// RollbackPlan is a rollback that is not done yet.
type RollbackPlan struct {
	Path     string
	From, To int // versions
	Fields   []FieldChange

	e    engine
	data json.RawMessage
}

// PlanRollback compares the current version of a secret with an earlier one.
func PlanRollback(ctx context.Context, store kv.Store, mount, path string, to int) (*RollbackPlan, error) {
	e := newEngine(store, mount)
	s, err := e.read(ctx, path)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fmt.Errorf("there is no secret %s/%s", e.mount, path)
	}
	p := &RollbackPlan{Path: path, From: s.Metadata.CurrentVersion, To: to, e: e}
	var now json.RawMessage
	for _, v := range s.Versions {
		if v.Number == p.From {
			now = v.Data
		}
		if v.Number == to {
			p.data = v.Data
		}
	}
	if to >= p.From || to < 1 {
		return nil, fmt.Errorf("version %d of %s/%s is not earlier than the current one, %d", to, e.mount, path, p.From)
	}
	if p.data == nil {
		return nil, fmt.Errorf("version %d of %s/%s is deleted, destroyed or gone", to, e.mount, path)
	}
	p.Fields, err = fieldChanges(now, p.data)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", e.mount, path, err)
	}
	return p, nil
}

func fieldChanges(old, new json.RawMessage) ([]FieldChange, error) {
	var a, b map[string]json.RawMessage
	if old != nil {
		if json.Unmarshal(old, &a) != nil {
			return nil, fmt.Errorf("the current version is no object")
		}
	}
	if json.Unmarshal(new, &b) != nil {
		return nil, fmt.Errorf("the earlier version is no object")
	}
	var out []FieldChange
	for name, v := range b {
		before, there := a[name]
		change := "added"
		if there {
			change = "changed"
			if sameJSON(before, v) {
				change = "same"
			}
		}
		out = append(out, FieldChange{name, change, before, v})
	}
	for name, v := range a {
		if _, there := b[name]; !there {
			out = append(out, FieldChange{name, "removed", v, nil})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// Apply writes the earlier version as a new one, if the current one is still
// what it was.
func (p *RollbackPlan) Apply(ctx context.Context) (version int, err error) {
	if err := p.e.put(ctx, p.Path, p.data, p.From); err != nil {
		return 0, err
	}
	return p.From + 1, nil
}
