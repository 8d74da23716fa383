// Package lifecycle is the pure part of the secrets engine: which states a
// key's versions pass through, what readers were promised, and when the next
// rotation is due.
//
// It is not the engine: it performs no I/O, reads no clock, knows neither
// Vault nor providers and holds no secret. Every function takes the time as an
// argument and gives the same result for the same arguments.
package lifecycle

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// State of one version: pending, current, grace, revoked, in that order,
// except that a rollback takes a version from grace back to current.
type State string

// The states of a version.
const (
	Pending State = "pending" // minted and stored, not yet given to readers
	Current State = "current" // what readers get
	Grace   State = "grace"   // replaced, still valid until RevokeAt
	Revoked State = "revoked" // dead, or given up by the engine
)

// Errors that callers test for.
var (
	ErrNoVersion   = errors.New("there is no such version")
	ErrNotAlive    = errors.New("the version is not alive")
	ErrCompromised = errors.New("the version is compromised")
	ErrPromise     = errors.New("readers were promised this version for longer")
	ErrCurrent     = errors.New("the version is the current one")
)

// Version is what the engine knows of one version of a key, without its value.
type Version struct {
	Number     int           `json:"number"`
	State      State         `json:"state"`
	Name       string        `json:"name,omitempty"`        // at the provider
	ProviderID string        `json:"provider_id,omitempty"` // at the provider
	Created    time.Time     `json:"created"`
	Promoted   time.Time     `json:"promoted,omitzero"`   // last time it became current
	Retired    time.Time     `json:"retired,omitzero"`    // entered grace
	RevokeAt   time.Time     `json:"revoke_at,omitzero"`  // not valid for readers from then on
	RevokedAt  time.Time     `json:"revoked_at,omitzero"` // end of its life
	Expires    time.Time     `json:"expires,omitzero"`    // the provider ends it by itself
	Grace      time.Duration `json:"grace,omitempty"`     // promised to readers while current
	// Promised is the longest grace that readers had been promised before it was cut to Grace.
	Promised time.Duration `json:"promised,omitempty"`
	// PromisedUntil is until when readers were promised it, where its successor's birth
	// ends it and a change since would let it be rotated sooner.
	PromisedUntil time.Time `json:"promised_until,omitzero"`
	// Doubted is when its successor was last asked for in vain, where that may have ended
	// it all the same; zero: it was not, or the version was seen to work since.
	Doubted time.Time `json:"doubted,omitzero"`
	// Compromised versions are revoked without grace and never become current again.
	Compromised bool `json:"compromised,omitempty"`
	// LastRead is until when a compromised version may be read for want of another.
	LastRead time.Time `json:"last_read,omitzero"`
	// Imported versions were brought by a person, not minted.
	Imported bool `json:"imported,omitempty"`
	// Found versions were discovered at the provider by reconcile: their value is unknown.
	Found bool `json:"found,omitempty"`
	// Keep: the engine must not revoke it at the provider, it only forgets it.
	Keep bool `json:"keep,omitempty"`
	// Identity is which of its provider's identities it was made with.
	Identity int `json:"identity,omitempty"`
	// EndAsked: its provider may have been asked to end it, or it is to end before any
	// reader had it. It is stored before that, and never taken back: readers get it no
	// more, and it never becomes current again, whatever its times say by another clock.
	EndAsked bool `json:"end_asked,omitempty"`
	// Ending is how far its end has come at the provider; nil: it was not tried.
	Ending *Ending `json:"ending,omitempty"`
	// Evidence is how the engine knows that it is dead.
	Evidence Evidence `json:"evidence,omitempty"`
}

// Evidence is how the engine knows of a version's end.
type Evidence string

// What there may be.
const (
	ByList   Evidence = "list"   // the provider no longer lists it
	ByTest   Evidence = "test"   // the provider refuses it
	ByAnswer Evidence = "answer" // the provider said so, and has nothing by which it could be seen
	ByPerson Evidence = "person" // somebody has looked
	ByNobody Evidence = "none"   // there is none: the engine cannot end it, or must not, and cannot look
)

// Ending is how far the end of a version has come at its provider. Each version
// has its own, so that one that cannot be ended keeps no other alive.
type Ending struct {
	// Asked is when the provider took the revocation or, where the engine cannot end
	// it, since when somebody should have; it is not seen to be dead so far.
	Asked time.Time `json:"asked,omitzero"`
	// Failure is the last try that failed.
	Failure *Failure `json:"failure,omitempty"`
	// Until is when to try, or to look, again; zero: not before somebody says so.
	Until time.Time `json:"until,omitzero"`
}

// Failure is why the last try of a step did not succeed.
type Failure struct {
	Step    Step      `json:"op"`
	Kind    string    `json:"kind"`
	Message string    `json:"message"` // never holds a secret
	Count   int       `json:"count"`   // in a row
	At      time.Time `json:"at"`
	// RetryAt was written by 0.1, which has no Wait.
	RetryAt time.Time `json:"retry_at,omitzero"`
}

// Step is what of a key's life was tried.
type Step string

// The steps that can fail.
const (
	StepCreate  Step = "create"
	StepTest    Step = "test"
	StepRecover Step = "recover"
	StepRevoke  Step = "revoke"
	StepVerify  Step = "verify"
)

// RetryAt is when its end is tried again; zero: it was not tried, or waits for somebody.
func (v *Version) RetryAt() time.Time {
	if v.Ending == nil {
		return time.Time{}
	}
	return v.Ending.Until
}

// Stuck tells whether its end waits for somebody to look.
func (v *Version) Stuck() bool { return v.Ending != nil && v.Ending.Until.IsZero() }

// GivenUp tells that the engine does nothing more about the version, which may live.
func (v *Version) GivenUp() bool { return v.State == Revoked && v.Evidence == ByNobody }

// Alive tells whether the version may still be valid at the provider.
func (v *Version) Alive() bool { return v.State != Revoked }

// ExpiredAt tells whether the provider has ended the version by itself.
func (v *Version) ExpiredAt(now time.Time) bool {
	return !v.Expires.IsZero() && !now.Before(v.Expires)
}

// ReadableAt tells whether readers may still be given this version.
func (v *Version) ReadableAt(now time.Time) bool {
	if v.Found || v.EndAsked || v.ExpiredAt(now) || v.Compromised && (v.State != Current || !now.Before(v.LastRead)) {
		return false
	}
	switch v.State {
	case Current:
		return v.RevokeAt.IsZero() || now.Before(v.RevokeAt)
	case Grace:
		return now.Before(v.RevokeAt)
	}
	return false
}

// SetGrace changes what readers are promised from now on.
func (v *Version) SetGrace(grace time.Duration) {
	v.Promised = max(v.Promised, v.Grace)
	v.Grace = grace
}

// PromiseKept tells whether what readers are promised now is all that they
// have ever been promised: only then may one be told "unchanged" and count anew.
func (v *Version) PromiseKept() bool { return v.Grace >= v.Promised }

// Key is all versions of one key in ascending order of their numbers.
type Key struct {
	Versions []Version `json:"versions"`
	// Last is the highest number ever given out. Numbers are never used
	// twice, because clients compare them.
	Last int `json:"last"`
}

// Clone is a deep copy.
func (k *Key) Clone() Key {
	return Key{Versions: slices.Clone(k.Versions), Last: k.Last}
}

// All are the versions, to look at or to change, in ascending order of their numbers.
func (k *Key) All() iter.Seq[*Version] {
	return func(yield func(*Version) bool) {
		for i := range k.Versions {
			if !yield(&k.Versions[i]) {
				return
			}
		}
	}
}

// Living are those of All that are alive.
func (k *Key) Living() iter.Seq[*Version] {
	return func(yield func(*Version) bool) {
		for v := range k.All() {
			if v.Alive() && !yield(v) {
				return
			}
		}
	}
}

// Find gives the version with this number, or nil. The pointer is valid until
// the next change.
func (k *Key) Find(number int) *Version {
	i, ok := slices.BinarySearchFunc(k.Versions, number, func(v Version, n int) int { return v.Number - n })
	if !ok {
		return nil
	}
	return &k.Versions[i]
}

func (k *Key) inState(s State) *Version {
	for i := len(k.Versions) - 1; i >= 0; i-- {
		if k.Versions[i].State == s {
			return &k.Versions[i]
		}
	}
	return nil
}

// Current gives the current version, or nil where there is none (yet).
func (k *Key) Current() *Version { return k.inState(Current) }

// Pending gives the version that is minted but not yet promoted, or nil.
func (k *Key) Pending() *Version { return k.inState(Pending) }

// Alive counts what may still be valid at the provider; versions that share an
// identifier there are one.
func (k *Key) Alive() int {
	n := 0
	for i := range k.Versions {
		v := &k.Versions[i]
		if v.Alive() && k.livingID(v.ProviderID, i) == nil {
			n++
		}
	}
	return n
}

// livingID gives the first of the versions before end that is alive under this
// identifier at the provider, or nil.
func (k *Key) livingID(id string, end int) *Version {
	for i := range k.Versions[:end] {
		if v := &k.Versions[i]; id != "" && v.ProviderID == id && v.Alive() {
			return v
		}
	}
	return nil
}

// Twin gives another living version with the identifier of this one whose time
// is not over at now, or nil: what ends the one at the provider ends the other.
func (k *Key) Twin(v *Version, now time.Time) *Version {
	for i := range k.Versions {
		o := &k.Versions[i]
		if v.ProviderID == "" || o.ProviderID != v.ProviderID || o.Number == v.Number || !o.Alive() {
			continue
		}
		if o.RevokeAt.IsZero() || now.Before(o.RevokeAt) {
			return o
		}
	}
	return nil
}

// ByName gives the version that the provider lists under this name, or nil.
func (k *Key) ByName(name string) *Version {
	for i := range k.Versions {
		if ListedAs(k.Versions[i].Name, name) {
			return &k.Versions[i]
		}
	}
	return nil
}

// Knows tells whether a key that the provider lists under this identifier and name
// is one of the versions. A dead one's identifier may have been given again, to a
// key of another name.
func (k *Key) Knows(id, name string) bool {
	return slices.ContainsFunc(k.Versions, func(v Version) bool {
		return id != "" && v.ProviderID == id && (v.Alive() || v.Name == "" || name == "" || ListedAs(v.Name, name))
	})
}

// Undead gives the version that was called dead because nobody saw it, and that the
// provider lists under its identifier and name all the same; nil: there is none.
func (k *Key) Undead(id, name string) *Version {
	for v := range k.All() {
		if v.State == Revoked && (v.Evidence == ByList || v.Evidence == "") && id != "" && v.ProviderID == id && CutFrom(v.Name, name) &&
			k.livingID(id, len(k.Versions)) == nil {
			return v
		}
	}
	return nil
}

// ByProviderID gives the newest version with this identifier at the provider, or nil.
func (k *Key) ByProviderID(id string) *Version {
	for i := len(k.Versions) - 1; i >= 0; i-- {
		if id != "" && k.Versions[i].ProviderID == id {
			return &k.Versions[i]
		}
	}
	return nil
}

// Add appends a new version. Its number must be higher than every one before.
func (k *Key) Add(v Version) error {
	if v.Number <= k.Last {
		return fmt.Errorf("version %d: numbers up to %d are already used", v.Number, k.Last)
	}
	if v.State == Pending && k.Pending() != nil {
		return fmt.Errorf("version %d: version %d is still pending", v.Number, k.Pending().Number)
	}
	k.Versions = append(k.Versions, v)
	k.Last = v.Number
	return nil
}

// Promote makes a pending version current, fixes the promise made to its
// readers, and retires the one before: into its own grace where the provider
// lets both live; else its end has come, and was asked for by minting.
func (k *Key) Promote(number int, now time.Time, grace time.Duration, overlap bool) error {
	v := k.Find(number)
	switch {
	case v == nil:
		return fmt.Errorf("promote version %d: %w", number, ErrNoVersion)
	case v.State != Pending:
		return fmt.Errorf("promote version %d, which is %s: %w", number, v.State, ErrNotAlive)
	}
	k.retireCurrent(now, overlap)
	v.State, v.Promoted = Current, now
	v.SetGrace(grace)
	return nil
}

func (k *Key) retireCurrent(now time.Time, overlap bool) {
	old := k.Current()
	if old == nil {
		return
	}
	old.Retired = now
	old.State = Grace
	if !overlap {
		old.RevokeAt, old.EndAsked, old.Ending = now, true, &Ending{Asked: now, Until: now}
		return
	}
	at := now.Add(old.Grace)
	if old.RevokeAt.IsZero() || at.Before(old.RevokeAt) {
		old.RevokeAt = at
	}
	if !old.Expires.IsZero() && old.Expires.Before(old.RevokeAt) {
		old.RevokeAt = old.Expires // nobody was promised more
	}
	if old.Compromised && old.RevokeAt.After(now) {
		old.RevokeAt = now
	}
}

// Rollback makes a version in grace the current one again; the present current
// one enters its grace.
func (k *Key) Rollback(number int, now time.Time, grace time.Duration) error {
	v := k.Find(number)
	switch {
	case v == nil:
		return fmt.Errorf("roll back to version %d: %w", number, ErrNoVersion)
	case v.Compromised:
		return fmt.Errorf("roll back to version %d: %w", number, ErrCompromised)
	case v.State == Current:
		return fmt.Errorf("roll back to version %d: %w", number, ErrCurrent)
	case v.State != Grace || !v.ReadableAt(now):
		return fmt.Errorf("roll back to version %d: %w", number, ErrNotAlive)
	}
	k.retireCurrent(now, true)
	v = k.Find(number)
	// Readers of its first time as current may have been promised more.
	v.State, v.Promoted = Current, now
	v.SetGrace(max(grace, v.RevokeAt.Sub(now)))
	v.Retired, v.RevokeAt = time.Time{}, time.Time{}
	return nil
}

// Retire ends a version's life at the time given, no later. Without force it
// refuses to take back what readers were promised.
func (k *Key) Retire(number int, at, now time.Time, force bool) error {
	v := k.Find(number)
	switch {
	case v == nil:
		return fmt.Errorf("revoke version %d: %w", number, ErrNoVersion)
	case v.State == Revoked:
		return fmt.Errorf("revoke version %d: %w", number, ErrNotAlive)
	case v.State == Current:
		return fmt.Errorf("revoke version %d: %w", number, ErrCurrent)
	case v.State == Pending:
		v.State, v.Retired, v.RevokeAt, v.Ending, v.EndAsked = Grace, now, at, nil, true // no reader ever had it
		return nil
	case !force && at.Before(v.RevokeAt):
		return fmt.Errorf("revoke version %d: %w", number, ErrPromise)
	}
	v.Ending = nil // somebody wants it now
	if at.Before(v.RevokeAt) {
		v.RevokeAt = at
	}
	return nil
}

// Compromise marks every version that is alive, and made no later than until, as
// known to others: none of them is given to readers any more, and all are due for
// revocation at once; the current one only when it has a successor, or at last at
// the end given, where that is later. It returns their numbers.
func (k *Key) Compromise(until, now, last time.Time) []int {
	var numbers []int
	for v := range k.Living() {
		if v.Compromised || v.Created.After(until) {
			continue
		}
		v.Compromised, v.RevokeAt, v.Ending = true, now, nil
		switch {
		case v.State == Pending:
			v.State, v.Retired = Grace, now
		case v.State == Current && last.After(now):
			v.RevokeAt, v.LastRead = last, last
		}
		numbers = append(numbers, v.Number)
	}
	return numbers
}

// Exposed tells whether Compromise would mark anything.
func (k *Key) Exposed(until time.Time) bool {
	return slices.ContainsFunc(k.Versions, func(v Version) bool {
		return v.Alive() && !v.Compromised && !v.Created.After(until)
	})
}

// MarkRevoked records that a version is dead, and how that is known.
func (k *Key) MarkRevoked(number int, now time.Time, how Evidence) error {
	v := k.Find(number)
	if v == nil {
		return fmt.Errorf("mark version %d as revoked: %w", number, ErrNoVersion)
	}
	v.State, v.RevokedAt, v.Evidence, v.Ending = Revoked, now, how, nil
	for i := range k.Versions {
		// What has waited for the end of this one, because it has the same id, waits no more.
		if o := &k.Versions[i]; v.ProviderID != "" && o.ProviderID == v.ProviderID && o.Ending != nil && o.Ending.Failure == nil && o.Ending.Asked.IsZero() {
			o.Ending = nil
		}
	}
	return nil
}

// DueRevocations gives the numbers of the versions whose time is over, and whose
// next try has come, compromised ones first.
func (k *Key) DueRevocations(now time.Time) []int {
	var urgent, due []int
	for v := range k.Living() {
		if v.RevokeAt.IsZero() || now.Before(v.RevokeAt) || v.Stuck() || now.Before(v.RetryAt()) {
			continue
		}
		if v.Compromised {
			urgent = append(urgent, v.Number)
		} else if v.State == Grace {
			due = append(due, v.Number)
		}
	}
	return append(urgent, due...)
}

// Prune drops the oldest revoked versions until at most limit versions are
// left. Those that are alive always stay. It returns the dropped numbers.
func (k *Key) Prune(limit int) []int {
	excess := len(k.Versions) - limit
	var dropped []int
	k.Versions = slices.DeleteFunc(k.Versions, func(v Version) bool {
		if excess <= 0 || v.Alive() {
			return false
		}
		excess--
		dropped = append(dropped, v.Number)
		return true
	})
	return dropped
}

// Check verifies what must hold after every change.
func (k *Key) Check() error {
	var errs []error
	last, current, pending := 0, 0, 0
	for v := range k.All() {
		if v.Number <= last {
			errs = append(errs, fmt.Errorf("version %d follows version %d", v.Number, last))
		}
		last = v.Number
		switch v.State {
		case Current:
			current++
		case Pending:
			pending++
		case Grace:
			if v.RevokeAt.IsZero() {
				errs = append(errs, fmt.Errorf("version %d is in grace without an end", v.Number))
			}
		case Revoked:
		default:
			errs = append(errs, fmt.Errorf("version %d: unknown state %q", v.Number, v.State))
		}
	}
	if current > 1 {
		errs = append(errs, fmt.Errorf("%d versions are current", current))
	}
	if pending > 1 {
		errs = append(errs, fmt.Errorf("%d versions are pending", pending))
	}
	if last > k.Last {
		errs = append(errs, fmt.Errorf("version %d is beyond the last number %d", last, k.Last))
	}
	return errors.Join(errs...)
}
