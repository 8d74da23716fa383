package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
)

// PruneOptions of a removal.
type PruneOptions struct {
	Options
	// DeleteValues removes secrets that hold a value, too. They are gone then,
	// with all their versions.
	DeleteValues bool
}

// goneAlready is what is in the ledger alone.
const goneAlready = "it is gone already"

// PlanPrune finds what the manifest has made and names no longer.
func PlanPrune(ctx context.Context, o PruneOptions) (*Plan, error) {
	w, err := look(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	p := &Plan{Manifest: o.Config.Manifest, world: w}
	p.Changes, err = w.unnamed(ctx, o, w.desired())
	return p, err
}

// unnamed are the objects of the manifest that the file doesn't lead to, in the order
// in which they go.
func (w *world) unnamed(ctx context.Context, o PruneOptions, desired []object) ([]Change, error) {
	wanted := map[string]bool{}
	for _, obj := range desired {
		wanted[obj.id()] = true
	}
	for _, a := range w.conf.Auth {
		// Before its mount is there nobody knows the policy's text.
		if a.Type == config.AuthUserpass {
			wanted[kindPolicy+"/"+selfPolicy(a)] = true
		}
	}
	var out []Change
	for _, id := range w.ledger.of(w.conf.Manifest) {
		if wanted[id] {
			continue
		}
		e := w.ledger.entries[id]
		kind, name, _ := strings.Cut(id, "/")
		out = append(out, Change{
			Kind: kind, Name: name, App: e.app, Action: Delete, object: object{kind: kind, name: name, app: e.app, path: e.path},
		})
	}
	going := func(id string) bool {
		return slices.ContainsFunc(out, func(c Change) bool { return c.object.id() == id && c.Action == Delete })
	}
	err := each(ctx, len(out), func(ctx context.Context, i int) error {
		return w.examine(ctx, o, &out[i])
	})
	if err != nil {
		return nil, err
	}
	// Others' roles keep a connection, once it is known which of ours go.
	for i, c := range out {
		if c.Kind != kindConnection || c.Action != Delete {
			continue
		}
		if users := w.usersOf(c.Name, going); len(users) > 0 {
			out[i].Action, out[i].Note = Keep, fmt.Sprintf("roles work over it, whose users could never be ended without: %s", words.List(users, 5))
		}
	}
	slices.SortStableFunc(out, func(a, b Change) int {
		return slices.Index(kindOrder, b.Kind) - slices.Index(kindOrder, a.Kind)
	})
	return out, nil
}

// examine decides whether a thing that is no longer named may go.
func (w *world) examine(ctx context.Context, o PruneOptions, c *Change) error {
	if !slices.Contains(kindOrder, c.Kind) {
		c.Action, c.Note = Keep, "this version doesn't know what it is"
		return nil
	}
	if e := w.ledger.entries[c.object.id()]; e.rivals != "" {
		c.Action, c.Note = Keep, w.owner(c.object, nil).String()
		return nil
	}
	got, err := w.read(ctx, c.object.path)
	if err != nil {
		return err
	}
	if got == nil {
		c.Note = goneAlready
		if ended(c.object) != nil {
			c.Note = "it is gone, and tokens that came by it may live: they end"
		}
		return nil
	}
	switch c.Kind {
	case kindSecret:
		versions, _ := got["versions"].(map[string]any)
		if n := len(versions); n > 0 && !o.DeleteValues {
			c.Action, c.Note = Keep, fmt.Sprintf("it holds %s (--delete-values removes them)", words.Count(n, "version"))
		}
	case kindKey:
		c.Note = "its current version works for its grace period, and is revoked then"
	case kindDBRole:
		c.Note = "its users are dropped at once"
	case kindAuth:
		c.Note = "everybody who logged in by it is logged out"
	case kindAppRole:
		c.Note = "its tokens end at once"
	case kindAuthEntry:
		c.Note = w.endsHow(c.object)
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
	gone := entering{}
	var failed error
	for i, c := range p.Changes {
		if c.Action != Delete {
			continue
		}
		if ctx.Err() != nil {
			failed = errors.Join(failed, context.Cause(ctx))
			break
		}
		// One that fails keeps what it needs to go, and nothing else.
		if needed := p.neededBy(i, gone); needed != "" {
			continue
		}
		if err := p.world.remove(ctx, c); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		gone[c.object.id()] = nil
		p.done(o.Options, c)
	}
	err = p.world.endTokens(ctx, o.Options, p.Changes, gone)
	return p, errors.Join(failed, err, p.world.ledger.change(context.WithoutCancel(ctx), p.world.vault, p.Manifest, gone))
}

// neededBy says which role that was to go, and hasn't, needs the connection that is
// the change at i; empty: none.
func (p *Plan) neededBy(i int, gone entering) string {
	c := p.Changes[i]
	if c.Kind != kindConnection {
		return ""
	}
	users := p.world.usersOf(c.Name, func(id string) bool { _, went := gone[id]; return went })
	return strings.Join(users, ", ")
}

func (w *world) remove(ctx context.Context, c Change) error {
	path := c.object.path
	switch c.Kind {
	case kindDBRole:
		// While role and connection are there to do it by.
		if _, err := w.vault.Write(ctx, "sys/leases/revoke-prefix/database/creds/"+c.Name, map[string]any{"sync": true}); err != nil {
			return &NeedsOperator{
				Err:  fmt.Errorf("end the users of database role %q: %w", c.Name, err),
				Hint: "the role stays until its users can be ended at the database; where that server is gone for good: vault lease revoke -force -prefix database/creds/" + c.Name + ", then prune again",
			}
		}
	case kindAuth:
		path = "sys/auth/" + c.Name
	}
	if err := w.vault.Delete(ctx, path); err != nil {
		return fmt.Errorf("%s %q: %w", c.Kind, c.Name, err)
	}
	return nil
}
