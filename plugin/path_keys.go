package apikeys

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/condition"
	"strongroom.example/plugin/provider"
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
			logical.ReadOperation:   b.reads(b.handleKeyRead, "Read a key's definition and state."),
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

func (b *backend) handleKeyRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	snap, err := b.snapshot(ctx, req.Storage, name)
	if err != nil || snap == nil {
		return nil, err
	}
	rec, cfg := snap.rec, b.config.get()
	def := &rec.Def
	data := map[string]any{
		"parameters":                 def.Parameters,
		"rotation_period":            seconds(cfg.periodOf(def)),
		"rotation_schedule":          def.RotationSchedule,
		"time_zone":                  def.TimeZone,
		"rotation_window":            seconds(def.RotationWindow),
		"grace_period":               seconds(snap.grace),
		"max_versions":               cfg.versionsOf(def),
		"disable_automated_rotation": def.Disabled,
		"hash_old_versions":          def.HashOld,
		"spread_group":               def.SpreadGroup,
		"spread_distance":            seconds(cfg.spreadOf(def)),
		"custom_metadata":            def.Metadata,
		"created_time":               stamp(rec.Created),
	}
	maps.Copy(data, b.stateOf(snap))
	return &logical.Response{Data: data}, nil
}

// stateOf is what an operator wants to know of a key's condition.
func (b *backend) stateOf(snap *snapshot) map[string]any {
	rec := snap.rec
	data := map[string]any{
		"provider":           rec.Def.Provider,
		"version":            currentNumber(rec),
		"last_rotated_time":  stamp(rec.LastRotation),
		"next_rotation_time": stamp(snap.next),
		"condition":          string(b.conditionOf(snap)),
	}
	if f := rec.MintFailure; f != nil {
		data["rotation_failure"] = failureData(f)
	}
	if f := rec.RevokeFailure; f != nil {
		data["revocation_failure"] = failureData(f)
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
	return data
}

func failureData(f *failure) map[string]any {
	return map[string]any{
		"operation": f.Op, "kind": f.Kind, "message": f.Message, "count": f.Count, "time": stamp(f.At), "retry_time": stamp(f.RetryAt),
	}
}

// conditionOf is one word for a key's state, the gravest that holds.
func (b *backend) conditionOf(snap *snapshot) condition.Name {
	rec, now := snap.rec, b.clock.now()
	cur := rec.Life.Current()
	switch {
	case rec.Deleting != nil:
		return condition.Deleting
	case cur == nil || !cur.ReadableAt(now):
		if rec.Life.Last == 0 && !snap.mints {
			return condition.AwaitingImport
		}
		return condition.Down
	case rec.Uncertain != nil:
		return condition.Uncertain
	case rec.MintFailure != nil && rec.MintFailure.Op != "spread":
		return condition.Failing
	case rec.Life.Pending() != nil:
		return condition.Pending
	case !snap.next.IsZero() && now.After(snap.next):
		return condition.Overdue
	case rec.RevokeFailure != nil:
		return condition.RevocationFailing
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
	p, err := b.checkDef(ctx, name, &def)
	if err != nil {
		return nil, err
	}
	uid, err := b.randomID(uidLength)
	if err != nil {
		return nil, err
	}
	w := &work{b: b, st: st, prov: p, caps: p.Capabilities().For(false)}
	rec := &keyRecord{Name: name, UID: uid, Created: b.clock.now(), Def: def}
	if w.caps.Local {
		// Nothing can fail half-way: definition and first version are one write.
		w.rec = rec
		if err := w.mint(ctx); err != nil {
			return nil, err
		}
		if w.failed != nil {
			return nil, w.undoCreate(ctx)
		}
		b.emit(ctx, "key-create", name)
		return nil, nil
	}
	if err := w.save(ctx, rec); err != nil {
		return nil, err
	}
	b.emit(ctx, "key-create", name)
	if !w.caps.Mint {
		resp := &logical.Response{}
		resp.AddWarning(fmt.Sprintf("the provider cannot make keys: write the first one to import/%s", name))
		return resp, nil
	}
	if err := w.mint(ctx); err != nil {
		return nil, err
	}
	return w.afterFirstMint(ctx)
}

// afterFirstMint takes a definition back whose first version could surely not
// be made, so that a mistake in it leaves nothing behind.
func (w *work) afterFirstMint(ctx context.Context) (*logical.Response, error) {
	if w.failed == nil {
		return nil, nil
	}
	if w.rec.Life.Last == 0 && !w.b.intents.open(w.rec.Name) {
		return nil, w.undoCreate(ctx)
	}
	resp := &logical.Response{}
	resp.AddWarning("the first version is not ready yet, the engine goes on trying: " + publicMessage(w.failed))
	return resp, nil
}

func (w *work) undoCreate(ctx context.Context) error {
	if err := w.erase(ctx); err != nil {
		return err
	}
	return providerFault(fmt.Sprintf("key %q was not created", w.rec.Name), w.failed)
}

// providerFault is a provider's error as a caller gets it: 502, or 400 where
// the provider refuses the request as it is.
func providerFault(what string, err error) error {
	msg := what + ": " + publicMessage(err)
	if provider.KindOf(err) == provider.KindRejected {
		return refuse("", "%s", msg)
	}
	return logical.CodedError(502, msg)
}
