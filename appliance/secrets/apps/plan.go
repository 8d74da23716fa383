package apps

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
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
	// Unnamed: it is no longer named, works, and goes with a prune.
	Unnamed Action = "unnamed"
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
	resend bool // its secret is sent
}

// Plan is what would be done, in the order in which it would be.
type Plan struct {
	Manifest string   `json:"manifest"`
	Changes  []Change `json:"changes"` // all objects, the unchanged ones too
	Notes    []string `json:"notes,omitempty"`
	// ID is its digest, where there is something to do.
	ID string `json:"digest,omitempty"`

	world *world
	// apart are the faults of databases, and down the connections that could not be
	// set up: what is of others is done all the same.
	apart []error
	down  []string
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

// Changed tells whether Vault differs from the file: an apply would change
// something, or a prune.
func (p *Plan) Changed() bool { return p.Count(Unchanged, Keep) < len(p.Changes) }

// Digest stands for everything that the plan would do, secrets excepted: an apply of
// it is of this very plan, whoever has read it.
func (p *Plan) Digest() string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	_ = enc.Encode(p.Manifest)
	for _, c := range p.Changes {
		if c.Action == Unchanged {
			continue
		}
		var fields [][3]string
		for _, f := range c.Fields {
			fields = append(fields, [3]string{f.Name, f.From, f.To})
		}
		sent := map[string]string{}
		for k, v := range c.object.sent() {
			sent[k] = canonical(k, v)
		}
		// Nothing of it can fail to be JSON.
		_ = enc.Encode([]any{c.Kind, c.Name, c.App, c.Action, c.Note, fields, sent, c.resend})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// MakePlan compares Vault with the file and changes nothing. What the file no longer
// names comes last.
func MakePlan(ctx context.Context, o Options) (*Plan, error) {
	w, err := look(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &Plan{Manifest: o.Config.Manifest, world: w, Changes: w.mountsNeeded()}
	for _, limit := range w.raise() {
		from := map[string]any{"max_lease_ttl": w.limits.granted[limit.name]}
		p.Changes = append(p.Changes, Change{Kind: limit.kind, Name: limit.name, Action: Update, Fields: differences(limit.want, nil, from), object: limit,
			Note: "what it gives would end sooner than the file says"})
	}
	objects := w.desired()
	if err := w.knownNames(o, objects); err != nil {
		return nil, err
	}
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
	stale, err := w.unnamed(ctx, PruneOptions{Options: o}, objects)
	if err != nil {
		return nil, err
	}
	for _, c := range stale {
		if c.Action == Delete && c.Note != goneAlready {
			c.Action = Unnamed
			p.Changes = append(p.Changes, c)
		}
	}
	p.Notes = append(notes(o.Config, w), w.notes...)
	if p.Changed() {
		p.ID = p.Digest()
	}
	return p, nil
}

// knownNames refuses an --adopt or a --resend that names nothing of the file: it would
// be done to nothing, without a word.
func (w *world) knownNames(o Options, objects []object) error {
	known := map[string]bool{}
	secret := map[string]bool{}
	for _, obj := range objects {
		known[obj.id()], known["app/"+obj.app] = true, true
		secret[obj.id()] = obj.resend && obj.secrets != nil
	}
	for _, id := range o.Adopt {
		if !known[id] {
			return &NeedsOperator{Err: fmt.Errorf("--adopt %q: the file leads to nothing of that name", id), Hint: `name it as the plan does: "approle/NAME"`}
		}
	}
	for _, id := range o.Resend {
		if !secret[id] {
			return &NeedsOperator{Err: fmt.Errorf("--resend %q: the file has no secret for anything of that name", id), Hint: `name it as the plan does: "database/NAME", "auth method/NAME"`}
		}
	}
	return nil
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
		w.compareSecret(&c, opts, secrets[o.name])
		return c, nil
	}
	if o.missing != "" {
		c.Action, c.Note = Blocked, "is missing: "+o.missing
		return c, nil
	}
	if o.blocked != "" {
		c.Action, c.Note = Blocked, o.blocked
		return c, nil
	}
	got, err := w.read(ctx, o.path)
	if err != nil {
		return c, err
	}
	whose := w.owner(o, got)
	switch {
	case whose.ours || o.shared:
	case got == nil && whose.manifest == "":
	default:
		if c.Note = opts.takes(o, whose); c.Note == "" {
			c.Action, c.Note = Conflict, whose.String()
			return c, nil
		}
	}
	if got == nil {
		c.Note = orElse(c.Note, o.note)
		return c, nil
	}
	if o.shared {
		c.Action = Unchanged
		return c, nil
	}
	if o.kind == kindKey {
		keepMetadata(&o, got)
		c.object = o
	}
	c.Fields = differences(o.want, o.absent(), shown(o.kind, got))
	if set := slices.DeleteFunc(slices.Clone(c.Fields), func(f Field) bool { return !f.absent }); len(set) > 0 && w.ledger.entries[o.id()].partly && !opts.Reset {
		c.Action, c.Note = Conflict, "what the file doesn't say was left alone before, and is Vault's default from now on: --reset writes that over what somebody has set ("+fieldNames(set)+")"
		return c, nil
	}
	if o.kind == kindPolicy && len(c.Fields) == 1 {
		if rights := wonAndLost(text(got, "policy"), text(o.want, "policy")); len(rights) > 0 {
			c.Fields = rights
		}
	}
	again := (opts.ResendSecrets || slices.Contains(opts.Resend, o.id())) && o.resend && o.secrets != nil
	switch {
	case o.replaced != "" && slices.ContainsFunc(c.Fields, func(f Field) bool { return f.Name == o.replaced }):
		c.Action, c.Note = Update, orElse(c.Note, "made anew: Vault doesn't change its "+o.replaced)
	case len(c.Fields) > 0 || c.Note != "":
		c.Action = Update
	case o.kind == kindConnection && !w.ledger.entries[o.id()].rotated:
		c.Action, c.Note = Update, "Vault's own password is not rotated yet"
	case again:
		c.Action, c.Note = Update, "its secret is sent again"
	default:
		c.Action = Unchanged
	}
	c.resend = again
	return c, nil
}

// takes says how an object that is not the manifest's comes to be; empty: it doesn't.
// What nobody owns is taken by naming it; what another manifest does, by naming that
// one, too.
func (o Options) takes(obj object, whose ownership) string {
	named := slices.Contains(o.Adopt, obj.id()) || obj.app != "" && slices.Contains(o.Adopt, "app/"+obj.app)
	switch {
	case !named:
		return ""
	case whose.manifest == "":
		return "adopted"
	case o.From != "" && (whose.manifest == o.From || slices.Contains(whose.rivals, o.From)):
		return fmt.Sprintf("handed over by manifest %q", o.From)
	}
	return ""
}

// compareSecret: a name in KV is made where it is missing; its values are people's.
func (w *world) compareSecret(c *Change, opts Options, there bool) {
	e, known := w.ledger.entries[c.object.id()]
	others := known && (e.owner != w.conf.Manifest || e.rivals != "")
	switch {
	case others:
		whose := w.owner(c.object, map[string]any{})
		if c.Note = opts.takes(c.object, whose); c.Note == "" {
			c.Action, c.Note = Conflict, whose.String()
			return
		}
		c.Action = Update
	case there:
		c.Action = Unchanged
	}
}

func fieldNames(fields []Field) string {
	var out []string
	for _, f := range fields {
		out = append(out, f.Name)
	}
	return words.List(out, 10)
}

// keepMetadata leaves a key's other metadata as they are beside our mark.
func keepMetadata(o *object, got map[string]any) {
	theirs, _ := got["custom_metadata"].(map[string]any)
	all := maps.Clone(theirs)
	if all == nil {
		all = map[string]any{}
	}
	ours, _ := o.want["custom_metadata"].(map[string]any)
	maps.Copy(all, ours)
	o.want, o.write = maps.Clone(o.want), maps.Clone(o.write)
	o.want["custom_metadata"], o.write["custom_metadata"] = all, all
}

// ownership is whose an object is.
type ownership struct {
	ours     bool
	manifest string   // another's; empty: nobody's
	rivals   []string // who claims it, too
}

func (o ownership) String() string {
	switch {
	case len(o.rivals) > 0:
		return fmt.Sprintf("manifests %s both say that it is theirs: the one that it belongs to takes it with --adopt and --adopt-from the other", words.List(append([]string{o.manifest}, o.rivals...), 5))
	case o.manifest != "":
		return fmt.Sprintf("it belongs to manifest %q", o.manifest)
	}
	return "it exists, and no manifest has made it"
}

// owner says whose an object is. The ledger decides; where it knows nothing of what
// is there, the mark that an object carries does.
func (w *world) owner(o object, got map[string]any) ownership {
	if e, ok := w.ledger.entries[o.id()]; ok {
		if e.rivals != "" {
			return ownership{manifest: e.owner, rivals: strings.Split(e.rivals, ", ")}
		}
		if e.owner == w.conf.Manifest {
			return ownership{ours: true}
		}
		return ownership{manifest: e.owner}
	}
	if got == nil {
		return ownership{}
	}
	manifest, known := ownerOf(o.kind, got)
	return ownership{ours: known && manifest == w.conf.Manifest, manifest: manifest}
}

// notes are what a person should think about before applying.
func notes(c config.Apps, w *world) []string {
	var out []string
	var open []string
	for _, t := range w.targets {
		if len(t.Login.CIDRs) == 0 {
			open = append(open, t.Role)
		}
	}
	if len(open) > 0 {
		out = append(out, "logins that work from any address (set login.cidrs): "+words.List(open, 5))
	}
	if unknown := w.unknownGrants(); len(unknown) > 0 {
		out = append(out, "grants of what this file has no environment for, which is right only if another manifest has it: "+words.List(unknown, 5))
	}
	out = append(out, adminsBeside(c)...)
	return append(out, w.sharedGroups()...)
}

// adminsBeside notes directories in which somebody may be an administrator and an
// owner, too: Vault lets the policy decide that names a path most exactly.
func adminsBeside(c config.Apps) []string {
	var out []string
	for _, a := range c.Auth {
		has := func(role string) bool {
			return slices.ContainsFunc(a.Maps, func(m config.AuthMap) bool {
				return slices.Contains(m.Roles, "admin") == (role == "admin") && slices.ContainsFunc(m.Roles, func(r string) bool { return strings.HasPrefix(r, role) })
			})
		}
		if a.Type == config.AuthLDAP && has("admin") && has("owner:") {
			out = append(out, fmt.Sprintf("auth method %q: an administrator who is in an owners' group, too, is less than one at that app's paths; take him out there", a.MountPath()))
		}
	}
	return out
}

// unknownGrants are the grants that name no environment of the file, each once,
// in its order.
func (w *world) unknownGrants() []string {
	var out []string
	known := map[string]bool{}
	for _, t := range w.targets {
		known[t.Prefix] = true
	}
	for _, t := range w.targets {
		for _, g := range t.Grants {
			if !known[g] && !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out
}

// wholeApp says what is wrong with a grant of a whole app that is not in the file:
// an app that has, or gets, environments would be read with all of them.
func (w *world) wholeApp(grant string) string {
	if strings.Contains(grant, "/") || slices.ContainsFunc(w.conf.Apps, func(a config.App) bool { return a.Name == grant }) {
		return ""
	}
	single := false
	var environments []string
	for id, e := range w.ledger.entries {
		name, ok := strings.CutPrefix(id, kindAppRole+"/")
		if !ok || e.app != grant {
			continue
		}
		if name == grant {
			single = true
		} else {
			environments = append(environments, grant+"/"+strings.TrimPrefix(name, grant+"-"))
		}
	}
	slices.Sort(environments)
	switch {
	case len(environments) > 0:
		return fmt.Sprintf("grants %q, which has environments, and would reach each of them, production too: name which (%s)", grant, words.List(environments, 5))
	case !single:
		return fmt.Sprintf("grants %q, and no manifest has made an app of that name without environments: the grant would reach all that it gets; apply that app's manifest first, or name an environment", grant)
	}
	return ""
}
