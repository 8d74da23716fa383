// Package liar plays services that issue keys and do otherwise than they say: for
// the engine's own tests as a provider, and over HTTP for a real Vault. It knows
// what is really alive, and outlives every engine. It is no model of any service,
// and in no program.
package liar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"strongroom.example/plugin/provider"
)

// Lies are what a service does otherwise than it says, as plain data. The zero
// value is an honest service.
type Lies struct {
	NoAnswer   bool          // create takes effect, and its answer never comes
	AfterMade  provider.Kind // create takes effect, and is answered as if it had not: 429, 503, 401, 409
	Twin       bool          // a proxy repeats the create: two keys, one answer
	OldKey     bool          // create answers with the key before, and makes none
	InPlace    bool          // create changes the value of the key before, under its id
	SameID     bool          // every key has the id of the first
	ListLag    time.Duration // how long a new key is not listed
	HalfLists  bool          // every second list lacks every second key: an empty page in the middle
	ClockOff   time.Duration // of created times in its list: another clock, or no zone
	DateOnly   bool          // created times are dates
	NameCut    int           // names are cut to so many bytes; 0: not
	Renamed    bool          // names are listed in capitals
	OtherIDs   bool          // ids are listed in another form than create tells
	Spread     time.Duration // how long a new key is refused
	NoEffect   bool          // a revocation is answered well, and ends nothing
	Late       time.Duration // a revocation ends the key so much later
	KillsOther bool          // a revocation ends another key, too
	NoRevoke   bool          // a revocation is refused: 405
	Life       time.Duration // keys end by themselves, and say so; negative: before they were made
	SilentLife time.Duration // keys end by themselves, and say nothing
	Limit      int           // keys that may be alive in the account; 0: any number
	Rival      bool          // with each create somebody else makes a key, too
}

// Key is a key as it really is.
type Key struct {
	ID, Name, Value string
	Asked           string // the name that was asked for; empty: it is somebody else's
	Under           Lies   // what it was asked for under
	Created, Told   time.Time
	Ends            time.Time // by itself; zero: never
	Ended           time.Time // when the engine has ended it; zero: it has not
	Alive           bool
	ending          bool // its revocation was taken, and has no effect yet
	ByEngine        bool // the engine has ended it: by its id, or by making another where that ends it
}

// Service is a service that lies. It outlives the engine, and knows the truth.
type Service struct {
	now  func() time.Time // the service's own time, which nobody sets
	caps provider.Capabilities

	mu      sync.Mutex
	lies    Lies
	keys    []*Key
	count   int
	lists   int
	pending []func(now time.Time) bool // late effects; true: done
	creates []made
	calls   []string
	touched []string // revocations of keys that are not the engine's
	point   func(op string, after bool) error
}

// New makes a service with three keys that are not the engine's. now is its own time,
// which nobody sets.
func New(caps provider.Capabilities, l Lies, now func() time.Time) *Service {
	s := &Service{now: now, caps: caps, lies: l}
	for i := range 2 {
		s.foreign(fmt.Sprintf("somebody-elses-%d", i))
	}
	// Another Vault has keys here: same form of names, another mount.
	s.foreign("sr-ffffffff-0123456789ab-local-1-abcdef")
	return s
}

// made is a create, whatever came of it.
type made struct {
	at   time.Time
	name string
}

// Factory is the service as a provider.
func (s *Service) Factory(provider.Config) (provider.Provider, error) { return s, nil }

// foreign makes a key that the engine has nothing to do with.
func (s *Service) foreign(name string) {
	s.count++
	s.keys = append(s.keys, &Key{
		ID: fmt.Sprintf("foreign-%d", s.count), Name: name, Value: fmt.Sprintf("foreign-value-%d", s.count),
		Created: s.now(), Alive: true,
	})
}

// SetLies is what it does from now on.
func (s *Service) SetLies(l Lies) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lies = l
}

// SetPoint has f asked before each effect, and between the effect and its answer: what
// it gives is what the caller of the provider sees. It is not asked over HTTP.
func (s *Service) SetPoint(f func(op string, after bool) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.point = f
}

// SetCapabilities is what it can do from now on.
func (s *Service) SetCapabilities(caps provider.Capabilities) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.caps = caps
}

// settle lets what has become due happen: late effects, and ends of lives.
func (s *Service) settle() {
	now := s.now()
	s.pending = slices.DeleteFunc(s.pending, func(f func(time.Time) bool) bool { return f(now) })
	for _, k := range s.keys {
		if !k.Ends.IsZero() && !now.Before(k.Ends) {
			k.Alive = false
		}
	}
}

func (s *Service) hit(op string, after bool) error {
	if s.point == nil {
		return nil
	}
	return s.point(op, after)
}

func (s *Service) byID(id string) *Key {
	id = strings.TrimPrefix(id, "keys/")
	for i := len(s.keys) - 1; i >= 0; i-- {
		if s.keys[i].ID == id {
			return s.keys[i]
		}
	}
	return nil
}

// Identity is the part of a name that all names of a key of the engine's begin with.
func Identity(name string) string { return name[:min(len(name), len("sr-MMMMMMMM-KKKKKKKKKKKK-"))] }

// last is the newest of the engine's keys that were asked for under a name of
// this key's, or of any where that is empty.
func (s *Service) last(name string) *Key {
	for i := len(s.keys) - 1; i >= 0; i-- {
		if k := s.keys[i]; k.Asked != "" && strings.HasPrefix(k.Asked, Identity(name)) {
			return k
		}
	}
	return nil
}

// Capabilities are what it can do.
func (s *Service) Capabilities() provider.Capabilities {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caps
}

// ValidateParameters takes anything.
func (s *Service) ValidateParameters(map[string]any) error { return nil }

// Create makes a key, and lies about it.
func (s *Service) Create(_ context.Context, req provider.CreateRequest) (provider.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if err := s.hit("create", false); err != nil {
		return provider.Key{}, err
	}
	var before []*Key
	if req.Current != nil {
		before = []*Key{s.byID(req.Current.ID)}
	}
	k := s.create(req.Name, before)
	if k == nil {
		return provider.Key{}, &provider.Error{Op: "create", Kind: provider.KindRejected, Status: 422, Msg: "too many keys"}
	}
	if err := s.hit("create", true); err != nil {
		return provider.Key{}, err
	}
	switch {
	case s.lies.NoAnswer:
		return provider.Key{}, &provider.Error{Op: "create", Kind: provider.KindUncertain, Msg: "no answer in time"}
	case s.lies.AfterMade != 0:
		return provider.Key{}, &provider.Error{Op: "create", Kind: s.lies.AfterMade, Status: 429, Msg: "not made, it says"}
	}
	return provider.Key{ID: k.ID, Name: req.Name, Values: map[string]string{provider.PrimaryValue: k.Value}, Expires: k.Told}, nil
}

// create is a create's effect; nil: there is no place for another key. before are the
// keys that a service without overlap ends.
func (s *Service) create(name string, before []*Key) *Key {
	now := s.now()
	s.creates = append(s.creates, made{now, name})
	s.calls = append(s.calls, "create "+name)
	if s.lies.Rival {
		s.foreign("")
	}
	if s.lies.Limit > 0 && s.aliveCount() >= s.lies.Limit {
		return nil
	}
	for _, k := range before {
		if !s.caps.Overlap && k != nil && k.Alive {
			k.Alive, k.ByEngine, k.Ended = false, true, now
		}
	}
	k := s.make(name, now)
	if s.lies.Twin {
		s.make(name, now)
	}
	return k
}

func (s *Service) make(name string, now time.Time) *Key {
	old := s.last(name)
	if old != nil && old.Alive && !old.ending && s.lies.OldKey {
		return old
	}
	s.count++
	k := &Key{ID: fmt.Sprintf("id-%d", s.count), Name: name, Asked: name, Under: s.lies, Created: now, Alive: true,
		Value: fmt.Sprintf("value-%d", s.count)}
	if s.lies.NameCut > 0 {
		k.Name = name[:min(len(name), s.lies.NameCut)]
	}
	if s.lies.Renamed {
		k.Name = strings.ToUpper(name)
	}
	switch {
	case s.lies.InPlace && old != nil && old.Alive:
		// What readers have is dead; no call of the engine's could have known.
		old.Alive = false
		k.ID, k.Name = old.ID, old.Name
	case s.lies.SameID && old != nil:
		k.ID = old.ID
	}
	if s.lies.Life != 0 {
		k.Told = now.Add(s.lies.Life)
		k.Ends = k.Told
		if s.lies.Life < 0 {
			k.Ends = now.Add(30 * 24 * time.Hour) // its clock is behind: the key lives
		}
	}
	if s.lies.SilentLife != 0 {
		k.Ends = now.Add(s.lies.SilentLife)
	}
	s.keys = append(s.keys, k)
	return k
}

// List shows keys, or not.
func (s *Service) List(_ context.Context, _ map[string]any, prefix string) ([]provider.RemoteKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if err := s.hit("list", false); err != nil {
		return nil, err
	}
	s.calls = append(s.calls, "list "+prefix)
	s.lists++
	now := s.now()
	var out []provider.RemoteKey
	for i, k := range s.keys {
		switch {
		case !k.Alive, s.caps.Named && !strings.HasPrefix(k.Name, prefix):
			continue
		case k.Asked != "" && now.Before(k.Created.Add(s.lies.ListLag)):
			continue
		case s.lies.HalfLists && s.lists%2 == 1 && i%2 == 1:
			continue
		}
		r := provider.RemoteKey{ID: k.ID, Created: k.Created.Add(s.lies.ClockOff), Expires: k.Told}
		if s.lies.DateOnly {
			r.Created = r.Created.Truncate(24 * time.Hour)
		}
		if s.caps.Named {
			r.Name = k.Name
		}
		if s.lies.OtherIDs {
			r.ID = "keys/" + k.ID
		}
		out = append(out, r)
	}
	return out, s.hit("list", true)
}

// Test tells whether a value works.
func (s *Service) Test(_ context.Context, _ map[string]any, key provider.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if err := s.hit("test", false); err != nil {
		return err
	}
	s.calls = append(s.calls, "test "+key.ID)
	for _, k := range s.keys {
		if k.Alive && k.Value == key.Values[provider.PrimaryValue] && !s.now().Before(k.Created.Add(s.lies.Spread)) {
			return s.hit("test", true)
		}
	}
	return &provider.Error{Op: "test", Kind: provider.KindUnauthorized, Status: 401, Msg: "the key is refused"}
}

// Revoke ends a key, or says so.
func (s *Service) Revoke(_ context.Context, _ map[string]any, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if err := s.hit("revoke", false); err != nil {
		return err
	}
	s.calls = append(s.calls, "revoke "+id)
	if s.lies.NoRevoke {
		return &provider.Error{Op: "revoke", Kind: provider.KindRejected, Status: 405, Msg: "method not allowed"}
	}
	k := s.byID(id)
	if k != nil && k.Asked == "" {
		s.touched = append(s.touched, id)
	}
	there := len(s.keys)
	end := func(now time.Time) bool {
		for i, o := range s.keys { // whoever has this id, also who was given it since
			if o.ID == strings.TrimPrefix(id, "keys/") && o.Alive {
				o.Alive, o.ByEngine, o.Ended = false, i < there, now
			}
		}
		return true
	}
	switch {
	case k == nil || s.lies.NoEffect:
	case s.lies.Late > 0:
		at := s.now().Add(s.lies.Late)
		k.ending = true
		s.pending = append(s.pending, func(now time.Time) bool { return !now.Before(at) && end(now) })
	default:
		end(s.now())
	}
	if s.lies.KillsOther {
		if o := s.last(""); o != nil && o.ID != id {
			o.Alive = false
		}
	}
	return s.hit("revoke", true)
}

// LastUsed is not known.
func (s *Service) LastUsed(context.Context, map[string]any, string) (time.Time, error) {
	return time.Time{}, errors.New("not asked for")
}

func (s *Service) aliveCount() int {
	n := 0
	for _, k := range s.keys {
		if k.Alive {
			n++
		}
	}
	return n
}

// Truth is a key by its value, as it is now; nil: there never was one.
func (s *Service) Truth(value string) *Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	for i := len(s.keys) - 1; i >= 0; i-- {
		if s.keys[i].Value == value {
			k := *s.keys[i]
			return &k
		}
	}
	return nil
}

// MintsAnHour is the most creates in any hour, and the most of one key.
func (s *Service) MintsAnHour() (all, ofOne int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := map[string][]time.Time{}
	var at []time.Time
	for _, c := range s.creates {
		at, of[Identity(c.name)] = append(at, c.at), append(of[Identity(c.name)], c.at)
	}
	for _, one := range of {
		ofOne = max(ofOne, mostInAnHour(one))
	}
	return mostInAnHour(at), ofOne
}

func mostInAnHour(times []time.Time) (most int) {
	from := 0
	for i, at := range times {
		for at.Sub(times[from]) >= time.Hour {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// Creates is how often a key was asked for.
func (s *Service) Creates() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.creates) }

// Calls are the calls so far: op and name, or id.
func (s *Service) Calls() []string { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.calls) }

// Touched are the ids of keys of others that were revoked.
func (s *Service) Touched() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.touched)
}

// Keys are all keys that ever were, as they are now.
func (s *Service) Keys() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	out := make([]Key, len(s.keys))
	for i, k := range s.keys {
		out[i] = *k
	}
	return out
}

// ByHand makes a key as a person does who brings it to the engine.
func (s *Service) ByHand() Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	k := &Key{ID: fmt.Sprintf("id-%d", s.count), Name: fmt.Sprintf("by hand %d", s.count), Asked: "by hand", Value: fmt.Sprintf("value-%d", s.count),
		Created: s.now(), Alive: true}
	s.keys = append(s.keys, k)
	return *k
}

// Disown makes those keys somebody else's: the engine need not know them.
func (s *Service) Disown(which func(Key) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if which(*k) {
			k.Asked = ""
		}
	}
}

var _ provider.Provider = (*Service)(nil)
