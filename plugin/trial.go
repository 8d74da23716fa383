package apikeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// A live trial makes one key at a service, tests it, looks for it in the list, ends
// it and sees that it is dead. What it will be called is stored before it is asked
// for, so that whatever happens in between the key is found and ended: by the next
// start, where this one does not come to it.

const (
	// trialAnswer is how long a request waits for its trial; it goes on after that.
	trialAnswer = 20 * time.Second
	// maxTrialTries bounds how often an end is tried that does not succeed.
	maxTrialTries = 12
	maxTrialKnown = 1000
)

// trial is one as it is stored. The value of its key never is.
type trial struct {
	Provider   string         `json:"provider"`
	Identity   int            `json:"identity"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Name       string         `json:"name"` // at the service
	KeyID      string         `json:"key_id,omitempty"`
	// Known are the ids beforehand where the service keeps no names.
	Known    []string    `json:"known,omitempty"`
	Started  time.Time   `json:"started"`
	Finished time.Time   `json:"finished,omitzero"`
	Steps    []trialStep `json:"steps,omitempty"`
	// Left is what may be left at the service, for a person to look for.
	Left string `json:"left,omitempty"`
	// Tries and Next are of the clearing up after a fault or a restart.
	Tries int       `json:"tries,omitempty"`
	Next  time.Time `json:"next,omitzero"`
}

type trialStep struct {
	Op       string              `json:"op"`
	OK       bool                `json:"ok"`
	Message  string              `json:"message"`
	Selected []provider.Selected `json:"selected,omitempty"`
}

// The steps of clearing up. What fails in them is tried again, and forgotten when
// it has succeeded.
const (
	stepFind   = "find"
	stepRevoke = "revoke"
	stepDead   = "seen dead"
)

var clearing = []string{stepFind, stepRevoke, stepDead}

func (t *trial) step(op string, err error, format string, args ...any) {
	s := trialStep{Op: op, OK: err == nil, Message: fmt.Sprintf(format, args...)}
	if err != nil {
		s.Message = publicMessage(err)
	}
	t.Steps = append(t.Steps, s)
}

// failed is a step that went wrong without a provider's error.
func (t *trial) failed(op, format string, args ...any) {
	t.Steps = append(t.Steps, trialStep{Op: op, Message: fmt.Sprintf(format, args...)})
}

func (t *trial) passed() bool {
	return !t.Finished.IsZero() && t.Left == "" && !slices.ContainsFunc(t.Steps, func(s trialStep) bool { return !s.OK })
}

// trials are those of the mount that are not finished, by provider.
type trials struct {
	mu   sync.Mutex
	open map[string]*trial
	busy map[string]bool // a goroutine works on it
	// pause waits between two looks at a service that is slow to tell.
	pause func(ctx context.Context, d time.Duration)
}

func newTrials() *trials {
	return &trials{open: map[string]*trial{}, busy: map[string]bool{}, pause: pause}
}

func (t *trials) load(ctx context.Context, st store) error {
	names, err := st.list(ctx, trialPrefix)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.open)
	for _, name := range names {
		one := &trial{}
		if ok, err := st.get(ctx, trialPrefix+name, one); err != nil {
			return err
		} else if ok && one.Finished.IsZero() {
			t.open[name] = one
		}
	}
	return nil
}

// begin takes a provider for a new trial.
func (t *trials) begin(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[name] != nil || t.busy[name] {
		return refuse("read providers/"+name+"/trial", "a trial of provider %q is not finished", name)
	}
	t.busy[name] = true
	return nil
}

// done gives a provider back; unfinished is its trial if that must be cleared up.
func (t *trials) done(name string, unfinished *trial) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, name)
	delete(t.open, name)
	if unfinished != nil {
		t.open[name] = unfinished
	}
}

// unfinished tells whether a provider is needed by a trial.
func (t *trials) unfinished(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[name] != nil || t.busy[name]
}

// take gives a trial that is to be cleared up now; nil: there is none.
func (t *trials) take(now time.Time) *trial {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, one := range t.open {
		if !t.busy[name] && !now.Before(one.Next) {
			t.busy[name] = true
			copied := *one
			return &copied
		}
	}
	return nil
}

// tryLive runs a trial to its end, or as far as it comes.
func (b *backend) tryLive(ctx context.Context, st store, t *trial, p provider.Provider) {
	key, err := b.tryCreate(ctx, t, p)
	if err != nil {
		t.step("create", err, "")
		if caps := p.Capabilities(); provider.KindOf(err) != provider.KindUncertain && !(answered(err) && caps.List && caps.Named) {
			b.finishTrial(ctx, st, t) // nothing was made, or nobody can look
			return
		}
		b.clearTrial(ctx, st, t, p, nil)
		return
	}
	if holder, err := b.holderOf(ctx, st.s, t.Provider, key.ID); err != nil || holder != "" || slices.Contains(t.Known, key.ID) {
		if err == nil && holder == "" {
			holder = "somebody"
		}
		t.failed("create", "the service has answered with a key that was there before, of %q: nothing was ended", holder)
		b.finishTrial(ctx, st, t)
		return
	}
	t.KeyID = key.ID
	end := "it has no end of its own, as far as the answer says"
	if !key.Expires.IsZero() {
		end = "it ends at " + text(key.Expires)
	}
	t.step("create", nil, "a key with %s was made; %s", count(len(key.Values), "value"), end)
	b.tryEnd(t, key.Expires)
	if err := st.put(ctx, trialPrefix+t.Provider, t); err != nil {
		b.Logger().Warn("a trial's key could not be noted; it is ended all the same", "provider", t.Provider, "error", err)
	}
	b.tryKey(ctx, st, t, p, key)
	b.clearTrial(ctx, st, t, p, &key)
}

// tryEnd notes an end with which a key would never be given to anybody.
func (b *backend) tryEnd(t *trial, at time.Time) {
	if !at.IsZero() && at.Sub(b.clock.now()) < lifecycle.MinPeriod {
		t.failed("expires", "the key ends at %s, and it is %s: the service's clock, or where the settings find the end, is wrong", text(at), text(b.clock.now()))
	}
}

func (b *backend) tryCreate(ctx context.Context, t *trial, p provider.Provider) (provider.Key, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key, err := p.Create(callCtx, provider.CreateRequest{Name: t.Name, Parameters: t.Parameters})
	if err == nil {
		err = checkMinted(key)
	}
	return key, err
}

// tryKey tests the new key and looks for it in the list.
func (b *backend) tryKey(ctx context.Context, st store, t *trial, p provider.Provider, key provider.Key) {
	caps := p.Capabilities()
	if caps.Test || caps.Expires {
		var at time.Time
		var told bool
		err := b.patiently(ctx, func(ctx context.Context) (done bool, err error) {
			at, told, err = provider.Examine(ctx, p, t.Parameters, key)
			return err == nil, err
		})
		switch {
		case told && !at.IsZero():
			t.step("test", err, "the key works, and ends at %s", text(at))
			b.tryEnd(t, at)
		default:
			t.step("test", err, "the key works")
		}
	}
	if !caps.List {
		return
	}
	var keys []provider.RemoteKey
	var listed *provider.RemoteKey
	err := b.patiently(ctx, func(ctx context.Context) (_ bool, err error) {
		keys, err = p.List(ctx, t.Parameters, "")
		if i := slices.IndexFunc(keys, func(r provider.RemoteKey) bool { return r.ID == key.ID }); i >= 0 {
			listed = &keys[i]
		}
		return listed != nil, err
	})
	switch {
	case err != nil:
		t.step("list", err, "")
	case listed == nil:
		t.failed("list", "the new key is not listed: its id is in another field, or the list lags")
	case caps.Named && !lifecycle.ListedAs(t.Name, listed.Name):
		t.failed("list", "the new key is listed as %q and was called %q: names are cut off or changed, so key_name must say their form", truncate(listed.Name, 80), t.Name)
	case caps.Named:
		t.step("list", nil, "the key is listed under its name")
	default:
		for _, r := range keys {
			if holder, err := b.holderOf(ctx, st.s, t.Provider, r.ID); err == nil && holder == "" && r.ID != key.ID && !slices.Contains(t.Known, r.ID) && len(t.Known) < maxTrialKnown {
				t.failed("list", "besides the key %q is there, which was not before: the trial's if its request was sent twice, or somebody else's", truncate(r.ID, 80))
				return
			}
		}
		t.step("list", nil, "the key is listed; this service keeps no names")
	}
}

// patiently asks until done, as services take a while to tell everywhere what is new.
func (b *backend) patiently(ctx context.Context, ask func(context.Context) (done bool, err error)) error {
	for wait := time.Second; ; wait *= 2 {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		done, err := ask(callCtx)
		cancel()
		if done || wait > 32*time.Second || ctx.Err() != nil {
			return err
		}
		b.trials.pause(ctx, wait)
	}
}

// clearTrial ends the key and sees that it is dead. key is it, where its value is
// still known. What does not succeed is tried again, at growing pauses.
func (b *backend) clearTrial(ctx context.Context, st store, t *trial, p provider.Provider, key *provider.Key) {
	caps := p.Capabilities()
	ids, err := b.trialKeys(ctx, st.s, t, p)
	if err != nil {
		b.laterTrial(ctx, st, t, stepFind, err)
		return
	}
	if len(ids) == 0 {
		switch settled := t.Started.Add(settleTime); {
		case t.KeyID == "" && !(caps.List && caps.Named):
			t.Left = fmt.Sprintf("a key made after %s, perhaps named %s: this service cannot be asked for it", text(t.Started), t.Name)
			b.finishTrial(ctx, st, t)
		case t.KeyID == "" && b.clock.now().Before(settled):
			t.Next = settled // its list may lag
			b.keepTrial(ctx, st, t)
		default:
			b.finishTrial(ctx, st, t)
		}
		return
	}
	for _, id := range ids {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		err := provider.Revoke(callCtx, p, t.Parameters, id, t.Name)
		cancel()
		if err != nil {
			b.laterTrial(ctx, st, t, stepRevoke, err)
			return
		}
	}
	if err := b.seeDead(ctx, t, p, key, ids); err != nil {
		b.laterTrial(ctx, st, t, stepDead, err)
		return
	}
	t.Left = ""
	b.finishTrial(ctx, st, t)
}

// trialKeys are the ids of the trial's key, or keys, where a request was sent twice.
func (b *backend) trialKeys(ctx context.Context, s logical.Storage, t *trial, p provider.Provider) ([]string, error) {
	name, err := lifecycle.ParseMintName(t.Name)
	if err != nil {
		return nil, err
	}
	var ids []string
	if t.KeyID != "" {
		ids = append(ids, t.KeyID)
	}
	if caps := p.Capabilities(); caps.List && caps.Named {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		keys, err := p.List(callCtx, t.Parameters, name.KeyPrefix())
		if err != nil && len(ids) == 0 {
			return nil, err
		}
		for _, k := range keys {
			if lifecycle.CutFrom(t.Name, k.Name) && k.ID != "" && !slices.Contains(ids, k.ID) {
				ids = append(ids, k.ID)
			}
		}
	}
	for _, id := range ids {
		if holder, err := b.holderOf(ctx, s, t.Provider, id); err != nil || holder != "" {
			return nil, errors.Join(err, refuse("", "the id is that of a version of key %q", holder))
		}
	}
	return ids, nil
}

// seeDead looks whether the ended keys are dead: refused, or not listed, or else by
// the provider's word.
func (b *backend) seeDead(ctx context.Context, t *trial, p provider.Provider, key *provider.Key, ids []string) error {
	caps := p.Capabilities()
	seenAlive := slices.ContainsFunc(t.Steps, func(s trialStep) bool { return !s.OK && s.Op == stepDead })
	if seenAlive && key == nil && !caps.List {
		return &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "the key worked after it was revoked, and nobody has its value to try it again"}
	}
	how := "the service says so"
	if caps.Test && key != nil {
		err := b.patiently(ctx, func(ctx context.Context) (bool, error) {
			err := p.Test(ctx, t.Parameters, *key)
			switch {
			case provider.Refused(err):
				return true, nil
			case err == nil:
				return false, &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "the key still works after it was revoked"}
			}
			return false, err
		})
		if err != nil {
			return err
		}
		how = "the service refuses it"
	}
	if caps.List {
		err := b.patiently(ctx, func(ctx context.Context) (bool, error) {
			keys, err := p.List(ctx, t.Parameters, "")
			if err == nil && slices.ContainsFunc(keys, func(k provider.RemoteKey) bool { return slices.Contains(ids, k.ID) }) {
				err = &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "the service still lists the key after it was revoked"}
			}
			return err == nil, err
		})
		if err != nil {
			return err
		}
		how += ", and no longer lists it"
	}
	t.Steps = slices.DeleteFunc(t.Steps, func(s trialStep) bool { return !s.OK && slices.Contains(clearing, s.Op) })
	t.step(stepRevoke, nil, "the key is dead: %s", how)
	return nil
}

// laterTrial notes a fault of the clearing up and when to go on.
func (b *backend) laterTrial(ctx context.Context, st store, t *trial, op string, err error) {
	t.Steps = slices.DeleteFunc(t.Steps, func(s trialStep) bool { return !s.OK && s.Op == op })
	t.step(op, err, "")
	t.Left = strings.TrimSpace(fmt.Sprintf("a key named %s %s", t.Name, t.KeyID))
	if t.Tries++; t.Tries >= maxTrialTries {
		b.finishTrial(ctx, st, t)
		return
	}
	t.Next = b.clock.now().Add(min(time.Minute<<min(t.Tries, 6), time.Hour))
	b.keepTrial(ctx, st, t)
}

func (b *backend) finishTrial(ctx context.Context, st store, t *trial) {
	t.Finished = b.clock.now()
	b.keepTrial(ctx, st, t)
}

// keepTrial stores what is known and gives the provider back. What is finished and
// could not be stored is cleared up once more: that changes nothing.
func (b *backend) keepTrial(ctx context.Context, st store, t *trial) {
	err := st.put(ctx, trialPrefix+t.Provider, t)
	if err != nil {
		b.Logger().Warn("a trial could not be stored", "provider", t.Provider, "error", err)
	}
	if err == nil && !t.Finished.IsZero() {
		b.trials.done(t.Provider, nil)
		return
	}
	open := *t
	open.Finished = time.Time{}
	if err != nil {
		open.Next = b.clock.now().Add(time.Minute)
	}
	b.trials.done(t.Provider, &open)
}

// resumeTrials goes on with the trials that a fault or a restart has interrupted.
func (b *backend) resumeTrials(ctx context.Context, st store) {
	for t := b.trials.take(b.clock.now()); t != nil; t = b.trials.take(b.clock.now()) {
		b.running.Add(1)
		go func() {
			defer b.running.Done()
			if t.Next.IsZero() {
				t.failed("interrupted", "the engine was stopped in the middle: what was made is looked for and ended")
			}
			p, err := b.providerAs(ctx, t.Provider, t.Identity)
			if err != nil {
				b.laterTrial(ctx, st, t, stepFind, err)
				return
			}
			b.clearTrial(ctx, st, t, p, nil)
		}()
	}
}

// holderOf is the key of this mount that has a version with this id at the provider.
func (b *backend) holderOf(ctx context.Context, s logical.Storage, providerName, id string) (string, error) {
	for _, name := range b.index.ofProvider(providerName) {
		snap, err := b.snapshot(ctx, s, name)
		if err != nil {
			return "", err
		}
		if snap != nil && snap.rec.Life.ByProviderID(id) != nil {
			return name, nil
		}
	}
	return "", nil
}
