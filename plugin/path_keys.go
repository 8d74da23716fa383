package apikeys

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/condition"
	"strongroom.example/plugin/lifecycle"
)

// Bounds of custom metadata and parameters.
const (
	maxMetadata      = 64
	maxMetadataKey   = 128
	maxMetadataValue = 512
	maxParameters    = 16 << 10 // bytes as JSON
)

func (b *backend) pathKeys() []*framework.Path {
	seconds := func(text string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeDurationSecond, Description: text}
	}
	text := func(description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeString, Description: description}
	}
	flag := func(description string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeBool, Description: description}
	}
	return []*framework.Path{b.listing("the keys", "keys"), {
		Pattern: "keys/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name":                       nameField(),
			"provider":                   text("The provider that makes the key. It cannot be changed."),
			"parameters":                 {Type: framework.TypeMap, Description: "What the provider needs for this key, as an object or name=value. It replaces what was there."},
			"rotation_period":            seconds("How long a version is current. 0: the mount's default."),
			"rotation_schedule":          text("In place of the period: a cron expression (minute hour day month weekday). Empty: none."),
			"time_zone":                  text("IANA name of the zone of rotation_schedule; default UTC."),
			"rotation_window":            seconds("With rotation_schedule: how long after its time a rotation may start; after that it waits for the next time. 0: it may always."),
			"grace_period":               seconds("How long a replaced version stays valid. 0: the mount's default."),
			"max_versions":               {Type: framework.TypeInt, Description: "How many versions are remembered; those alive always are. 0: the mount's default."},
			"disable_automated_rotation": flag("Rotate only when told to."),
			"hash_old_versions":          flag("Keep only a keyed hash of versions that are no longer current. Only for providers that are local; such versions can be verified, but not read or rolled back to."),
			"spread_group":               text("Keys of one group never rotate within spread_distance of each other: for the two keys of a pair."),
			"spread_distance":            seconds("How far apart the rotations within the group are. 0: the mount's default."),
			"custom_metadata":            {Type: framework.TypeMap, Description: "Notes of your own, as an object or name=value. It replaces what was there."},
			"force":                      flag("Let a shorter grace_period hold for the current version too, whose readers were promised more."),
			"revoke":                     {Type: framework.TypeBool, Query: true, Default: true, Description: "With DELETE: revoke every version at the provider when its grace is over. false: leave them as they are."},
			"revoke_now":                 {Type: framework.TypeBool, Query: true, Description: "With DELETE: revoke every version at once, without grace."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   b.reads(b.ofKey(b.handleKeyRead), "Read a key's definition and state."),
			logical.CreateOperation: b.writes(b.handleKeyWrite, "Define a key and make its first version."),
			logical.UpdateOperation: b.writes(b.handleKeyWrite, "Change a key's definition."),
			logical.DeleteOperation: b.writes(b.handleKeyDelete, "Delete a key."),
		},
		ExistenceCheck: b.keyExists,
		HelpSynopsis:   "The definition of a key: who makes it and when it rotates.",
		HelpDescription: `
A new key gets its first version at once, where its provider can make one. A
field that is not given keeps its value; a changed period or schedule counts
from the last rotation and holds at once.

DELETE ends the key: the current version is valid for its grace period, so that
whoever still has it is not cut off, and is then revoked at the provider.
revoke=false leaves every version alive at the provider, where somebody else
must end it; revoke_now=true revokes at once. Disabling the whole mount revokes
nothing: delete the keys first.`,
	}}
}

func (b *backend) keyExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	if err := b.start(ctx, req.Storage); err != nil {
		return false, err
	}
	return b.index.has(d.Get("name").(string)), nil
}

func (b *backend) handleList(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	folder := d.Get("folder").(string)
	if folder != "" {
		folder += "/"
	}
	limit := d.Get("limit").(int)
	if limit < 0 || limit > maxPage {
		return nil, refuse("", "limit %d: must be from 0 to %d", limit, maxPage)
	}
	return logical.ListResponse(b.index.list(folder, d.Get("after").(string), limit)), nil
}

func (b *backend) handleKeyRead(_ context.Context, snap *snapshot, _ *framework.FieldData) (*logical.Response, error) {
	rec, cfg := snap.rec, b.config.get()
	def := &rec.Def
	data := definitionData(cfg, def)
	for _, field := range effective {
		data["effective_"+field] = data[field]
	}
	maps.Copy(data, def.Written)
	data["created_time"] = stamp(rec.Created)
	if name, err := b.fence.mintName(rec.UID, "", 1, ""); err == nil && !snap.caps.Local && snap.caps.Mint {
		data["name_prefix"] = name.KeyPrefix() // a person finds it at the service by that
	}
	maps.Copy(data, b.stateOf(snap))
	return &logical.Response{Data: data}, nil
}

// effective are the fields of a definition that may be left to the mount. What
// holds is shown a second time under a name of its own.
var effective = [...]string{"rotation_period", "grace_period", "max_versions", "spread_distance"}

// definitionData is a definition with what the mount makes of it.
func definitionData(cfg *mountConfig, def *keyDef) map[string]any {
	return map[string]any{
		"provider":                   def.Provider,
		"parameters":                 def.Parameters,
		"rotation_period":            seconds(cfg.periodOf(def)),
		"rotation_schedule":          def.RotationSchedule,
		"time_zone":                  def.TimeZone,
		"rotation_window":            seconds(def.RotationWindow),
		"grace_period":               seconds(cfg.graceOf(def)),
		"max_versions":               cfg.versionsOf(def),
		"disable_automated_rotation": def.Disabled,
		"hash_old_versions":          def.HashOld,
		"spread_group":               def.SpreadGroup,
		"spread_distance":            seconds(cfg.spreadOf(def)),
		"custom_metadata":            def.Metadata,
	}
}

// keepWritten notes the fields that a read would show in another form than they
// were written in ("90d", 0 for the mount's default, null): tools that hold a
// definition as text, such as Terraform, see a change in that.
func (def *keyDef) keepWritten(raw map[string]any, cfg *mountConfig) error {
	shown := definitionData(cfg, def)
	kept := maps.Clone(def.Written)
	for field, show := range shown {
		wrote, ok := raw[field]
		if !ok {
			continue
		}
		delete(kept, field)
		a, err := json.Marshal(wrote)
		if err != nil {
			return refuse("", "%s: not representable as JSON", field)
		}
		b, err := json.Marshal(show)
		if err != nil {
			return err
		}
		if bytes.Equal(a, b) {
			continue
		}
		if kept == nil {
			kept = map[string]any{}
		}
		kept[field] = wrote
	}
	var err error
	def.Written, err = normalizeJSON(kept)
	return err
}

// stateOf is what an operator wants to know of a key's condition.
func (b *backend) stateOf(snap *snapshot) map[string]any {
	rec := snap.rec
	now := b.clock.now()
	due := snap.rotation(now)
	if held, until := b.heldBack(rec.Def.Provider, now); due.Held == lifecycle.WhyNever && !due.At.IsZero() && !due.At.After(now) {
		due.Held, due.At = held, until
	}
	data := map[string]any{
		"provider":           rec.Def.Provider,
		"version":            currentNumber(rec),
		"last_rotated_time":  stamp(rec.LastRotation),
		"next_rotation_time": stamp(due.Wanted),
		"rotation_reason":    string(due.Source),
		"condition":          string(b.conditionOf(snap)),
	}
	if due.Held != lifecycle.WhyNever {
		data["rotation_waits_for"], data["rotation_waits_until"] = string(due.Held), stamp(due.At)
	}
	if rotate, review, _ := b.health.pauses(b.providers.account(rec.Def.Provider)); later(rotate, review).After(b.clock.now()) {
		data["provider_paused_until"] = stamp(later(rotate, review))
	}
	if f := rec.MintFailure; f != nil {
		retry := f.At
		if rec.Wait != nil {
			retry = rec.Wait.Until
		}
		data["rotation_failure"] = failureData(f, retry)
	}
	for i := range rec.Life.Versions {
		if f := endingData(&rec.Life.Versions[i]); f != nil {
			data["revocation_failure"] = f
			break
		}
	}
	if u := rec.Uncertain; u != nil {
		data["uncertain"] = map[string]any{"name": u.Name, "version": u.Version, "since": stamp(u.Since), "reason": u.Message}
	}
	if used := inUse(rec); used != nil {
		data["in_use"] = used
	}
	if rec.Deleting != nil {
		data["deleted_time"] = stamp(rec.Deleting.At)
	}
	data["check"] = b.checkData(snap)
	return data
}

func failureData(f *lifecycle.Failure, retry time.Time) map[string]any {
	return map[string]any{
		"operation": string(f.Step), "kind": f.Kind, "message": f.Message, "count": f.Count, "time": stamp(f.At), "retry_time": stamp(retry),
	}
}

// endingData is why a version whose time is over is not seen to be dead; nil:
// nothing has failed.
func endingData(v *lifecycle.Version) map[string]any {
	if !v.Alive() || v.Ending == nil || v.Ending.Failure == nil {
		return nil
	}
	data := failureData(v.Ending.Failure, v.Ending.Until)
	data["version"] = v.Number
	return data
}

// conditionOf is one word for a key's state, the gravest that holds.
func (b *backend) conditionOf(snap *snapshot) condition.Name {
	rec, now := snap.rec, b.clock.now()
	cur, due := rec.Life.Current(), snap.rotation(now)
	unfinished := rec.Life.Pending() != nil || b.intents.open(rec.Name)
	failing, unverified := false, false
	for v := range rec.Life.Living() {
		if v.Ending != nil && v.Ending.Failure != nil {
			failing = true
			unverified = unverified || v.Stuck() || v.Ending.Failure.Step == lifecycle.StepVerify
		}
	}
	switch {
	case rec.Deleting != nil && unverified:
		return condition.RevokedUnverified
	case rec.Deleting != nil:
		return condition.Deleting
	case cur == nil || !cur.ReadableAt(now):
		if rec.neverHad() && !snap.caps.Mint {
			return condition.AwaitingImport
		}
		return condition.Down
	case isDead(rec):
		return condition.Dead
	case rec.Uncertain != nil:
		return condition.Uncertain
	case rec.MintFailure != nil && (unfinished || due.Overdue(now)), isDoubted(rec):
		return condition.Failing
	case unverified:
		return condition.RevokedUnverified
	case due.Overdue(now):
		return condition.Overdue
	case failing:
		return condition.RevocationFailing
	case unfinished:
		return condition.Pending
	case inUse(rec) != nil:
		return condition.InUse
	}
	return condition.OK
}

func (b *backend) handleKeyWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	if b.index.has(name) {
		resp, err := b.changeKey(ctx, req, d, name)
		if !errors.Is(err, errNoKey) {
			return warnOfUnits(resp, err, d)
		}
		// Its record is gone, or was never written: it is new.
	}
	resp, err := b.createKey(ctx, req, d, name)
	return warnOfUnits(resp, err, d)
}

func (b *backend) createKey(ctx context.Context, req *logical.Request, d *framework.FieldData, name string) (*logical.Response, error) {
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	unlock, err := b.locks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	st := store{req.Storage}
	if have, err := st.key(ctx, name); err != nil {
		return nil, err
	} else if have != nil {
		return nil, refuse("read it first", "key %q has just been created by somebody else", name)
	}
	def := keyDef{}
	if err := b.takeDef(d, &def); err != nil {
		return nil, err
	}
	w, err := b.define(ctx, st, name, def)
	if err != nil {
		return nil, err
	}
	if w.rec.neverHad() && w.failed == nil && w.caps.Mint {
		if err := w.mint(ctx); err != nil {
			return nil, err
		}
	}
	resp := &logical.Response{}
	if err := w.notCreated(ctx); err != nil {
		return nil, err
	}
	switch {
	case !w.caps.Mint:
		resp.AddWarning(fmt.Sprintf("the provider cannot make keys: write the first one to import/%s", name))
	case w.failed == nil:
	default:
		resp.AddWarning("the first version is not ready yet, the engine goes on trying: " + publicMessage(w.failed))
	}
	w.index()
	b.emit(ctx, "key-create", name)
	return resp, nil
}

// notCreated takes a new key back whose first version could surely not be made: a
// mistake leaves nothing behind, but for what the service's list may show late.
func (w *work) notCreated(ctx context.Context) error {
	if w.failed == nil || !w.rec.neverHad() || w.b.intents.open(w.rec.Name) || w.lastSweep(ctx) != nil && answered(w.failed) {
		return nil
	}
	next := w.rec.clone()
	next.Deleting, next.Wait = &deletion{At: w.now()}, nil
	if !answered(w.failed) {
		next.Asked, next.Sweep = time.Time{}, time.Time{} // nothing was made
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	if err := w.eraseIfGone(ctx); err != nil {
		return err
	}
	return &fault{fmt.Sprintf("key %q was not created", w.rec.Name), w.failed}
}

// define stores a key's definition, which its provider cannot vanish from under
// meanwhile. A local provider's first version is part of the same write: nothing
// can fail half-way.
func (b *backend) define(ctx context.Context, st store, name string, def keyDef) (*work, error) {
	unlock, err := b.locks.lock(ctx, "provider:"+def.Provider)
	if err != nil {
		return nil, err
	}
	defer unlock()
	p, err := b.checkDef(ctx, name, &def, nil)
	if err != nil {
		return nil, err
	}
	uid, err := b.randomID(uidLength)
	if err != nil {
		return nil, err
	}
	w := &work{b: b, st: st, prov: p, caps: p.Capabilities().For(false)}
	rec := &keyRecord{Name: name, UID: uid, Created: b.clock.now(), Def: def}
	if rec.Life.Last, err = st.lastNumber(ctx, name); err != nil {
		return nil, err
	}
	rec.SweepFrom = rec.Life.Last + 1
	if w.caps.Local {
		w.rec = rec
		return w, w.mint(ctx)
	}
	return w, w.save(ctx, rec)
}
