package httpprov

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
	"strongroom.example/plugin/provider/safehttp"
)

// settings are a provider's declarations, checked.
type settings struct {
	params   map[string]parameter
	vars     scope
	client   *safehttp.Client
	overlap  bool
	maxKeys  int
	message  *path  // of a service's own words in a refusal
	reset    string // header that says when a rate limit ends
	refusals []refusalRule
	name     nameForm
	// idPattern is what a key's id looks like; nil: anything that fits a path.
	idPattern *regexp.Regexp
	create    *createSpec
	list      *listSpec
	test      *testSpec
	revoke    *request
	lastUsed  *lastUsedSpec
}

type createSpec struct {
	*request
	replaces bool // the new key is made out of the current one, which dies
	lifetime time.Duration
	id       *path
	values   map[string]*path
	life
	// lifetimeOf is the reference that gives the length of the key's life in
	// lifetimeUnit; 0: no end.
	lifetimeOf   string
	lifetimeUnit time.Duration
}

// life is how an answer tells when a key ends.
type life struct {
	expires   *path // a point in time
	expiresIn *path // seconds from now
	absence   bool  // nothing there means never, not a fault
}

type listSpec struct {
	*request
	items, id, name            *path
	created, lastUsed, expires *path
	where                      []condition
	total                      *path // how many keys there are, where the answer tells it
	paging                     paging
	neverAbsent                bool // an absent end means never
	absence                    bool // no list in the answer means no keys, not a fault
}

type testSpec struct {
	*request
	expect []condition
	life
}

type lastUsedSpec struct {
	*request
	time    *path
	absence bool // no time in the answer means never, not a fault
}

var anySuccess = []int{200, 201, 202, 203, 204}

// readSettings reads cfg and records every fault in m.
func readSettings(cfg provider.Config, m *fields.Map, mint bool) settings {
	s := settings{vars: scope{}}
	m.String("description", "", 4000)
	m.String("documentation", "", 1000)
	s.client = safehttp.New(safehttp.ReadOptions(m))
	readVariables(m.Sub("variables"), s.vars)
	s.params = readParameters(m.Sub("parameters"))
	s.message = optionalPath(m, "error_message")
	s.reset = m.String("rate_limit_reset", "", 64)
	s.refusals = readRefusals(m)
	s.name = readNameForm(m.Sub("key_name"))
	s.idPattern = readPattern(m, "id_pattern")
	fields.ReadHeldTo(m)
	s.overlap = m.Bool("overlap", true)
	s.maxKeys = m.Int("max_keys", 0, 0, 100_000)

	rd := &reader{
		vars: s.vars, params: s.params, credential: cfg.Credential, check: s.client.CheckURL,
		usedParams: map[string]bool{}, usedVars: map[string]bool{},
		auth: auth{kind: "none"},
	}
	if a := m.Sub("auth"); a != nil {
		rd.auth = rd.readAuth(a, nil)
	}
	s.readRequests(m, rd, mint)
	if s.name.packs() && s.list != nil && s.list.mentions(refPrefix) {
		m.Fail("key_name", "packs names, so that list cannot ask for those with a {{prefix}}")
	}
	rd.unused(m)
	return s
}

func (s *settings) readRequests(m *fields.Map, rd *reader, mint bool) {
	if c := m.Sub("create"); c != nil && mint {
		s.create = readCreate(c, rd)
		if s.create.replaces && m.Has("overlap") && s.overlap {
			m.Fail("overlap", "cannot be true where create.replaces_current is: the old key dies with the request")
		}
		s.overlap = s.overlap && !s.create.replaces
	} else if c != nil {
		m.Fail("create", "is not for this type of provider: nothing is minted")
	} else if mint {
		m.Fail("create", "is missing")
	}
	if l := m.Sub("list"); l != nil {
		s.list = readList(l, rd)
	}
	if t := m.Sub("test"); t != nil {
		s.test = &testSpec{
			request: rd.request(t, "test", http.MethodGet, anySuccess, groupValue, refID, refName),
			expect:  conditions(t, "expect"),
			life:    readLife(t),
		}
		s.test.codes, s.test.codesMean = codes(t, "refused", []int{http.StatusUnauthorized}), "unauthorized"
		if !t.Has("refused") {
			s.test.unsure = []int{http.StatusForbidden}
		}
	}
	if r := m.Sub("revoke"); r != nil {
		s.revoke = rd.request(r, "revoke", http.MethodDelete, anySuccess, refID, refName)
		s.revoke.codes, s.revoke.codesMean = codes(r, "gone", []int{http.StatusNotFound, http.StatusGone}), meansGone
	}
	if l := m.Sub("last_used"); l != nil {
		s.lastUsed = &lastUsedSpec{
			request: rd.request(l, "last_used", http.MethodGet, anySuccess, refID),
			time:    neededPath(l, "time"),
			absence: l.Bool("absent_is_never", false),
		}
	}
}

// unused reports declarations that nothing refers to: they are misspelt.
func (rd *reader) unused(m *fields.Map) {
	for ref := range rd.vars {
		if !rd.usedVars[ref] {
			m.Fail("variables", "%s is used by no request", strings.TrimPrefix(ref, groupVar+"."))
		}
	}
	for name := range rd.params {
		if !rd.usedParams[name] {
			m.Fail("parameters", "%s is used by no request", name)
		}
	}
}

func readVariables(m *fields.Map, vars scope) {
	if m == nil {
		return
	}
	for _, name := range m.Names() {
		v := m.Text(name, "", 1000)
		switch {
		case !validName(name):
			m.Fail(name, "is no name: only letters, digits, _ and - are allowed, at most 64")
		case v == "" || hasControl(v):
			m.Fail(name, "is empty or holds a control character; set it to this installation's value")
			v = "unset"
			fallthrough
		default:
			vars[groupVar+"."+name] = v
		}
	}
}

func readCreate(m *fields.Map, rd *reader) *createSpec {
	c := &createSpec{values: map[string]*path{}}
	c.replaces = m.Bool("replaces_current", false)
	c.lifetime = m.Duration("lifetime", 0, time.Hour, 10*365*24*time.Hour)
	rejected := codes(m, "rejected", nil)
	refs := []string{refName}
	if c.replaces {
		refs = append(refs, groupValue, refID)
	}
	if c.lifetime > 0 {
		refs = append(refs, groupExpires)
	}
	values := m.Sub("values")
	if values == nil {
		m.Fail("values", "is missing: it must say at least where %q is found in the answer", provider.PrimaryValue)
	} else {
		for _, name := range values.Names() {
			if !validName(name) {
				values.Value(name)
				values.Fail(name, "is no name")
				continue
			}
			c.values[name] = neededPath(values, name)
		}
		if c.values[provider.PrimaryValue] == nil {
			values.Fail(provider.PrimaryValue, "is missing: the path of the key itself")
		}
		rd.values = map[string]bool{}
		for name := range c.values {
			rd.values[name] = true
		}
	}
	c.id = neededPath(m, "id")
	c.life = readLife(m)
	rd.readLifetimeOf(m, c)
	c.request = rd.request(m, "create", http.MethodPost, []int{200, 201}, refs...)
	c.codes, c.codesMean = rejected, "rejected"
	return c
}

// readLife reads how an answer tells when a key ends.
func readLife(m *fields.Map) life {
	l := life{
		expires: optionalPath(m, "expires"), expiresIn: optionalPath(m, "expires_in"),
		absence: m.Bool("expires_absent_is_never", false),
	}
	if l.expires != nil && l.expiresIn != nil {
		m.Fail("expires_in", "cannot stand beside expires")
	}
	if l.absence && !l.declared() {
		m.Fail("expires_absent_is_never", "needs expires or expires_in")
	}
	return l
}

func (l life) declared() bool { return l.expires != nil || l.expiresIn != nil }

// end is when the key ends whose answer doc is; errNoEnd where the answer says
// nothing although it was declared to.
func (l life) end(doc any, now time.Time) (at time.Time, told bool, err error) {
	source := l.expires
	switch {
	case l.expires != nil:
		at, told, err = l.expires.end(doc)
	case l.expiresIn != nil:
		source = l.expiresIn
		var d time.Duration
		if d, told, err = l.expiresIn.seconds(doc); told && err == nil {
			at = now.Add(d)
		}
	default:
		return time.Time{}, false, nil
	}
	if err != nil || told || l.absence {
		return at, told || l.absence, err
	}
	return time.Time{}, false, fmt.Errorf("%w: %s selects nothing, and nobody knows when the key ends", errNoEnd, source.source)
}

// errNoEnd tells that an answer says nothing of an end although it was
// declared to.
var errNoEnd = fmt.Errorf("%w", errAnswer)

// readLifetimeOf reads lifetime_seconds or lifetime_days, which a key's
// parameters decide.
func (rd *reader) readLifetimeOf(m *fields.Map, c *createSpec) {
	for field, unit := range map[string]time.Duration{"lifetime_seconds": time.Second, "lifetime_days": 24 * time.Hour} {
		text := m.String(field, "", maxTemplate)
		if text == "" {
			continue
		}
		t, err := parseTemplate(text)
		if err != nil {
			m.Fail(field, "%v", err)
			continue
		}
		ref, alone := t.sole()
		name, isParam := strings.CutPrefix(ref, groupParam+".")
		switch {
		case !alone || !isParam || rd.params[name].kind != "integer":
			m.Fail(field, "must be one parameter of type integer, as {{param.seconds}}")
		case m.Has("lifetime") || c.lifetimeOf != "":
			m.Fail(field, "cannot stand beside another lifetime")
		}
		rd.allow(m, field, t, nil, false, false)
		c.lifetimeOf, c.lifetimeUnit = ref, unit
	}
}

func readList(m *fields.Map, rd *reader) *listSpec {
	l := &listSpec{
		items: neededPath(m, "items"), id: neededPath(m, "id"),
		name: optionalPath(m, "name"), created: optionalPath(m, "created"),
		lastUsed: optionalPath(m, "last_used"), expires: optionalPath(m, "expires"),
		where:       conditions(m, "where"),
		total:       optionalPath(m, "total"),
		neverAbsent: m.Bool("expires_absent_is_never", false),
		absence:     m.Bool("absent_is_empty", false),
	}
	l.request = rd.request(m, "list", http.MethodGet, anySuccess, refPrefix)
	l.paging = readPaging(m.Sub("paging"))
	for _, q := range l.query {
		if l.paging.kind != "" && q.name == l.paging.parameter {
			m.Fail("query", "%s is set by paging already", q.name)
		}
	}
	return l
}

func neededPath(m *fields.Map, name string) *path {
	p := optionalPath(m, name)
	if p == nil && !m.Has(name) {
		m.Fail(name, "is missing")
	}
	return p
}

func optionalPath(m *fields.Map, name string) *path {
	text := m.String(name, "", maxPath)
	if !m.Has(name) {
		return nil
	}
	p, err := parsePath(text)
	if err != nil {
		m.Fail(name, "%v", err)
		return nil
	}
	return p
}

// conditions reads a table of JSONPath to text.
func conditions(m *fields.Map, name string) []condition {
	sub := m.Sub(name)
	if sub == nil {
		return nil
	}
	var out []condition
	for _, text := range sub.Names() {
		want, ok := provider.ScalarText(sub.Value(text))
		if !ok {
			sub.Fail(text, "must be a string, a number or a boolean")
		}
		p, err := parsePath(text)
		if err != nil {
			sub.Fail(text, "%v", err)
			continue
		}
		out = append(out, condition{path: p, value: want})
	}
	return out
}
