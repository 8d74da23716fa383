package apikeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
			"new_first":   {Type: framework.TypeDurationSecond, Description: "With compromised=true: readers keep the current version until the new one is current, at most so long, up to 5 minutes. For services that take a while to make a new key work everywhere."},
			"compromised": {Type: framework.TypeBool, Description: "The key is known to others: revoke every version at once, without grace."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.onKey(takeRotate), "Rotate a key now."),
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

func takeRotate(d *framework.FieldData) (verb, error) {
	force, known := d.Get("force").(bool), d.Get("compromised").(bool)
	first := time.Duration(d.Get("new_first").(int)) * time.Second
	if first < 0 || first > maxNewFirst || first > 0 && !known {
		return nil, refuse("it belongs to compromised=true", "new_first %s: must be from 0 to %s", first, maxNewFirst)
	}
	return func(ctx context.Context, w *work) (*logical.Response, error) {
		if known {
			out, err := w.compromise(ctx, first)
			return out.response(), err
		}
		out, err := w.rotate(ctx, force)
		return out.response(), err
	}, nil
}

// maxNewFirst bounds for how long a version that is known to others may be read.
const maxNewFirst = 5 * time.Minute

// rotation is how a rotation by hand has ended.
type rotation struct {
	Version   int // the current one
	Rotated   bool
	Scheduled time.Time // it waits until then; zero: it does not
	Last      time.Time
	Next      time.Time
	Held      error // there is a new version, which is not current yet, for this reason
}

// response never holds the key itself, because whoever may rotate need not be
// allowed to read.
func (r *rotation) response() *logical.Response {
	if r == nil {
		return nil
	}
	data := map[string]any{"version": r.Version, "rotated": r.Rotated}
	resp := &logical.Response{Data: data}
	if !r.Scheduled.IsZero() {
		data["scheduled_time"] = stamp(r.Scheduled)
		resp.AddWarning("the provider lets no two keys live at once and readers were promised this one: the rotation waits; force=true does not")
		return resp
	}
	data["last_rotated_time"], data["next_rotation_time"] = stamp(r.Last), stamp(r.Next)
	if r.Held != nil {
		resp.AddWarning("the new version is there, but not current yet: " + publicMessage(r.Held))
	}
	return resp
}

// rotate makes a new version now, or says when.
func (w *work) rotate(ctx context.Context, force bool) (*rotation, error) {
	if err := w.ready(ctx); err != nil {
		return nil, err
	}
	if w.rec.Life.Pending() != nil {
		if err := w.finishPending(ctx); err != nil {
			return nil, err
		}
		return w.rotated()
	}
	if w.rec.Life.Current() != nil && !w.caps.Overlap && !force {
		return w.schedule(ctx)
	}
	if err := w.makeRoom(ctx, force); err != nil {
		return nil, err
	}
	if full, err := w.crowded(ctx); err != nil {
		return nil, err
	} else if full != nil && !force {
		return nil, refuse("wait, or use force=true, which asks the service all the same",
			"the account of provider %q takes %s, and %s of %s are alive: the next ends at %s",
			w.rec.Def.Provider, count(w.caps.MaxKeys, "key"), count(full.alive, "version"), count(full.keys, "key"), stamp(full.until))
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

// ready brings a key into a state from which it can be rotated.
func (w *work) ready(ctx context.Context) error {
	switch {
	case w.rec.Deleting != nil:
		return refuse("", "key %q is being deleted", w.rec.Name)
	case w.unusable != nil:
		return w.unusable
	case !w.caps.Mint:
		return refuse("write the new one to import/"+w.rec.Name, "provider %q cannot make keys", w.rec.Def.Provider)
	case w.rec.Wait.For(lifecycle.WhyAsked) && !w.rec.Wait.Over(w.now()):
		return refuse("wait until then", "the service has asked to be left alone until %s", stamp(w.rec.Wait.Until))
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

// schedule asks for a rotation at the end of what readers were promised.
func (w *work) schedule(ctx context.Context) (*rotation, error) {
	now := w.now()
	cur := w.rec.Life.Current()
	at := now.Add(lifecycle.Promise(cur, now, w.caps.Overlap, w.snap().rotation(now).At))
	if isDoubted(w.rec) && w.rec.bound(w.caps) {
		at = later(at, cur.PromisedUntil) // of what was read before
	}
	if w.rec.Requested.IsZero() || at.Before(w.rec.Requested) {
		next := w.rec.clone()
		next.Requested = at
		if err := w.save(ctx, next); err != nil {
			return nil, err
		}
	}
	return &rotation{Version: currentNumber(w.rec), Scheduled: w.rec.Requested}, nil
}

// makeRoom ends the oldest version in grace where no further one may live.
func (w *work) makeRoom(ctx context.Context, force bool) error {
	for w.caps.Overlap && w.rec.Life.Alive() >= aliveLimit(w.caps) {
		oldest := w.rec.oldestInGrace()
		if oldest == nil {
			return refuse("", "at most %s of a key of provider %q may be alive at once, and none of them is in grace", count(aliveLimit(w.caps), "version"), w.rec.Def.Provider)
		}
		if !force {
			return refuse("wait, or use force=true, which revokes it now",
				"at most %s of a key of provider %q may be alive at once, and readers were promised version %d until %s",
				count(aliveLimit(w.caps), "version"), w.rec.Def.Provider, oldest.Number, stamp(oldest.RevokeAt))
		}
		next := w.rec.clone()
		now := w.now()
		if err := next.Life.Retire(oldest.Number, now, now, true); err != nil {
			return err
		}
		if err := w.save(ctx, next); err != nil {
			return err
		}
		if err := w.revokeDue(ctx); err != nil {
			return err
		}
		if err := w.notDead(oldest.Number); err != nil {
			return &fault{fmt.Sprintf("version %d could not be revoked", oldest.Number), err}
		}
	}
	return nil
}

func (r *keyRecord) oldestInGrace() *lifecycle.Version {
	for v := range r.Life.All() {
		if v.State == lifecycle.Grace {
			return v
		}
	}
	return nil
}

// rotated is how a mint has ended.
func (w *work) rotated() (*rotation, error) {
	pending := w.rec.Life.Pending() != nil
	if w.failed != nil && !pending {
		what := "version %d stays"
		if isDoubted(w.rec) {
			what = "whether version %d still works is not known, the engine looks and goes on"
		}
		return nil, &fault{fmt.Sprintf("key %q was not rotated, "+what, w.rec.Name, currentNumber(w.rec)), w.failed}
	}
	held := w.failed
	if held == nil && pending {
		if f := w.rec.MintFailure; f != nil {
			held = refuse("", "%s", f.Message)
		} else {
			held = refuse("", "the service has not accepted it so far")
		}
	}
	return &rotation{Version: currentNumber(w.rec), Rotated: !pending, Last: w.rec.LastRotation,
		Next: w.snap().rotation(w.now()).Wanted, Held: held}, nil
}

// compromised is what became of a key that is known to others.
type compromised struct {
	Key     string
	Version int   // the current one
	Live    bool  // readers get a version
	Dead    []int // of those that were marked
	Down    string
	Left    error // why not all are dead yet
}

func (c *compromised) response() *logical.Response {
	if c == nil {
		return nil
	}
	resp := &logical.Response{Data: map[string]any{"version": c.Version, "rotated": c.Live, "revoked_versions": c.Dead}}
	if !c.Live {
		resp.AddWarning(fmt.Sprintf("key %q is down: there is no new version: %s", c.Key, c.Down))
	}
	if c.Left != nil {
		resp.AddWarning("not every version is revoked yet, the engine goes on trying: " + publicMessage(c.Left))
	}
	return resp
}

// compromise ends every version, whatever becomes of the new one, and whatever
// else does not work. That they must end is stored first, so that a crash cannot
// forget it, and readers get none of them from then on.
//
// With first the current version is given to readers until its successor is, at
// most for so long.
func (w *work) compromise(ctx context.Context, first time.Duration) (*compromised, error) {
	now := w.now()
	next := w.rec.clone()
	numbers := slices.Concat(w.marked, next.compromise(later(now, w.rec.newest()), now, now.Add(first)))
	w.marked, w.quiet = numbers, true
	defer w.loudly()
	if err := w.save(ctx, next); err != nil {
		return nil, err
	}
	mintErr := w.replaceCompromised(ctx)
	minted := w.failed
	w.failed = nil
	if err := errors.Join(mintErr, w.revokeDue(ctx)); err != nil {
		return nil, err
	}
	out := &compromised{Key: w.rec.Name, Version: currentNumber(w.rec), Live: w.live() && !readersSee(w.rec).compromised, Dead: []int{}}
	for _, n := range numbers {
		if err := w.notDead(n); err != nil {
			out.Left = err
		} else {
			out.Dead = append(out.Dead, n)
		}
	}
	switch v := w.rec.Life.Pending(); {
	case out.Live:
	case v != nil && w.rec.Wait != nil:
		out.Down = fmt.Sprintf("version %d is made, and the service does not accept it so far; the engine looks again at %s", v.Number, stamp(w.rec.Wait.Until))
	case minted != nil:
		out.Down = publicMessage(minted) + "; the engine goes on trying"
	case w.rec.Uncertain != nil:
		out.Down = fmt.Sprintf("the rotation of %s is uncertain: look at the provider and write resolve/%s", stamp(w.rec.Uncertain.Since), w.rec.Name)
	case w.b.intents.open(w.rec.Name):
		out.Down = "an interrupted rotation is still being cleared up, and the engine makes one after that"
	default:
		out.Down = "the provider cannot make one"
	}
	return out, nil
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
	if w.unusable == nil && w.rec.Life.Alive() >= aliveLimit(w.caps) {
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
