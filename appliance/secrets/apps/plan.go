package apps

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
)

// Action is what happens to an object.
type Action string

// The actions.
const (
	Unchanged Action = "unchanged"
	Create    Action = "create"
	Update    Action = "update"
	Delete    Action = "delete"
	// Conflict: it exists and belongs to somebody else.
	Conflict Action = "conflict"
	// Blocked: something that it needs isn't there.
	Blocked Action = "blocked"
	// Keep: it is no longer named, and stays.
	Keep Action = "keep"
)

// Change is one object with what happens to it.
type Change struct {
	Kind   string  `json:"kind"`
	Name   string  `json:"name"`
	App    string  `json:"app,omitempty"`
	Action Action  `json:"action"`
	Fields []Field `json:"fields,omitempty"` // with Update
	Note   string  `json:"note,omitempty"`

	object object
}

// Plan is what would be done, in the order in which it would be.
type Plan struct {
	Manifest string   `json:"manifest"`
	Changes  []Change `json:"changes"` // all objects, the unchanged ones too
	Notes    []string `json:"notes,omitempty"`

	world *world
	// telling keeps to one line at a time what side by side is done.
	telling sync.Mutex
}

// Count is how many changes have one of the actions.
func (p *Plan) Count(actions ...Action) int {
	n := 0
	for _, c := range p.Changes {
		if slices.Contains(actions, c.Action) {
			n++
		}
	}
	return n
}

// Changed tells whether an apply would do anything.
func (p *Plan) Changed() bool { return p.Count(Unchanged, Keep) < len(p.Changes) }

// MakePlan compares Vault with the file and changes nothing.
func MakePlan(ctx context.Context, o Options) (*Plan, error) {
	w, err := look(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &Plan{Manifest: o.Config.Manifest, world: w, Changes: w.mountsNeeded()}
	objects := w.desired()
	existing, err := w.existingSecrets(ctx, objects)
	if err != nil {
		return nil, err
	}
	changes := make([]Change, len(objects))
	err = each(ctx, len(objects), func(ctx context.Context, i int) error {
		c, err := w.compare(ctx, objects[i], o, existing)
		changes[i] = c
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(changes, func(a, b Change) int {
		return slices.Index(kindOrder, a.Kind) - slices.Index(kindOrder, b.Kind)
	})
	p.Changes = append(p.Changes, changes...)
	p.Notes = notes(o.Config)
	return p, nil
}

// existingSecrets lists the folders of all secrets of the file: one request a
// folder is much less than one a secret.
func (w *world) existingSecrets(ctx context.Context, objects []object) (map[string]bool, error) {
	folders := map[string]bool{}
	for _, o := range objects {
		if o.kind == kindSecret {
			folders[folderOf(o.name)] = true
		}
	}
	names := sortedKeys(folders)
	found := make([][]string, len(names))
	err := each(ctx, len(names), func(ctx context.Context, i int) error {
		list, err := w.vault.List(ctx, "secret/metadata/"+names[i])
		found[i] = list
		return err
	})
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for i, folder := range names {
		for _, name := range found[i] {
			out[folder+"/"+name] = true
		}
	}
	return out, nil
}

func (w *world) compare(ctx context.Context, o object, opts Options, secrets map[string]bool) (Change, error) {
	c := Change{Kind: o.kind, Name: o.name, App: o.app, Action: Create, object: o}
	if o.kind == kindSecret {
		if secrets[o.name] {
			c.Action = Unchanged
		}
		return c, nil
	}
	if o.missing != "" {
		c.Action, c.Note = Blocked, "is missing: "+o.missing
		return c, nil
	}
	got, err := w.vault.Read(ctx, o.path)
	if err != nil {
		return c, err
	}
	if got == nil {
		c.Note = o.note
		return c, nil
	}
	if o.shared {
		c.Action = Unchanged
		return c, nil
	}
	if whose, ours := w.owned(o, got); !ours {
		if !slices.Contains(opts.Adopt, o.id()) {
			c.Action, c.Note = Conflict, whose
			return c, nil
		}
		c.Note = "adopted"
	}
	c.Fields = differences(o.want, shown(o.kind, got))
	switch {
	case len(c.Fields) > 0 || c.Note != "":
		c.Action = Update
	case o.kind == kindConnection && !w.ledger.rotated[o.name]:
		c.Action, c.Note = Update, "Vault's own password is not rotated yet"
	case opts.ResendSecrets && o.resend && o.secrets != nil:
		c.Action, c.Note = Update, "its secret is sent again"
	default:
		c.Action = Unchanged
	}
	return c, nil
}

// owned tells whether the manifest has made what is there, and else who has.
func (w *world) owned(o object, got map[string]any) (whose string, ours bool) {
	manifest, known := ownerOf(o.kind, got)
	switch {
	case known && manifest == w.conf.Manifest, !known && w.ledger.objects[o.id()] != "":
		return "", true
	case manifest != "":
		return fmt.Sprintf("it belongs to manifest %q", manifest), false
	}
	return "it exists, and no manifest has made it", false
}

// notes are what a person should think about before applying.
func notes(c config.Apps) []string {
	var out []string
	var open []string
	for _, t := range c.Targets() {
		if len(t.Login.CIDRs) == 0 {
			open = append(open, t.Role)
		}
	}
	if len(open) > 0 {
		out = append(out, "logins that work from any address (set login.cidrs): "+words.List(open, 5))
	}
	if unknown := unknownGrants(c); len(unknown) > 0 {
		out = append(out, "grants of what this file has no environment for, which is right only if another manifest has it: "+words.List(unknown, 5))
	}
	return append(out, sharedGroups(c)...)
}

// unknownGrants are the grants that name no environment of the file, each once,
// in its order.
func unknownGrants(c config.Apps) []string {
	var out []string
	known := map[string]bool{}
	for _, t := range c.Targets() {
		known[t.Prefix] = true
	}
	for _, t := range c.Targets() {
		for _, g := range t.Grants {
			if !known[g] && !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out
}
