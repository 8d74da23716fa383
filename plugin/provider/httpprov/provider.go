// Package httpprov issues keys at any service with an HTTP API, out of
// declared requests: how a key is created, listed, tested and revoked, and
// where the answers hold what the engine needs. Presets for known services lie
// in config/providers.
//
// It is not a scripting language: a request has references to fill in and
// nothing else, and every answer is read by JSONPath (RFC 9535).
package httpprov

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
)

// Provider performs the declared requests. It keeps no state but an access
// token, where auth is oauth2.
type Provider struct {
	settings
	credential map[string]string
	now        func() time.Time
}

var (
	_ provider.Provider  = (*Provider)(nil)
	_ provider.DryRunner = (*Provider)(nil)
	_ provider.Factory   = New

	_ provider.Examiner     = (*Provider)(nil)
	_ provider.NamedRevoker = (*Provider)(nil)
	_ provider.Destined     = (*Provider)(nil)
	_ provider.Inspector    = (*Provider)(nil)
	_ provider.Pooler       = (*Provider)(nil)
)

// New builds a provider out of cfg.Settings, whose fields docs/providers.md
// describes. Faults come all at once, each with the path of its field.
func New(cfg provider.Config) (provider.Provider, error) {
	p, err := Build(cfg, fields.New("settings", cfg.Settings), true)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Build is New for other types of providers, which share the requests: m is
// cfg.Settings, of which the caller has read what only it knows. Without mint,
// create is refused.
func Build(cfg provider.Config, m *fields.Map, mint bool) (*Provider, error) {
	p := &Provider{settings: readSettings(cfg, m, mint), credential: maps.Clone(cfg.Credential), now: cfg.Now}
	for name, v := range cfg.Credential {
		if hasControl(v) {
			m.Fail("", "the credential %.60q holds a control character, perhaps a line break at its end", name)
		}
	}
	if cfg.Now == nil {
		m.Fail("", "no clock was given")
	}
	if err := m.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// Capabilities follow from what is declared.
func (p *Provider) Capabilities() provider.Capabilities {
	tellsEnd := p.create != nil && (p.create.declared() || p.create.lifetime > 0 || p.create.lifetimeOf != "")
	return provider.Capabilities{
		Mint:     p.create != nil,
		List:     p.list != nil,
		Named:    p.list != nil && p.list.name != nil && p.create != nil && p.create.mentions(refName),
		Test:     p.test != nil,
		Revoke:   p.revoke != nil,
		LastUsed: p.lastUsed != nil || p.list != nil && p.list.lastUsed != nil,
		Overlap:  p.overlap,
		MaxKeys:  p.maxKeys,
		Expires:  !tellsEnd && p.list != nil && p.list.expires != nil || p.test != nil && p.test.declared(),

		FromCurrent: p.create != nil && p.create.replaces,
	}
}

// Pool is what the keys of one list share: the parameters that the list names or,
// where there is none, the URL under which keys are made.
func (p *Provider) Pool(params map[string]any) string {
	s, err := resolve(p.params, params)
	if err != nil {
		return ""
	}
	var templates []template
	switch {
	case p.list != nil:
		templates = p.list.allTemplates()
	case p.create != nil:
		templates = []template{p.create.url}
	}
	pool := map[string]any{}
	for _, t := range templates {
		for _, ref := range t.refs() {
			if v, ok := s[ref]; ok {
				pool[ref] = v
			}
		}
	}
	if len(pool) == 0 {
		return ""
	}
	text, _ := json.Marshal(pool) // what was read as JSON
	return string(text)
}

// mentions tells whether the request carries ref anywhere.
func (r *request) mentions(ref string) bool {
	return slices.ContainsFunc(r.allTemplates(), func(t template) bool { return slices.Contains(t.refs(), ref) })
}

func (r *request) allTemplates() []template {
	all := append(r.body.json.templates(), r.url, r.auth.token, r.auth.username, r.auth.password)
	for _, p := range slices.Concat(r.query, r.headers, r.body.form, r.auth.headers) {
		all = append(all, p.value)
	}
	return all
}

// ValidateParameters checks params against the declarations, and then that
// every request can be rendered with them.
func (p *Provider) ValidateParameters(params map[string]any) error {
	_, err := p.DryRun(params)
	return err
}

// checkID refuses an id that no key of this service has: it may come from a
// person, and a request may carry it into a language of its own.
func (p *Provider) checkID(op, id string) error {
	if p.idPattern != nil && !p.idPattern.MatchString(id) {
		return &provider.Error{Op: op, Kind: provider.KindRejected, Msg: fmt.Sprintf("the id %.80q is not of the form %s", id, p.idPattern)}
	}
	return nil
}

// scope is what requests may refer to.
func (p *Provider) scope(op string, params map[string]any) (scope, error) {
	s, err := resolve(p.params, params)
	if err != nil {
		return nil, &provider.Error{Op: op, Kind: provider.KindRejected, Msg: err.Error(), Err: err}
	}
	maps.Copy(s, p.vars)
	for name, v := range p.credential {
		s[groupCredential+"."+name] = v
	}
	return s, nil
}

// Create mints one key. Whatever goes wrong once the request is on its way is
// KindUncertain, and for services that replace a key by means of itself that
// includes every failure of the service.
func (p *Provider) Create(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
	const op = "create"
	fail := func(kind provider.Kind, status int, msg string, err error) (provider.Key, error) {
		return provider.Key{}, &provider.Error{Op: op, Kind: kind, Status: status, Msg: msg, Err: err}
	}
	c := p.create
	if c == nil {
		return fail(provider.KindUnsupported, 0, "this provider mints no keys", nil)
	}
	if err := provider.CheckName(req.Name); err != nil {
		return fail(provider.KindRejected, 0, err.Error(), nil)
	}
	s, err := p.scope(op, req.Parameters)
	if err != nil {
		return provider.Key{}, err
	}
	name, err := p.name.encode(req.Name)
	if err != nil {
		return fail(provider.KindRejected, 0, err.Error(), nil)
	}
	s[refName] = name
	if c.replaces {
		if req.Current == nil || req.Current.Values[provider.PrimaryValue] == "" {
			return fail(provider.KindRejected, 0, "the service makes a new key out of the current one, and there is none yet; import the first", nil)
		}
		p.addKey(s, *req.Current)
		s[refName] = name
	}
	lifetime := c.lifetime
	if c.lifetimeOf != "" {
		n, _ := fields.Integer(s[c.lifetimeOf])
		if n < 0 || n > maxLifeSeconds/int64(c.lifetimeUnit/time.Second) {
			return fail(provider.KindRejected, 0, fmt.Sprintf("{{%s}}: %d is no length of a life", c.lifetimeOf, n), nil)
		}
		lifetime = time.Duration(n) * c.lifetimeUnit
	}
	expires := expiresScope(s, p.now(), lifetime)
	res, masks, err := p.send(ctx, c.request, s, nil, true)
	if err != nil {
		return provider.Key{}, err
	}
	if e := p.outcome(c.request, res, masks, true, c.replaces); e != nil {
		return provider.Key{}, e
	}
	// The key exists now. What follows only reads it.
	key, err := c.read(res.Body, p.now(), expires, p.idPattern)
	if err != nil {
		return fail(provider.KindUncertain, res.Status, "the key was created, but "+err.Error(), err)
	}
	key.Name = req.Name
	return key, nil
}

// read takes the key out of the answer. expires is what was asked for; the
// service's own word comes before it.
func (c *createSpec) read(body []byte, now, expires time.Time, form *regexp.Regexp) (provider.Key, error) {
	doc, err := decode(body)
	if err != nil {
		return provider.Key{}, err
	}
	key := provider.Key{Values: make(map[string]string, len(c.values))}
	if key.ID, err = c.id.id(doc); err != nil {
		return provider.Key{}, err
	}
	if form != nil && !form.MatchString(key.ID) {
		return provider.Key{}, answerFault("%s is not of the form id_pattern", c.id.source)
	}
	for name, path := range c.values {
		if key.Values[name], err = path.stringValue(doc); err != nil {
			return provider.Key{}, err
		}
	}
	if key.Expires, _, err = c.end(doc, now); err != nil && (expires.IsZero() || !errors.Is(err, errNoEnd)) {
		return provider.Key{}, err
	}
	if key.Expires.IsZero() {
		key.Expires = expires
	}
	return key, nil
}

func (p *Provider) addKey(s scope, key provider.Key) {
	s[refID], s[refName] = key.ID, key.Name
	if name, err := p.name.encode(key.Name); err == nil {
		s[refName] = name
	}
	for name, v := range key.Values {
		s[groupValue+"."+name] = v
	}
}

// Test asks the service whether the key works.
func (p *Provider) Test(ctx context.Context, params map[string]any, key provider.Key) error {
	if p.test == nil {
		return unsupported("test")
	}
	_, _, err := p.tried(ctx, params, key)
	return err
}

// Examine is Test, and says when the key ends: out of the same answer or, where
// only the list tells it, out of that.
func (p *Provider) Examine(ctx context.Context, params map[string]any, key provider.Key) (expires time.Time, told bool, err error) {
	if p.test != nil {
		if expires, told, err = p.tried(ctx, params, key); err != nil || told {
			return expires, told, err
		}
	}
	if !p.Capabilities().Expires || key.ID == "" && p.test != nil {
		if p.test == nil {
			err = unsupported("test")
		}
		return time.Time{}, false, err
	}
	expires, told, err = p.listedEnd(ctx, params, key.ID)
	return expires, told, notOfTheKey(err)
}

// notOfTheKey is a fault of another request than the test: that the credential is
// refused there says nothing about the key.
func notOfTheKey(err error) error {
	var pe *provider.Error
	if !provider.Refused(err) || !errors.As(err, &pe) {
		return err
	}
	other := *pe
	other.Kind = provider.KindForbidden
	return &other
}

// tried sends the test and reads when the key ends, where that is declared.
func (p *Provider) tried(ctx context.Context, params map[string]any, key provider.Key) (expires time.Time, told bool, err error) {
	const op = "test"
	s, err := p.scope(op, params)
	if err != nil {
		return time.Time{}, false, err
	}
	if p.test.mentions(refID) {
		if err := p.checkID(op, key.ID); err != nil {
			return time.Time{}, false, err
		}
	}
	p.addKey(s, key)
	res, masks, err := p.send(ctx, p.test.request, s, nil, false)
	if err != nil {
		return time.Time{}, false, notOfTheKey(err) // it was not sent: there is no access token
	}
	if e := p.outcome(p.test.request, res, masks, false, false); e != nil {
		return time.Time{}, false, e
	}
	fault := func(kind provider.Kind, format string, args ...any) error {
		return &provider.Error{Op: op, Kind: kind, Status: res.Status, Msg: fmt.Sprintf(format, args...)}
	}
	if len(p.test.expect) == 0 && !p.test.declared() {
		return time.Time{}, false, nil
	}
	doc, err := decode(res.Body)
	if err != nil {
		return time.Time{}, false, fault(provider.KindTransient, "%v", err)
	}
	for _, c := range p.test.expect {
		switch differs, present := c.differs(doc); {
		case !present:
			return time.Time{}, false, fault(provider.KindTransient, "%v: %s selects nothing", errAnswer, c.path.source)
		case differs:
			return time.Time{}, false, fault(provider.KindUnauthorized, "%s is not %q: the key does not work", c.path.source, c.value)
		}
	}
	if !p.test.declared() {
		return time.Time{}, false, nil
	}
	if expires, told, err = p.test.end(doc, p.now()); err != nil {
		return time.Time{}, false, fault(provider.KindTransient, "the key works, but %v", err)
	}
	return expires, told, nil
}

// listedEnd is when a key ends, as the list has it.
func (p *Provider) listedEnd(ctx context.Context, params map[string]any, id string) (time.Time, bool, error) {
	fault := func(kind provider.Kind, format string, args ...any) (time.Time, bool, error) {
		return time.Time{}, false, &provider.Error{Op: "list", Kind: kind, Msg: fmt.Sprintf(format, args...)}
	}
	keys, err := p.listAll(ctx, params, "")
	if err != nil {
		return time.Time{}, false, err
	}
	for _, k := range keys {
		switch {
		case k.ID != id:
		case k.endFault != nil:
			return fault(provider.KindTransient, "%v", k.endFault)
		default:
			return k.Expires, true, nil
		}
	}
	return fault(provider.KindNotFound, "the service does not list the key %.80q, so nobody knows when it ends", id)
}

// Revoke ends a key. One that is gone already is no error.
func (p *Provider) Revoke(ctx context.Context, params map[string]any, id string) error {
	return p.RevokeNamed(ctx, params, id, "")
}

// RevokeNamed is Revoke for services that want the name. Where nobody knows
// it, the list does.
func (p *Provider) RevokeNamed(ctx context.Context, params map[string]any, id, name string) error {
	const op = "revoke"
	if p.revoke == nil {
		return unsupported(op)
	}
	s, err := p.scope(op, params)
	if err != nil {
		return err
	}
	if err := p.checkID(op, id); err != nil {
		return err
	}
	s[refID] = id
	if p.revoke.mentions(refName) {
		if s[refName], err = p.nameOf(ctx, params, id, name); err != nil {
			return err
		}
	}
	res, masks, err := p.send(ctx, p.revoke, s, nil, false)
	if err != nil {
		return err
	}
	if e := p.outcome(p.revoke, res, masks, false, false); e != nil && p.meaning(p.revoke, res) != meansGone {
		return e
	}
	return nil
}

// nameOf is a key's name as the service has it.
func (p *Provider) nameOf(ctx context.Context, params map[string]any, id, name string) (string, error) {
	fault := func(kind provider.Kind, msg string) error {
		return &provider.Error{Op: "revoke", Kind: kind, Msg: msg}
	}
	if name != "" {
		encoded, err := p.name.encode(name)
		if err != nil {
			return "", fault(provider.KindRejected, err.Error())
		}
		return encoded, nil
	}
	if p.list == nil || p.list.name == nil {
		return "", fault(provider.KindRejected, "the service wants the key's name, which nobody knows, and lists none")
	}
	keys, err := p.listAll(ctx, params, "")
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		if k.ID == id && k.shown != "" {
			return k.shown, nil
		}
	}
	return "", fault(provider.KindNotFound, "the service wants the key's name and does not list the key")
}

// LastUsed asks the service, or looks the key up in its list.
func (p *Provider) LastUsed(ctx context.Context, params map[string]any, id string) (time.Time, error) {
	const op = "last_used"
	fault := func(kind provider.Kind, status int, msg string) (time.Time, error) {
		return time.Time{}, &provider.Error{Op: op, Kind: kind, Status: status, Msg: msg}
	}
	if !p.Capabilities().LastUsed {
		return time.Time{}, unsupported(op)
	}
	if p.lastUsed == nil {
		keys, err := p.List(ctx, params, "")
		if err != nil {
			return time.Time{}, err
		}
		for _, k := range keys {
			if k.ID == id {
				return k.LastUsed, nil
			}
		}
		return fault(provider.KindNotFound, 0, fmt.Sprintf("the service does not list the key %.80q", id))
	}
	s, err := p.scope(op, params)
	if err != nil {
		return time.Time{}, err
	}
	if err := p.checkID(op, id); err != nil {
		return time.Time{}, err
	}
	s[refID] = id
	res, masks, err := p.send(ctx, p.lastUsed.request, s, nil, false)
	if err != nil {
		return time.Time{}, err
	}
	if e := p.outcome(p.lastUsed.request, res, masks, false, false); e != nil {
		return time.Time{}, e
	}
	doc, err := decode(res.Body)
	if err != nil {
		return fault(provider.KindTransient, res.Status, err.Error())
	}
	_, there, _ := p.lastUsed.time.one(doc)
	at, ok := readTime(p.lastUsed.time.text(doc))
	if !ok || !there && !p.lastUsed.absence {
		return fault(provider.KindTransient, res.Status, fmt.Sprintf("%v: %s is no time", errAnswer, p.lastUsed.time.source))
	}
	return at, nil
}

func unsupported(op string) error {
	return &provider.Error{Op: op, Kind: provider.KindUnsupported, Msg: "no such request is declared for this provider"}
}
