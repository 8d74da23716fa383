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
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
)

// Provider performs the declared requests. It keeps no state.
type Provider struct {
	settings
	credential map[string]string
	now        func() time.Time
}

var (
	_ provider.Provider  = (*Provider)(nil)
	_ provider.DryRunner = (*Provider)(nil)
	_ provider.Factory   = New
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
	return provider.Capabilities{
		Mint:     p.create != nil,
		List:     p.list != nil,
		Named:    p.list != nil && p.list.name != nil && p.create != nil && p.create.mentions(refName),
		Test:     p.test != nil,
		Revoke:   p.revoke != nil,
		LastUsed: p.lastUsed != nil || p.list != nil && p.list.lastUsed != nil,
		Overlap:  p.overlap,
		MaxKeys:  p.maxKeys,

		FromCurrent: p.create != nil && p.create.replaces,
	}
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
	s[refName] = req.Name
	if c.replaces {
		if req.Current == nil || req.Current.Values[provider.PrimaryValue] == "" {
			return fail(provider.KindRejected, 0, "the service makes a new key out of the current one, and there is none yet; import the first", nil)
		}
		addKey(s, *req.Current)
	}
	expires := expiresScope(s, p.now(), c.lifetime)
	res, masks, err := p.send(ctx, c.request, s, nil, true)
	if err != nil {
		return provider.Key{}, err
	}
	if slices.Contains(c.rejected, res.Status) {
		e := p.refusal(c.request, res, masks, false, c.replaces)
		e.Kind = provider.KindRejected
		return provider.Key{}, e
	}
	if !slices.Contains(c.success, res.Status) {
		return provider.Key{}, p.refusal(c.request, res, masks, true, c.replaces)
	}
	// The key exists now. What follows only reads it.
	key, err := c.read(res.Body)
	if err != nil {
		return fail(provider.KindUncertain, res.Status, "the key was created, but "+err.Error(), err)
	}
	key.Name = req.Name
	if key.Expires.IsZero() {
		key.Expires = expires
	}
	return key, nil
}

func (c *createSpec) read(body []byte) (provider.Key, error) {
	doc, err := decode(body)
	if err != nil {
		return provider.Key{}, err
	}
	key := provider.Key{Values: make(map[string]string, len(c.values)), Expires: c.expires.time(doc)}
	if key.ID, err = c.id.id(doc); err != nil {
		return provider.Key{}, err
	}
	for name, path := range c.values {
		if key.Values[name], err = path.stringValue(doc); err != nil {
			return provider.Key{}, err
		}
	}
	return key, nil
}

func addKey(s scope, key provider.Key) {
	s[refID], s[refName] = key.ID, key.Name
	for name, v := range key.Values {
		s[groupValue+"."+name] = v
	}
}

// List reads every page. A list that cannot be read to its end is an error.
func (p *Provider) List(ctx context.Context, params map[string]any, prefix string) ([]provider.RemoteKey, error) {
	const op = "list"
	if p.list == nil {
		return nil, unsupported(op)
	}
	s, err := p.scope(op, params)
	if err != nil {
		return nil, err
	}
	s[refPrefix] = prefix
	var out []provider.RemoteKey
	seen := map[string]bool{}
	for at := p.list.paging.start(); ; {
		res, masks, err := p.send(ctx, p.list.request, s, func(u *url.URL) error { return at.apply(u, p.list.base) }, false)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(p.list.success, res.Status) {
			return nil, p.refusal(p.list.request, res, masks, false, false)
		}
		page, doc, err := p.list.read(res.Body)
		fresh := 0
		for _, k := range page {
			if seen[k.ID] {
				continue
			}
			seen[k.ID] = true
			fresh++
			if k.alive && (p.list.name == nil || strings.HasPrefix(k.Name, prefix)) {
				out = append(out, k.RemoteKey)
			}
		}
		more := false
		if err == nil {
			if len(page) > 0 && fresh == 0 {
				err = answerFault("a further page holds only keys of earlier ones")
			} else {
				more, err = at.advance(doc, res, len(page))
			}
		}
		if err != nil {
			return nil, &provider.Error{Op: op, Kind: provider.KindTransient, Status: res.Status, Msg: err.Error(), Err: err}
		}
		if !more {
			return out, nil
		}
	}
}

type listed struct {
	provider.RemoteKey
	alive bool
}

func (l *listSpec) read(body []byte) ([]listed, any, error) {
	doc, err := decode(body)
	if err != nil {
		return nil, nil, err
	}
	items, err := l.items.list(doc, l.absence)
	if err != nil {
		return nil, nil, err
	}
	out := make([]listed, 0, len(items))
	for _, item := range items {
		k := listed{alive: true}
		if k.ID, err = l.id.id(item); err != nil {
			return nil, nil, err
		}
		k.Name = l.name.text(item)
		k.Created, k.LastUsed, k.Expires = l.created.time(item), l.lastUsed.time(item), l.expires.time(item)
		for _, c := range l.where {
			if differs, _ := c.differs(item); differs {
				k.alive = false
			}
		}
		out = append(out, k)
	}
	return out, doc, nil
}

// Test asks the service whether the key works.
func (p *Provider) Test(ctx context.Context, params map[string]any, key provider.Key) error {
	const op = "test"
	if p.test == nil {
		return unsupported(op)
	}
	s, err := p.scope(op, params)
	if err != nil {
		return err
	}
	addKey(s, key)
	res, masks, err := p.send(ctx, p.test.request, s, nil, false)
	if err != nil {
		return err
	}
	if slices.Contains(p.test.refused, res.Status) {
		e := p.refusal(p.test.request, res, masks, false, false)
		e.Kind = provider.KindUnauthorized
		return e
	}
	if !slices.Contains(p.test.success, res.Status) {
		e := p.refusal(p.test.request, res, masks, false, false)
		// A status that was not declared a refusal of the key is none.
		if e.Kind == provider.KindUnauthorized {
			e.Kind = provider.KindRejected
		}
		return e
	}
	if len(p.test.expect) == 0 {
		return nil
	}
	fault := func(kind provider.Kind, msg string) error {
		return &provider.Error{Op: op, Kind: kind, Status: res.Status, Msg: msg}
	}
	doc, err := decode(res.Body)
	if err != nil {
		return fault(provider.KindTransient, err.Error())
	}
	for _, c := range p.test.expect {
		switch differs, present := c.differs(doc); {
		case !present:
			return fault(provider.KindTransient, fmt.Sprintf("%v: %s selects nothing", errAnswer, c.path.source))
		case differs:
			return fault(provider.KindUnauthorized, fmt.Sprintf("%s is not %q: the key does not work", c.path.source, c.value))
		}
	}
	return nil
}

// Revoke ends a key. One that is gone already is no error.
func (p *Provider) Revoke(ctx context.Context, params map[string]any, id string) error {
	const op = "revoke"
	if p.revoke == nil {
		return unsupported(op)
	}
	s, err := p.scope(op, params)
	if err != nil {
		return err
	}
	s[refID] = id
	res, masks, err := p.send(ctx, p.revoke.request, s, nil, false)
	if err != nil {
		return err
	}
	if slices.Contains(p.revoke.success, res.Status) || slices.Contains(p.revoke.gone, res.Status) {
		return nil
	}
	return p.refusal(p.revoke.request, res, masks, false, false)
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
	s[refID] = id
	res, masks, err := p.send(ctx, p.lastUsed.request, s, nil, false)
	if err != nil {
		return time.Time{}, err
	}
	if !slices.Contains(p.lastUsed.success, res.Status) {
		return time.Time{}, p.refusal(p.lastUsed.request, res, masks, false, false)
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
