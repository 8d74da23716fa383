package apps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// ErrConflict says that objects are in the way or missing; the plan names them.
var ErrConflict = errors.New("some objects belong to others, or need what isn't there")

// wrapPasswordFor is how long a new person has to fetch the first password.
const wrapPasswordFor = 72 * time.Hour

// Apply makes the plan, hands it to show, and converges. Nothing is changed
// where the plan has a conflict, or a secret's file can't be read. Interrupted at any
// point, the next run goes on.
func Apply(ctx context.Context, o Options, show func(*Plan) error) (*Plan, error) {
	plan, err := MakePlan(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := show(plan); err != nil {
		return plan, err
	}
	if plan.Count(Conflict, Blocked) > 0 {
		return plan, ErrConflict
	}
	if o.Digest != "" && o.Digest != plan.ID {
		if plan.ID == "" {
			return plan, &NeedsOperator{Err: fmt.Errorf("there is nothing to do, and digest %q is of a plan that does something", o.Digest), Hint: "somebody has applied it already, or Vault has changed: plan again"}
		}
		return plan, &NeedsOperator{Err: fmt.Errorf("this plan has the digest %s, and %q is meant: nothing is changed", plan.ID, o.Digest), Hint: "read the plan above: the file, or Vault, has changed since"}
	}
	if err := plan.readSecrets(); err != nil {
		return plan, err
	}
	mounted, err := plan.mount(ctx, o)
	if err != nil {
		return plan, err
	}
	if err := plan.enter(ctx); err != nil {
		return plan, err
	}
	now := plan
	if mounted {
		// What is mounted now has an accessor, and perhaps a default configuration.
		if now, err = MakePlan(ctx, o); err != nil {
			return plan, err
		}
		if now.Count(Conflict, Blocked) > 0 {
			return now, ErrConflict
		}
		if err := now.readSecrets(); err != nil {
			return plan, err
		}
		if err := now.enter(ctx); err != nil {
			return plan, err
		}
	}
	for _, kind := range kindOrder {
		if err := now.converge(ctx, o, kind); err != nil {
			return plan, errors.Join(append(now.apart, err)...)
		}
	}
	if len(now.apart) > 0 {
		return plan, fmt.Errorf("all else is done, and the next apply finishes this: %w", errors.Join(now.apart...))
	}
	return plan, nil
}

// ofDatabase is the connection that an object works over; empty: it is of no database.
func (o object) ofDatabase() string {
	switch o.kind {
	case kindConnection:
		return o.name
	case kindDBRole, kindStaticRole:
		return text(o.want, "db_name")
	}
	return ""
}

// setApart notes the fault of a database's object: what is of no database, or of
// another, goes on. It tells whether the fault is of that kind.
func (p *Plan) setApart(c Change, err error) bool {
	database := c.object.ofDatabase()
	if database == "" || vaultapi.IsDenied(err) || vaultapi.IsUnavailable(err) || vaultapi.Status(err) == 0 {
		return false // Vault's own, which ends the run
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	p.apart = append(p.apart, err)
	if c.Kind == kindConnection {
		p.down = append(p.down, database)
	}
	return true
}

// sends tells whether a change carries the object's secret.
func (c Change) sends() bool {
	return c.object.secrets != nil && (c.Action == Create || c.Action == Update && (c.resend || c.object.kind == kindAuth))
}

// readSecrets reads every secret that is about to be sent: of two files of which one
// is missing, none is sent.
func (p *Plan) readSecrets() error {
	var errs []error
	for i, c := range p.Changes {
		if !c.sends() || c.object.kind == kindAuthEntry { // whose first password nobody has yet
			continue
		}
		secret, err := c.object.secrets()
		errs = append(errs, err)
		p.Changes[i].object.secrets = func() (map[string]any, error) { return secret, nil }
	}
	return errors.Join(errs...)
}

// mount mounts what the plan wants mounted.
func (p *Plan) mount(ctx context.Context, o Options) (bool, error) {
	// The ledger lies in one of them, and an auth method is entered first.
	for _, secretFirst := range []bool{true, false} {
		for _, c := range p.Changes {
			if c.Kind != kindMount || c.Action != Create || secretFirst != (c.Name == machine.MountKV) {
				continue
			}
			if !secretFirst {
				if err := p.enter(ctx); err != nil {
					return false, err
				}
			}
			if _, err := p.world.vault.Write(ctx, c.object.path, c.object.write); err != nil {
				return false, err
			}
			p.done(o, c)
		}
	}
	return p.count(kindMount, Create) > 0, nil
}

func (p *Plan) count(kind string, a Action) int {
	n := 0
	for _, c := range p.Changes {
		if c.Kind == kind && c.Action == a {
			n++
		}
	}
	return n
}

// enter writes into the ledger what this run is about to make. It is the
// commit point of ownership: only then may an object be made. A connection that is
// about to get a password from a file is not rotated from here on.
func (p *Plan) enter(ctx context.Context) error {
	want := maps.Clone(p.world.enters)
	for _, c := range p.Changes {
		o := c.object
		switch {
		case c.Kind == kindMount || c.Action == Unnamed:
			continue
		case o.shared && !(c.Kind == kindSecret && (c.Action == Create || c.Action == Update)):
			continue
		}
		had := p.world.ledger.entries[o.id()]
		want.set(p.world.ledger, o.id(), entry{
			owner: p.Manifest, path: o.path, app: o.app, rotated: o.kind == kindConnection && had.rotated && !c.sends(),
		})
	}
	return p.world.ledger.change(ctx, p.world.vault, p.Manifest, want)
}

// converge makes and changes the objects of one kind.
func (p *Plan) converge(ctx context.Context, o Options, kind string) error {
	if kind == kindMount {
		return nil
	}
	var todo []Change
	for _, c := range p.Changes {
		if c.Kind == kind && (c.Action == Create || c.Action == Update) {
			todo = append(todo, c)
		}
	}
	var mu sync.Mutex
	down := slices.Clone(p.down)
	rotated := entering{}
	err := each(ctx, len(todo), func(ctx context.Context, i int) error {
		c := todo[i]
		if slices.Contains(down, c.object.ofDatabase()) {
			return nil // with its connection
		}
		if err := p.put(ctx, o, c); err != nil {
			if p.setApart(c, err) {
				return nil
			}
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if kind == kindConnection {
			e := p.world.ledger.entries[c.object.id()]
			e.rotated = true
			rotated.set(p.world.ledger, c.object.id(), e)
		}
		p.done(o, c)
		return nil
	})
	if len(rotated) > 0 {
		// Written even after an error: rotating twice is harmless, but needless.
		if saveErr := p.world.ledger.change(context.WithoutCancel(ctx), p.world.vault, p.Manifest, rotated); saveErr != nil {
			return errors.Join(err, saveErr)
		}
	}
	return err
}

// put writes one object, with its secret where Vault doesn't have it yet.
func (p *Plan) put(ctx context.Context, o Options, c Change) error {
	obj, v := c.object, p.world.vault
	data := obj.sent()
	if c.sends() {
		secret, err := obj.secrets()
		if err != nil {
			return err
		}
		for k, s := range secret {
			data[k] = s
		}
		if obj.kind == kindAuthEntry {
			if err := p.hand(ctx, o, obj, text(secret, "password")); err != nil {
				return err
			}
		}
	}
	if obj.kind == kindSecret && c.Action == Update {
		// Handed over: what else is noted down at the secret stays.
		got, err := v.Read(ctx, obj.path)
		if err != nil {
			return err
		}
		meta := maps.Clone(mapOf(got["custom_metadata"]))
		if meta == nil {
			meta = map[string]any{}
		}
		meta[markKey] = p.Manifest
		data = map[string]any{"custom_metadata": meta}
	}
	if obj.replaced != "" && slices.ContainsFunc(c.Fields, func(f Field) bool { return f.Name == obj.replaced }) {
		if err := v.Delete(ctx, obj.path); err != nil {
			return fmt.Errorf("%s %q: %w", obj.kind, obj.name, err)
		}
	}
	if _, err := v.Write(ctx, obj.path, data); err != nil {
		err = fmt.Errorf("%s %q: %w", obj.kind, obj.name, err)
		if obj.refusal != nil {
			if what := obj.refusal(err); what != "" {
				return &NeedsOperator{Err: err, Hint: runThere + what}
			}
		}
		return err
	}
	if obj.kind == kindConnection && !p.world.ledger.entries[obj.id()].rotated {
		// From here on nobody but Vault knows the password: without a snapshot it is lost with
		// this machine's disk. Asked for before, too, should this run be killed in between.
		if o.SnapshotSoon != nil {
			o.SnapshotSoon()
			defer o.SnapshotSoon()
		}
		if _, err := v.Write(ctx, "database/rotate-root/"+obj.name, map[string]any{}); err != nil {
			return fmt.Errorf("rotate Vault's own password in database %q: %w", obj.name, err)
		}
	}
	return nil
}

// hand has Vault keep a first password for its owner. It comes before the user
// is made, so that there is never a user whose password nobody can learn.
func (p *Plan) hand(ctx context.Context, o Options, obj object, password string) error {
	if o.Reveal == nil {
		return &NeedsOperator{Err: fmt.Errorf("%s %q is new: somebody must be handed the first password", obj.kind, obj.name), Hint: "run strongroom app apply by hand"}
	}
	w, err := p.world.vault.Wrap(ctx, "sys/wrapping/wrap", map[string]any{"password": password}, wrapPasswordFor)
	if err != nil {
		return err
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	o.Reveal(obj.name, w)
	return nil
}

// done tells of one change. Changes are made side by side, and told one by one.
func (p *Plan) done(o Options, c Change) {
	if o.Out == nil {
		return
	}
	p.telling.Lock()
	defer p.telling.Unlock()
	verb := map[Action]string{Create: "created", Update: "updated", Delete: "removed"}[c.Action]
	fmt.Fprintf(o.Out, "%s %s %s\n", verb, c.Kind, c.Name)
}
