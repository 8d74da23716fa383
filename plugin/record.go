package apikeys

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// keyRecord is all that the engine knows of one key: its definition, its
// versions and their values. It is stored as one entry. Once published in the
// cache it never changes; a mutation works on a clone.
type keyRecord struct {
	Name    string    `json:"name"`
	UID     string    `json:"uid"` // 12 characters; part of the names at the provider
	Created time.Time `json:"created"`
	Def     keyDef    `json:"def"`

	Life lifecycle.Key `json:"life"`
	// Values of the versions that are alive, by version number.
	Values map[int]map[string]string `json:"values,omitempty"`
	// Hashes stand in place of the values of old versions where Def.HashOld.
	Hashes map[int][]byte `json:"hashes,omitempty"`
	// Made holds the parameters that versions were made with, where those of Def
	// have changed since.
	Made map[int]map[string]any `json:"made,omitempty"`
	// Uses is what the provider said of the last use of replaced versions.
	Uses map[int]*useRecord `json:"uses,omitempty"`
	// HashKey keys Hashes.
	HashKey []byte `json:"hash_key,omitempty"`

	LastRotation time.Time `json:"last_rotation,omitzero"`
	// ScheduleFrom is what the next rotation is counted from.
	ScheduleFrom time.Time `json:"schedule_from,omitzero"`
	// Requested is when a rotation asked for by hand may start; zero: none is.
	Requested time.Time `json:"requested,omitzero"`

	// Reminded is when somebody was last told that the key must be replaced by hand.
	Reminded time.Time `json:"reminded,omitzero"`

	// Sweep is when to look next for keys at the provider that carry this key's
	// names and are none of its versions; zero: not.
	Sweep time.Time `json:"sweep,omitzero"`
	// SweepFrom is the lowest number whose keys at the provider may be ended where no
	// version is known: one that is forgotten before it may have been left alive.
	SweepFrom int `json:"sweep_from,omitempty"`
	// Tried is the highest number for which the provider was asked in vain, Asked when
	// it was last asked for a key: its list may show late what came of that.
	Tried int       `json:"tried,omitempty"`
	Asked time.Time `json:"asked,omitzero"`

	// Wait is what the next try of a rotation waits for, MintFailure why the last
	// one did not succeed.
	Wait        *lifecycle.Wait    `json:"wait,omitempty"`
	MintFailure *lifecycle.Failure `json:"mint_failure,omitempty"`
	// RevokeFailure was written by 0.1; see adopt.
	RevokeFailure *lifecycle.Failure `json:"revoke_failure,omitempty"`
	Uncertain     *uncertain         `json:"uncertain,omitempty"`
	Deleting      *deletion          `json:"deleting,omitempty"`
	// Refusal is that the current version is not accepted; see check.go.
	Refusal *lifecycle.Refusal `json:"refusal,omitempty"`

	// newer is the format of a later release that has written the record, which
	// is read as far as it goes, and never written, rotated or ended.
	newer int
}

// adopt turns what 0.1 has written into what is written today: its failures said
// by their step what was waited for, and one stood for all revocations.
func (r *keyRecord) adopt() {
	if f := r.MintFailure; f != nil && !f.RetryAt.IsZero() {
		why := map[lifecycle.Step]lifecycle.Why{lifecycle.StepTest: lifecycle.WhyTest, lifecycle.StepRecover: lifecycle.WhyList, "spread": lifecycle.WhySpread}[f.Step]
		if why == lifecycle.WhyNever {
			why = lifecycle.WhyRetry
		}
		r.Wait = &lifecycle.Wait{Why: why, Until: f.RetryAt}
		if f.RetryAt = (time.Time{}); why == lifecycle.WhySpread || why == lifecycle.WhyList && f.Kind == provider.KindUncertain.String() {
			r.MintFailure = nil // nothing has failed
		}
	}
	if f := r.RevokeFailure; f != nil {
		for v := range r.Life.Living() {
			if !v.RevokeAt.IsZero() && !v.RevokeAt.After(f.At) {
				v.Ending = &lifecycle.Ending{Failure: f, Until: f.RetryAt}
			}
		}
		r.RevokeFailure = nil
	}
	if r.SweepFrom == 0 { // it did not say how the versions had ended that it forgot
		r.SweepFrom = r.Life.Last + 1
		if !r.neverHad() {
			r.SweepFrom = r.Life.Versions[0].Number
		}
	}
}

// bound tells whether the next rotation waits for what readers were promised: its birth
// ends the current version, and that is not known to be dead already. In doubt it waits
// for a look; where nobody can look it does not wait.
func (r *keyRecord) bound(caps provider.Capabilities) bool {
	cur := r.Life.Current()
	return cur != nil && !caps.Overlap &&
		(cur.Doubted.IsZero() || caps.Test && (r.Refusal == nil || r.Refusal.Version != cur.Number))
}

// subject is what of the record decides when it is rotated.
// promised is until when readers were promised the current version, where something else
// than the record was changed since; it counts where the record is bound.
func (r *keyRecord) subject(limit int, bound bool, promised time.Time) lifecycle.Subject {
	s := lifecycle.Subject{Key: &r.Life, UID: r.UID, Created: r.Created, From: r.ScheduleFrom, Requested: r.Requested, Deleting: r.Deleting != nil,
		Wait: r.Wait, Free: r.nextRevocation(), Limit: limit}
	if s.From.IsZero() {
		s.From = r.LastRotation
	}
	if bound {
		s.Promised = later(r.Life.Current().PromisedUntil, promised)
		for v := range r.Life.All() {
			if v.State == lifecycle.Grace && !v.Compromised && !v.Found && !v.Keep {
				s.Promised = later(s.Promised, v.RevokeAt) // it would be ended, too
			}
		}
	}
	return s
}

// notBeyond takes the times of the record back to what they can be at now, and
// tells whether any was beyond. made is what a version that is begun at now counts
// as made: what was made after a campaign stays so. The record must be a clone.
func (r *keyRecord) notBeyond(now, made time.Time, cfg *mountConfig) (changed bool) {
	limit := func(at *time.Time, most time.Duration) {
		if last := now.Add(most); at.After(last.Add(lifecycle.ClockSlack)) {
			*at, changed = last, true
		}
	}
	limit(&r.Created, 0)
	limit(&r.LastRotation, 0)
	limit(&r.ScheduleFrom, 0)
	limit(&r.Reminded, 0)
	limit(&r.Sweep, 2*sweepEvery)
	limit(&r.Asked, 0)
	if d := r.Deleting; d != nil {
		at := *d
		limit(&at.At, 0)
		limit(&at.LookAt, lateList)
		r.Deleting = &at
	}
	if f := r.Refusal; f != nil {
		at := *f
		limit(&at.First, 0)
		limit(&at.Dead, 0)
		r.Refusal = &at
	}
	if f, w := r.MintFailure, r.Wait; f != nil && f.At.After(now.Add(lifecycle.ClockSlack)) {
		// What it waits for was counted from then.
		if w != nil {
			r.Wait = &lifecycle.Wait{Why: w.Why, Until: now.Add(max(w.Until.Sub(f.At), 0))}
		}
		failed := *f
		failed.At, r.MintFailure, changed = now, &failed, true
	}
	if w := r.Wait; w != nil {
		until := w.Until
		if limit(&until, max(maxRetry, cfg.spreadOf(&r.Def))); changed {
			r.Wait = &lifecycle.Wait{Why: w.Why, Until: until}
		}
	}
	for v := range r.Life.Living() {
		limit(&v.Created, made.Sub(now))
		limit(&v.Promoted, 0)
		limit(&v.Retired, 0)
		limit(&v.Doubted, 0)
		limit(&v.PromisedUntil, lifecycle.MaxGrace) // by whatever policy there was
		switch {
		case v.Compromised:
			limit(&v.LastRead, maxNewFirst)
			limit(&v.RevokeAt, max(v.LastRead.Sub(now), 0))
		case v.Found || r.Deleting != nil:
			limit(&v.RevokeAt, lifecycle.MaxGrace)
		default:
			limit(&v.RevokeAt, max(v.Grace, cfg.graceOf(&r.Def), v.PromisedUntil.Sub(now)))
		}
		if e := v.Ending; e != nil {
			at := *e
			from := e.Asked // what it waits for was counted from then
			if f := e.Failure; f != nil {
				if from = f.At; from.After(now.Add(lifecycle.ClockSlack)) {
					failed := *f
					failed.At, at.Failure = now, &failed
				}
			}
			if from.After(now.Add(lifecycle.ClockSlack)) {
				if changed = true; !e.Until.IsZero() {
					at.Until = now.Add(max(e.Until.Sub(from), 0))
				}
			}
			limit(&at.Asked, 0)
			limit(&at.Until, maxRetry)
			v.Ending = &at
		}
	}
	if cur := r.Life.Current(); cur != nil {
		limit(&r.Requested, max(cur.Grace, cfg.periodOf(&r.Def)))
	}
	return changed
}

// parameters are those that a version was made with.
func (r *keyRecord) parameters(version int) map[string]any {
	if made, ok := r.Made[version]; ok {
		return made
	}
	return r.Def.Parameters
}

// keepParameters notes, before they change, with which parameters the versions
// that are alive were made: by them they are ended.
func (r *keyRecord) keepParameters() {
	for v := range r.Life.All() {
		if _, have := r.Made[v.Number]; have || !v.Alive() {
			continue
		}
		if r.Made == nil {
			r.Made = map[int]map[string]any{}
		}
		r.Made[v.Number] = r.Def.Parameters
	}
}

// compromise marks what was made no later than until as known to others, and
// gives the numbers of what it has marked; see lifecycle.Key. The record must be a
// clone.
func (r *keyRecord) compromise(until, now, last time.Time) []int {
	numbers := r.Life.Compromise(until, now, last)
	if len(numbers) > 0 {
		r.Wait, r.MintFailure, r.Requested = nil, nil, time.Time{}
	}
	return numbers
}

// keyDef is what an operator writes to keys/NAME. Zero values mean the mount's
// default.
type keyDef struct {
	Provider         string            `json:"provider"`
	Parameters       map[string]any    `json:"parameters,omitempty"`
	RotationPeriod   time.Duration     `json:"rotation_period,omitempty"`
	RotationSchedule string            `json:"rotation_schedule,omitempty"`
	TimeZone         string            `json:"time_zone,omitempty"`
	RotationWindow   time.Duration     `json:"rotation_window,omitempty"`
	GracePeriod      time.Duration     `json:"grace_period,omitempty"`
	MaxVersions      int               `json:"max_versions,omitempty"`
	Disabled         bool              `json:"disable_automated_rotation,omitempty"`
	HashOld          bool              `json:"hash_old_versions,omitempty"`
	SpreadGroup      string            `json:"spread_group,omitempty"`
	SpreadDistance   time.Duration     `json:"spread_distance,omitempty"`
	Metadata         map[string]string `json:"custom_metadata,omitempty"`
	// Written is what a read shows in place of the fields above where it was written in another form.
	Written map[string]any `json:"written,omitempty"`
}

// uncertain is a mint of which nobody can tell whether it took effect.
type uncertain struct {
	Name    string    `json:"name"` // at the provider
	Version int       `json:"version"`
	Since   time.Time `json:"since"`
	Message string    `json:"message"`
}

// deletion is a key whose definition is gone while its versions live on.
type deletion struct {
	At time.Time `json:"at"`
	// LookAt is when the provider is asked again what it may have left; zero: at once.
	LookAt time.Time `json:"look_at,omitzero"`
}

func (r *keyRecord) clone() *keyRecord {
	c := *r
	c.Life = r.Life.Clone()
	c.Values = maps.Clone(r.Values)
	c.Hashes = maps.Clone(r.Hashes)
	c.Made, c.Uses = maps.Clone(r.Made), maps.Clone(r.Uses) // what they point to never changes, as with all pointers
	return &c
}

// neverHad tells that no version of the key has ever been there.
func (r *keyRecord) neverHad() bool { return len(r.Life.Versions) == 0 }

// setValues keeps a version's values; the record must be a clone.
func (r *keyRecord) setValues(version int, values map[string]string) {
	if r.Values == nil {
		r.Values = map[int]map[string]string{}
	}
	r.Values[version] = maps.Clone(values)
}

// tidy drops what no longer has a use: values of dead versions and more of
// them than are kept as history.
func (r *keyRecord) tidy(maxVersions int) {
	old := r.Life.Clone()
	for _, n := range r.Life.Prune(maxVersions) {
		if how := old.Find(n).Evidence; how != lifecycle.ByList && how != lifecycle.ByTest && how != lifecycle.ByAnswer {
			r.SweepFrom = max(r.SweepFrom, n+1)
		}
	}
	dead := func(n int) bool { v := r.Life.Find(n); return v == nil || !v.Alive() }
	maps.DeleteFunc(r.Values, func(n int, _ map[string]string) bool { return dead(n) })
	maps.DeleteFunc(r.Hashes, func(n int, _ []byte) bool { return dead(n) })
	maps.DeleteFunc(r.Made, func(n int, _ map[string]any) bool { return dead(n) })
	maps.DeleteFunc(r.Uses, func(n int, _ *useRecord) bool {
		v := r.Life.Find(n)
		return v == nil || v.State == lifecycle.Current
	})
	if cur := r.Life.Current(); r.Refusal != nil && (cur == nil || cur.Number != r.Refusal.Version) {
		r.Refusal = nil
	}
}

// providerKey is a version as providers see it.
func (r *keyRecord) providerKey(v *lifecycle.Version) provider.Key {
	return provider.Key{ID: v.ProviderID, Name: v.Name, Values: r.Values[v.Number], Expires: v.Expires}
}

// providerRecord is a provider as it is stored.
type providerRecord struct {
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Settings   map[string]any    `json:"settings,omitempty"`
	Credential map[string]string `json:"credential,omitempty"`
	// CredentialKey names a key of this mount whose values are the credential.
	CredentialKey string `json:"credential_key,omitempty"`
	// Account is what the operator calls the account at the service; see accountOf.
	Account string `json:"account,omitempty"`
	// MaxPerMinute caps the rotations that start by themselves; 0: no cap.
	MaxPerMinute int       `json:"max_rotations_per_minute"`
	Updated      time.Time `json:"updated"`
	// Identity counts the changes of where and as whom it asks; Past is what it
	// was for versions that were made before, by that number.
	Identity int                   `json:"identity,omitempty"`
	Past     map[int]*pastIdentity `json:"past,omitempty"`
	// OverlapUntil is when the service ceased to let two keys live at once. Who
	// has read before was promised that the key outlives its successor's birth.
	OverlapUntil time.Time `json:"overlap_until,omitzero"`
	// OverlapFrom is when it began to. Who has read before was promised the key until the
	// rotation that was due then.
	OverlapFrom time.Time `json:"overlap_from,omitzero"`

	unreadable error // it is in storage, and this release cannot read it
}

// pastIdentity is where, and as whom, a provider asked before a change. A
// credential is there where it changed together with the rest.
type pastIdentity struct {
	Settings      map[string]any    `json:"settings,omitempty"`
	Credential    map[string]string `json:"credential,omitempty"`
	CredentialKey string            `json:"credential_key,omitempty"`
}

const intentKind = "mint"

// intent says, before a provider is asked for a key, under which name it will
// be there afterwards.
type intent struct {
	Format  int       `json:"format"`
	Key     string    `json:"key"`
	UID     string    `json:"uid"`
	Name    string    `json:"name"`
	Version int       `json:"version"`
	Started time.Time `json:"started"`
	// Known are the ids at the provider beforehand, where names are not kept there.
	Known []string `json:"known,omitempty"`
	// Parameters and Identity are what the key is made with.
	Parameters map[string]any `json:"parameters,omitempty"`
	Identity   int            `json:"identity,omitempty"`

	id string
	// seen is when this process came to know of it, by the monotonic clock: the
	// clock of the one that wrote it may have been another. read: from storage,
	// where it may have been closed since; restored: from storage that was.
	seen time.Duration
	// asked: the provider was asked for the key, as far as this process knows.
	asked          bool
	read, restored bool
}

// metaRecord identifies the mount.
type metaRecord struct {
	Mount string `json:"mount"` // 8 characters; part of the names at the provider
	// Installation and Epoch are those under which the storage was last in use.
	Installation string `json:"installation,omitempty"`
	Epoch        int64  `json:"epoch,omitempty"`
}

type clockRecord struct {
	Last time.Time `json:"last"`
}

// normalizeJSON makes data what it will be after a round trip through storage,
// so that providers see the same types before and after a restart.
func normalizeJSON(data map[string]any) (map[string]any, error) {
	if len(data) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("not representable as JSON: %w", err)
	}
	var out map[string]any
	if err := decodeJSON(raw, &out); err != nil {
		return nil, fmt.Errorf("not representable as JSON: %w", err)
	}
	return out, nil
}
