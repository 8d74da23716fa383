package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// PruneOptions of a removal.
type PruneOptions struct {
	Options
	// DeleteValues removes secrets that hold a value, too. They are gone then,
	// with all their versions.
	DeleteValues bool
}

// PlanPrune finds what the manifest has made and names no longer.
func PlanPrune(ctx context.Context, o PruneOptions) (*Plan, error) {
	w, err := look(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, obj := range w.desired() {
		wanted[obj.id()] = true
	}
	p := &Plan{Manifest: o.Config.Manifest, world: w}
	for _, id := range sortedKeys(w.ledger.objects) {
		if wanted[id] {
			continue
		}
		kind, name, _ := strings.Cut(id, "/")
		p.Changes = append(p.Changes, Change{
			Kind: kind, Name: name, App: w.ledger.apps[id], Action: Delete,
			object: object{kind: kind, name: name, app: w.ledger.apps[id], path: w.ledger.objects[id]},
		})
	}
	err = each(ctx, len(p.Changes), func(ctx context.Context, i int) error {
		return w.examine(ctx, o, &p.Changes[i])
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(p.Changes, func(a, b Change) int {
		return slices.Index(kindOrder, b.Kind) - slices.Index(kindOrder, a.Kind)
	})
	return p, nil
}

// examine decides whether a thing that is no longer named may go.
func (w *world) examine(ctx context.Context, o PruneOptions, c *Change) error {
	got, err := w.vault.Read(ctx, c.object.path)
	if err != nil {
		return err
	}
	if got == nil {
		c.Note = "it is gone already"
		return nil
	}
	if whose, ours := w.owned(c.object, got); !ours {
		c.Action, c.Note = Keep, whose
		return nil
	}
	switch c.Kind {
	case kindSecret:
		versions, _ := got["versions"].(map[string]any)
		if n := len(versions); n > 0 && !o.DeleteValues {
			c.Action, c.Note = Keep, fmt.Sprintf("it holds %d versions (--delete-values removes them)", n)
		}
	case kindKey:
		c.Note = "its current version works for its grace period, and is revoked then"
	case kindDBRole:
		c.Note = "its users are dropped at once"
	case kindAuth:
		c.Note = "everybody who logged in by it is logged out"
	}
	return nil
}

// Prune removes what PlanPrune finds. An object leaves the ledger when it is
// gone; interrupted, the next run goes on.
func Prune(ctx context.Context, o PruneOptions, show func(*Plan) error) (*Plan, error) {
	p, err := PlanPrune(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := show(p); err != nil {
		return p, err
	}
	next := p.world.ledger.clone()
	var failed error
	for _, c := range p.Changes {
		if c.Action != Delete {
			if c.Action == Keep && c.Kind != kindSecret {
				next.remove(c.object.id()) // it isn't ours any more
			}
			continue
		}
		if failed = p.world.remove(ctx, c); failed != nil {
			break
		}
		next.remove(c.object.id())
		if c.Kind == kindConnection {
			delete(next.rotated, c.Name)
		}
		p.done(o.Options, c)
	}
	if next.equal(p.world.ledger) {
		return p, failed
	}
	return p, errors.Join(failed, next.save(context.WithoutCancel(ctx), p.world.vault, p.Manifest))
}

func (w *world) remove(ctx context.Context, c Change) error {
	path := c.object.path
	switch c.Kind {
	case kindDBRole:
		// While role and connection are there to do it by.
		if _, err := w.vault.Write(ctx, "sys/leases/revoke-prefix/database/creds/"+c.Name, map[string]any{"sync": true}); err != nil {
			return fmt.Errorf("end the users of database role %q: %w", c.Name, err)
		}
	case kindAuth:
		path = "sys/auth/" + c.Name
	}
	if err := w.vault.Delete(ctx, path); err != nil {
		return fmt.Errorf("%s %q: %w", c.Kind, c.Name, err)
	}
	return nil
}
