package apikeys

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

// service is a fake of a remote service that issues keys. It outlives the
// engine, as a real one does.
type service struct {
	mu     sync.Mutex
	clock  *testClock
	caps   provider.Capabilities
	keys   map[string]*serviceKey
	count  int
	calls  []string
	fault  func(op string, after bool) error // called before and after each effect
	killed []string
	// strict: what is asked with a credential that does not work is refused.
	strict bool
	// scoped: keys of another scope (a parameter) are not there.
	scoped bool
	// build is asked before a client is made, answer may change what Create says.
	build  func() error
	answer func(*provider.Key)
	listed func([]provider.RemoteKey) []provider.RemoteKey // what List shows instead
	builds int
}

// refuses answers a request whose credential does not work.
func (c *serviceClient) refuses(op string) error {
	if !c.s.strict || c.s.worksLocked(c.credential[provider.PrimaryValue]) {
		return nil
	}
	return &provider.Error{Op: op, Kind: provider.KindUnauthorized, Status: 401, Msg: "the credential is refused"}
}

type serviceKey struct {
	id, name, value string
	scope           string
	created         time.Time
	alive           bool
	expires         time.Time
	used            time.Time
}

func newService(clock *testClock, caps provider.Capabilities) *service {
	return &service{clock: clock, caps: caps, keys: map[string]*serviceKey{}}
}

// remoteCaps is a service that can do everything.
func remoteCaps() provider.Capabilities {
	return provider.Capabilities{Mint: true, List: true, Named: true, Test: true, Revoke: true, LastUsed: true, Overlap: true}
}

func (s *service) factory(cfg provider.Config) (provider.Provider, error) {
	if cfg.Settings["broken"] == true {
		return nil, errors.New("settings: broken is not allowed")
	}
	s.mu.Lock()
	build := s.build
	s.builds++
	s.mu.Unlock()
	if build != nil {
		if err := build(); err != nil {
			return nil, err
		}
	}
	return &serviceClient{s: s, credential: cfg.Credential, host: cfg.Settings["base_url"], caps: s.caps}, nil
}

func (s *service) hook(op string, after bool) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(op, after)
}

// alive lists the ids of the keys that work.
func (s *service) alive() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for id, k := range s.keys {
		if k.alive {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// works tells whether the service accepts a key.
func (s *service) works(value string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worksLocked(value)
}

func (s *service) worksLocked(value string) bool {
	for _, k := range s.keys {
		if k.alive && k.value == value {
			return true
		}
	}
	return false
}

func (s *service) setFault(f func(op string, after bool) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

type serviceClient struct {
	s          *service
	credential map[string]string
	host       any
	caps       provider.Capabilities // as they were when it was built
}

// sees tells whether a key is one of the account that is asked.
func (c *serviceClient) sees(k *serviceKey, params map[string]any) bool {
	return !c.s.scoped || fmt.Sprint(params["scope"], c.host) == k.scope
}

func (c *serviceClient) Capabilities() provider.Capabilities { return c.caps }

func (c *serviceClient) ValidateParameters(params map[string]any) error {
	for name := range params {
		if name != "scope" {
			return fmt.Errorf("parameters: unknown field %q", name)
		}
	}
	return nil
}

func (c *serviceClient) Create(_ context.Context, req provider.CreateRequest) (provider.Key, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "create "+req.Name)
	if err := provider.CheckName(req.Name); err != nil {
		return provider.Key{}, &provider.Error{Op: "create", Kind: provider.KindRejected, Msg: err.Error()}
	}
	if err := errors.Join(c.refuses("create"), s.hook("create", false)); err != nil {
		return provider.Key{}, err
	}
	alive := 0
	for _, k := range s.keys {
		if k.alive {
			alive++
		}
	}
	if s.caps.MaxKeys > 0 && alive >= s.caps.MaxKeys {
		return provider.Key{}, &provider.Error{Op: "create", Kind: provider.KindRejected, Msg: "too many keys"}
	}
	if !s.caps.Overlap && req.Current != nil {
		if k := s.keys[req.Current.ID]; k != nil {
			k.alive = false
		}
	}
	s.count++
	id := fmt.Sprintf("id-%d", s.count)
	k := &serviceKey{id: id, name: req.Name, value: fmt.Sprintf("value-%d-of-%s", s.count, req.Name), created: s.clock.Wall(), alive: true, scope: fmt.Sprint(req.Parameters["scope"], c.host)}
	s.keys[id] = k
	if err := s.hook("create", true); err != nil {
		return provider.Key{}, err
	}
	key := provider.Key{ID: id, Name: k.name, Values: map[string]string{provider.PrimaryValue: k.value}, Expires: k.expires}
	if s.answer != nil {
		s.answer(&key)
	}
	return key, nil
}

func (c *serviceClient) List(_ context.Context, params map[string]any, prefix string) ([]provider.RemoteKey, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "list "+prefix)
	if err := errors.Join(c.refuses("list"), s.hook("list", false)); err != nil {
		return nil, err
	}
	var out []provider.RemoteKey
	for _, k := range s.keys {
		if !k.alive || !c.sees(k, params) || (s.caps.Named && !strings.HasPrefix(k.name, prefix)) {
			continue
		}
		r := provider.RemoteKey{ID: k.id, Created: k.created}
		if s.caps.Named {
			r.Name = k.name
		}
		out = append(out, r)
	}
	if s.listed != nil {
		out = s.listed(out)
	}
	return out, s.hook("list", true)
}

func (c *serviceClient) Test(_ context.Context, _ map[string]any, key provider.Key) error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "test "+key.ID)
	if err := s.hook("test", false); err != nil {
		return err
	}
	if !s.worksLocked(key.Values[provider.PrimaryValue]) {
		return &provider.Error{Op: "test", Kind: provider.KindUnauthorized, Status: 401, Msg: "the key is refused"}
	}
	return s.hook("test", true)
}

func (c *serviceClient) Revoke(_ context.Context, params map[string]any, id string) error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "revoke "+id)
	if err := errors.Join(c.refuses("revoke"), s.hook("revoke", false)); err != nil {
		return err
	}
	if k := s.keys[id]; k != nil && c.sees(k, params) {
		k.alive = false
		s.killed = append(s.killed, id)
	}
	return s.hook("revoke", true)
}

func (c *serviceClient) LastUsed(_ context.Context, _ map[string]any, id string) (time.Time, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "last_used "+id)
	if err := s.hook("last_used", false); err != nil {
		return time.Time{}, err
	}
	if k := s.keys[id]; k != nil {
		return k.used, s.hook("last_used", true)
	}
	return time.Time{}, s.hook("last_used", true)
}
