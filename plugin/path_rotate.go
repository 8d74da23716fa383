package apikeys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
)

func (b *backend) pathRotate() []*framework.Path {
	return []*framework.Path{{
		Pattern: "rotate/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name":        nameField(),
			"force":       {Type: framework.TypeBool, Description: "Rotate even where that takes a key from readers who were promised it, or within spread_distance."},
			"compromised": {Type: framework.TypeBool, Description: "The key is known to others: revoke every version at once, without grace."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.handleRotate, "Rotate a key now."),
		},
		HelpSynopsis: "Rotate a key now.",
		HelpDescription: `
The version that was current stays valid for its grace period. Where the
provider lets no two keys live at once, the rotation waits until the time that
readers were promised is over, and says until when; force=true does not wait.

compromised=true makes a new version and revokes all others at once, those in
grace too. Where no new version can be made, the old ones are revoked all the
same, and the key is down until one can.`,
	}}
}

func (b *backend) handleRotate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	force, compromised := d.Get("force").(bool), d.Get("compromised").(bool)
	var resp *logical.Response
	err = b.withKey(ctx, req.Storage, name, func(ctx context.Context, w *work) (err error) {
		if err := w.ready(ctx, compromised); err != nil {
			return err
		}
		if compromised {
			resp, err = w.rotateCompromised(ctx)
			return err
		}
		resp, err = w.rotateNow(ctx, force)
		return err
	})
	if errors.Is(err, errNoKey) {
		return nil, refuse("write keys/"+name+" first", "there is no key %q", name)
	}
	return resp, err
}

// ready brings a key into a state from which it can be rotated.
func (w *work) ready(ctx context.Context, compromised bool) error {
	if w.rec.Deleting != nil && !compromised {
		return refuse("", "key %q is being deleted", w.rec.Name)
	}
	if compromised {
		return nil
	}
	if !w.caps.Mint {
		return refuse("write the new one to import/"+w.rec.Name, "provider %q cannot make keys", w.rec.Def.Provider)
	}
	if err := w.recover(ctx); err != nil {
		return err
	}
	if u := w.rec.Uncertain; u != nil {
		return refuse("look at the provider and write resolve/"+w.rec.Name, "the rotation of %s is uncertain: %s", stamp(u.Since), u.Message)
	}
	if w.b.intents.open(w.rec.Name) && w.rec.Life.Pending() == nil {
		return refuse("try again in a minute", "an interrupted rotation of key %q is still being cleared up", w.rec.Name)
	}
	return nil
}

func (w *work) rotateNow(ctx context.Context, force bool) (*logical.Response, error) {
	if w.rec.Life.Pending() != nil {
		if err := w.finishPending(ctx); err != nil {
			return nil, err
		}
		return w.rotated()
	}
	cur := w.rec.Life.Current()
	if cur != nil && !w.caps.Overlap && !force {
		return w.schedule(ctx)
	}
	if err := w.makeRoom(ctx, force); err != nil {
		return nil, err
	}
	release, wait, err := w.spread(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if wait > 0 && !force {
		return nil, refuse("force=true does not wait", "another key of spread group %q has just rotated, the next may in %s",
			w.rec.Def.SpreadGroup, wait.Round(time.Second))
	}
	if err := w.mint(ctx); err != nil {
		return nil, err
	}
	return w.rotated()
}

// schedule asks for a rotation at the end of what readers were promised.
func (w *work) schedule(ctx context.Context) (*logical.Response, error) {
	snap := w.b.makeSnapshot(w.rec)
	now := w.now()
	promised := lifecycle.Promise(w.rec.Life.Current(), now, w.caps.Overlap, w.b.rotationDue(snap))
	at := now.Add(promised)
	if w.rec.Requested.IsZero() || at.Before(w.rec.Requested) {
		next := w.rec.clone()
		next.Requested = at
		if err := w.save(ctx, next); err != nil {
			return nil, err
		}
	}
	resp := &logical.Response{Data: map[string]any{
		"version": currentNumber(w.rec), "rotated": false, "scheduled_time": stamp(w.rec.Requested),
	}}
	resp.AddWarning("the provider lets no two keys live at once and readers were promised this one: the rotation waits; force=true does not")
	return resp, nil
}

// makeRoom ends the oldest version in grace where no further one may live.
func (w *work) makeRoom(ctx context.Context, force bool) error {
	for w.caps.Overlap && w.rec.Life.Alive() >= aliveLimit(w.caps) {
		oldest := w.rec.oldestInGrace()
		if oldest == nil {
			return refuse("", "at most %d versions of a key of provider %q may be alive at once, and none of them is in grace", aliveLimit(w.caps), w.rec.Def.Provider)
		}
		if !force {
			return refuse("wait, or use force=true, which revokes it now",
				"at most %d versions of a key of provider %q may be alive at once, and readers were promised version %d until %s",
				aliveLimit(w.caps), w.rec.Def.Provider, oldest.Number, stamp(oldest.RevokeAt))
		}
		next := w.rec.clone()
		now := w.now()
		if err := next.Life.Retire(oldest.Number, now, now, true); err != nil {
			return err
		}
		next.RevokeFailure = nil
		if err := w.save(ctx, next); err != nil {
			return err
		}
		if err := w.revokeDue(ctx); err != nil {
			return err
		}
		if w.failed != nil {
			return providerFault(fmt.Sprintf("version %d could not be revoked", oldest.Number), w.failed)
		}
	}
	return nil
}

func (r *keyRecord) oldestInGrace() *lifecycle.Version {
	for i := range r.Life.Versions {
		if r.Life.Versions[i].State == lifecycle.Grace {
			return &r.Life.Versions[i]
		}
	}
	return nil
}

// rotated is the answer after a mint: never the key itself, because whoever
// may rotate need not be allowed to read.
func (w *work) rotated() (*logical.Response, error) {
	if w.failed != nil && w.rec.Life.Pending() == nil {
		return nil, providerFault(fmt.Sprintf("key %q was not rotated, version %d stays", w.rec.Name, currentNumber(w.rec)), w.failed)
	}
	resp := &logical.Response{Data: map[string]any{
		"version": currentNumber(w.rec), "rotated": w.failed == nil, "last_rotated_time": stamp(w.rec.LastRotation),
		"next_rotation_time": stamp(w.b.makeSnapshot(w.rec).next),
	}}
	if w.failed != nil {
		resp.AddWarning("the new version is there, but not current yet: " + publicMessage(w.failed))
	}
	return resp, nil
}

// rotateCompromised ends every version, whatever becomes of the new one. That
// they must end is stored first, so that a crash cannot forget it.
func (w *work) rotateCompromised(ctx context.Context) (*logical.Response, error) {
	now := w.now()
	next := w.rec.clone()
	numbers := next.Life.Compromise(now)
	next.MintFailure, next.RevokeFailure, next.Requested = nil, nil, time.Time{}
	if err := w.save(ctx, next); err != nil {
		return nil, err
	}
	w.b.emit(ctx, "compromised", next.Name, "versions", fmt.Sprint(numbers))
	mintErr := w.replaceCompromised(ctx)
	minted := w.failed
	w.failed = nil
	if err := errors.Join(mintErr, w.revokeDue(ctx)); err != nil {
		return nil, err
	}
	resp := &logical.Response{Data: map[string]any{
		"version": currentNumber(w.rec), "rotated": w.live(), "revoked_versions": w.dead(numbers),
	}}
	if !w.live() {
		why := "the provider cannot make one"
		switch {
		case minted != nil:
			why = publicMessage(minted)
		case w.rec.Uncertain != nil:
			why = fmt.Sprintf("the rotation of %s is uncertain: look at the provider and write resolve/%s", stamp(w.rec.Uncertain.Since), w.rec.Name)
		case w.b.intents.open(w.rec.Name):
			why = "an interrupted rotation is still being cleared up, and the engine makes one after that"
		}
		resp.AddWarning(fmt.Sprintf("key %q is down: there is no new version: %s", w.rec.Name, why))
	}
	if w.failed != nil {
		resp.AddWarning("not every version is revoked yet, the engine goes on trying: " + publicMessage(w.failed))
	}
	return resp, nil
}

func (w *work) replaceCompromised(ctx context.Context) error {
	if !w.caps.Mint || w.rec.Deleting != nil || w.rec.Uncertain != nil {
		return nil
	}
	if err := w.recover(ctx); err != nil {
		return err
	}
	if w.b.intents.open(w.rec.Name) {
		return nil
	}
	if w.rec.Life.Alive() >= aliveLimit(w.caps) {
		// No room for a new one before an old one is gone.
		if err := w.revokeDue(ctx); err != nil || w.failed != nil {
			return err
		}
	}
	return w.mint(ctx)
}

// live tells whether readers get a version.
func (w *work) live() bool {
	cur := w.rec.Life.Current()
	return cur != nil && cur.ReadableAt(w.now())
}

// dead gives those of the versions that are revoked by now.
func (w *work) dead(numbers []int) []int {
	out := []int{}
	for _, n := range numbers {
		if v := w.rec.Life.Find(n); v == nil || v.State == lifecycle.Revoked {
			out = append(out, n)
		}
	}
	return out
}
