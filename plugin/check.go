package apikeys

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// The provider is asked once a day whether the current version of a key works, as a
// service may have ended it, or somebody there. It is a look and nothing more: no
// key is made, ended or taken from readers for what it finds.

const (
	// opCheck names the calls of checks where a provider's faults are counted, so that
	// a service whose tests fail holds up no rotation.
	opCheck = "check"
	// checkAgain is when to ask again where nobody could tell, and how often a dead key
	// is looked at.
	checkAgain = 4 * time.Hour
	// A version that may have been ended by the birth of its successor is looked at soon,
	// and for as long as that may still happen.
	doubtLook  = 10 * time.Second
	doubtAgain = 5 * time.Minute
)

// checks is what the index knows of the checks of a key, in unix seconds; 0: never.
// A key that works costs no other write than the index's own.
type checks struct {
	checkAt int64 // the next
	seenAt  int64 // when the key was last seen to work
}

func (p packedEntry) checks() checks { return checks{max(p.CheckAt, 0), p.SeenAt} }

func packCheck(at int64) int64 {
	if at == 0 {
		return -1
	}
	return at
}

// checkAfter is when a key is checked next: the time that is set, unless nobody has
// set one, or a clock did that was ahead.
func (x *keyIndex) checkAfter(rec *keyRecord, now time.Time) int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	at := lifecycle.NextCheck(rec.UID, now).Unix()
	if e := x.entryLocked(rec.Name); e != nil && e.checkAt != 0 && e.checkAt <= now.Add(lifecycle.CheckEvery+lifecycle.RefusedApart).Unix() {
		at = e.checkAt
	}
	if isDoubted(rec) && at > now.Add(doubtAgain).Unix() {
		at = now.Add(doubtLook).Unix()
	}
	return at
}

// checkKnown is what is known of the checks of a key. fault is why the last one did
// not tell; it is in memory only.
func (x *keyIndex) checkKnown(name string) (known checks, fault string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if e := x.entryLocked(name); e != nil {
		return e.checks, e.checkFault
	}
	return checks{}, ""
}

// checked notes a check and when the next one is.
func (x *keyIndex) checked(name string, next, seen time.Time, fault string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entryLocked(name)
	if e == nil {
		return
	}
	e.checkAt, e.checkFault = next.Unix(), fault
	if !seen.IsZero() {
		e.seenAt = seen.Unix()
	}
	x.dirty[shardOf(name)] = struct{}{}
	x.queueLocked(e)
}

// mayCheck tells whether a check may begin at now (unix seconds), while workers have
// taken so many keys of the account: nothing else of the provider waits, and rotations have left something of what it may be asked for.
func (q *providerQueue) mayCheck(now int64, s shares, budget *accountBudget, taken int) bool {
	if now < max(s.rotateFrom, s.reviewFrom, s.checkFrom) || s.checkFrom != 0 && taken > 0 {
		return false
	}
	return q.rotate.top(now) == nil && budget.checksLeft(now, s.checks) > 0
}

func (a *accountBudget) checksLeft(now int64, limit int) int {
	a.mints.left(now, limit) // of this minute
	return a.checks.left(now, limit) - a.mints.used
}

// reserveCheck takes one of the checks that an account may still be asked for in this
// minute.
func (x *keyIndex) reserveCheck(account string, now int64, limit int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	budget := x.budgetLocked(account)
	if budget.checksLeft(now, limit) <= 0 {
		return false
	}
	budget.checks.used++
	return true
}

// unchecked is why the current version is not looked at; "": it is.
func (s *snapshot) unchecked(now time.Time) string {
	rec, cur := s.rec, s.rec.Life.Current()
	switch {
	case rec.newer != 0:
		return "a later release looks after it"
	case rec.Deleting != nil:
		return "it is being deleted"
	case cur == nil:
		return "it has no current version"
	case cur.Compromised:
		return "its current version is known to others, and is being ended"
	case !cur.ReadableAt(now):
		return "its current version has ended"
	case s.caps.Local:
		return "Vault makes it: verify tells whether it is valid"
	case !s.known:
		return fmt.Sprintf("provider %q cannot be used", rec.Def.Provider)
	case s.caps.Test && len(rec.Values[cur.Number]) > 0, s.caps.List && cur.ProviderID != "":
		return ""
	}
	return fmt.Sprintf("provider %q has no test, and no list in which it could be seen", rec.Def.Provider)
}

// isDead tells whether the current version is known to be refused.
func isDead(rec *keyRecord) bool {
	cur := rec.Life.Current()
	return cur != nil && rec.Refusal != nil && rec.Refusal.Version == cur.Number && !rec.Refusal.Dead.IsZero()
}

// isDoubted tells whether the birth of a successor may have ended the current version.
func isDoubted(rec *keyRecord) bool {
	cur := rec.Life.Current()
	return cur != nil && !cur.Doubted.IsZero()
}

// checkIfDue is the daily check. A version that has just become current was tested.
func (w *work) checkIfDue(ctx context.Context) error {
	now := w.now()
	known, _ := w.b.index.checkKnown(w.rec.Name)
	if known.checkAt == 0 || now.Unix() < known.checkAt || w.snap().unchecked(now) != "" {
		return nil
	}
	if age := now.Sub(w.rec.Life.Current().Promoted); age >= 0 && age < lifecycle.RefusedApart && !isDoubted(w.rec) {
		w.b.index.checked(w.rec.Name, lifecycle.NextCheck(w.rec.UID, now), time.Time{}, "")
		return nil
	}
	s := w.b.sharesOf(w.rec.Def.Provider)
	if now.Unix() < max(s.rotateFrom, s.reviewFrom, s.checkFrom) || !w.b.index.reserveCheck(s.account, now.Unix(), s.checks) {
		return nil // its turn comes later
	}
	return w.check(ctx)
}

// check asks the provider whether the current version works, and notes what it says.
// The index follows the record: where that could not be written, the check is due again.
func (w *work) check(ctx context.Context) error {
	cur := *w.rec.Life.Current()
	end, refused, err := w.works(ctx, &cur)
	w.b.stats.checks.Add(1)
	now := w.now()
	switch {
	case err != nil:
		pause := checkAgain
		if w.rec.Refusal != nil && !isDead(w.rec) {
			pause = lifecycle.RefusedApart
		}
		if isDoubted(w.rec) {
			pause = doubtAgain
		}
		var pe *provider.Error
		if errors.As(err, &pe) {
			pause = max(pause, min(pe.RetryAfter, maxRetry))
		}
		w.b.index.checked(w.rec.Name, now.Add(pause), time.Time{}, publicMessage(err))
		return nil
	case refused != nil:
		return w.checkRefused(ctx, &cur, publicMessage(refused))
	}
	if err := w.checkPassed(ctx, &cur, end); err != nil {
		return err
	}
	again := lifecycle.NextCheck(w.rec.UID, now.Add(lifecycle.RefusedApart))
	if isDoubted(w.rec) {
		if again = cur.Doubted.Add(settleTime); !again.After(now) {
			again = now.Add(doubtAgain)
		}
	}
	w.b.index.checked(w.rec.Name, again, now, "")
	return nil
}

// checkRefused notes that the current version is refused. Nothing is written that
// storage has already.
func (w *work) checkRefused(ctx context.Context, cur *lifecycle.Version, why string) error {
	before, now := w.rec.Refusal, w.now()
	after := lifecycle.Refused(before, cur.Number, now, why)
	wanted := isDoubted(w.rec) && w.caps.Mint && (w.rec.Requested.IsZero() || w.rec.Requested.After(now))
	if after != before || wanted {
		if after != before && !after.Dead.IsZero() {
			w.emitCheck(ctx, "dead", cur, after, "reason", why)
		}
		next := w.rec.clone()
		next.Refusal = after
		if wanted {
			next.Requested = now // its successor ended it, and was lost
		}
		if err := w.save(ctx, next); err != nil {
			return err
		}
	}
	again := now.Add(checkAgain)
	if after.Dead.IsZero() {
		again = after.First.Add(lifecycle.RefusedApart)
	}
	if isDoubted(w.rec) {
		again = now.Add(doubtAgain)
	}
	w.b.index.checked(w.rec.Name, again, time.Time{}, "")
	return nil
}

// checkPassed notes that the current version works, and until when.
func (w *work) checkPassed(ctx context.Context, cur *lifecycle.Version, end time.Time) error {
	next, changed := w.rec.clone(), false
	if next.Refusal != nil {
		if isDead(w.rec) {
			w.emitCheck(ctx, "alive", cur, next.Refusal)
		}
		next.Refusal, changed = nil, true
	}
	if !end.Equal(cur.Expires) {
		next.Life.Find(cur.Number).Expires, changed = end, true
	}
	if isDoubted(w.rec) && !w.now().Before(cur.Doubted.Add(settleTime)) && !w.b.intents.open(w.rec.Name) && w.caps.Test {
		next.Life.Find(cur.Number).Doubted, changed = time.Time{}, true
	}
	if !changed {
		return nil
	}
	return w.save(ctx, next)
}

// emitCheck tells that a key is found dead, or alive again. It comes before the change
// is stored, so that no crash loses it; whoever is told twice sees it by the id.
func (w *work) emitCheck(ctx context.Context, kind string, cur *lifecycle.Version, r *lifecycle.Refusal, pairs ...string) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d\x00%d", kind, w.b.fence.mount(), w.rec.UID, cur.Number, r.First.UnixNano()))
	pairs = append([]string{"version", strconv.Itoa(cur.Number), "refused_since", text(r.First)}, pairs...)
	w.b.emitAs(ctx, hex.EncodeToString(sum[:])[:eventIDLength], kind, w.rec.Name, pairs...)
}

// works asks the provider for a version: refused is its word that it does not work,
// err that nobody knows. end is when it ends by itself, as far as anybody knows.
func (w *work) works(ctx context.Context, v *lifecycle.Version) (end time.Time, refused, err error) {
	as := w.as(ctx, v)
	as.counts = opCheck
	if w.caps.Test && len(w.rec.Values[v.Number]) > 0 {
		end, refused, err = as.examine(ctx, w.rec.providerKey(v))
		if isUnsure(refused) {
			var pe *provider.Error
			errors.As(refused, &pe)
			said := *pe
			said.Msg += "; or the account, or a right: test.refused says whether " + strconv.Itoa(pe.Status) + " is of the key"
			refused, err = nil, &said
		}
		return w.believable(v, end), refused, err
	}
	remote, err := as.list(ctx, "")
	if err != nil {
		return v.Expires, nil, err
	}
	if i := slices.IndexFunc(remote, func(r provider.RemoteKey) bool { return r.ID == v.ProviderID }); i >= 0 {
		if end = remote[i].Expires; end.IsZero() { // never, or nobody can read it
			end = v.Expires
		}
		return w.believable(v, end), nil, nil
	}
	missing := &provider.Error{Op: "list", Kind: provider.KindNotFound, Msg: "the service no longer lists the key"}
	if known, _ := w.b.index.checkKnown(w.rec.Name); known.seenAt < v.Promoted.Unix() {
		missing.Msg = "the service does not list the key, and was never seen to: its id may be another there"
		return v.Expires, nil, missing
	}
	return v.Expires, missing, nil
}

// believable is the end of a version that works: what the service told, unless the
// key has it behind it, or nearly so, or never has one where a person said it does.
func (w *work) believable(v *lifecycle.Version, end time.Time) time.Time {
	if end.IsZero() && v.Imported || !end.IsZero() && end.Sub(w.now()) < lifecycle.MinPeriod {
		return v.Expires
	}
	return end
}

// checkData is what the checks of a key have shown.
func (b *backend) checkData(snap *snapshot) map[string]any {
	rec := snap.rec
	data := map[string]any{}
	known, fault := b.index.checkKnown(rec.Name)
	cur := rec.Life.Current()
	seen := time.Time{}
	if known.seenAt != 0 && cur != nil && known.seenAt >= cur.Promoted.Unix() {
		seen = time.Unix(known.seenAt, 0)
	}
	data["seen_time"] = stamp(seen)
	if why := snap.unchecked(b.clock.now()); why != "" {
		data["result"], data["reason"] = "not_looked_at", why
		if cur != nil {
			data["since"] = stamp(later(cur.Promoted, seen))
		}
		return data
	}
	data["next_time"] = unixStamp(b.index.checkAfter(rec, b.clock.now()))
	r := rec.Refusal
	switch {
	case r != nil && r.Version == cur.Number:
		data["result"], data["refused_since"], data["reason"] = "refused", stamp(r.First), r.Message
		if !r.Dead.IsZero() {
			data["result"] = "dead"
		}
	case fault != "":
		data["result"], data["reason"] = "unknown", fault
	case seen.IsZero():
		data["result"], data["since"] = "not_looked_at", stamp(cur.Promoted)
		data["reason"] = "its time has not come yet"
	default:
		data["result"] = "works"
	}
	return data
}
