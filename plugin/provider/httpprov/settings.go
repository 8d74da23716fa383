package httpprov

import (
	"net/http"
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
	create   *createSpec
	list     *listSpec
	test     *testSpec
	revoke   *revokeSpec
	lastUsed *lastUsedSpec
}

type createSpec struct {
	*request
	replaces bool // the new key is made out of the current one, which dies
	lifetime time.Duration
	rejected []int // codes that are no fault of the credential
	id       *path
	expires  *path
	values   map[string]*path
}

type listSpec struct {
	*request
	items, id, name            *path
	created, lastUsed, expires *path
	where                      []condition
	paging                     paging
	absence                    bool // no list in the answer means no keys, not a fault
}

type testSpec struct {
	*request
	refused []int
	expect  []condition
}

type revokeSpec struct {
	*request
	gone []int
}

type lastUsedSpec struct {
	*request
	time    *path
	absence bool // no time in the answer means never, not a fault
}

var (
	anySuccess = []int{200, 201, 202, 203, 204}
	refusals   = []int{http.StatusUnauthorized, http.StatusForbidden}
)

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
			refused: codes(t, "refused", refusals),
			expect:  conditions(t, "expect"),
		}
	}
	if r := m.Sub("revoke"); r != nil {
		s.revoke = &revokeSpec{
			request: rd.request(r, "revoke", http.MethodDelete, anySuccess, refID),
			gone:    codes(r, "gone", []int{http.StatusNotFound, http.StatusGone}),
		}
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
		v := m.String(name, "", 1000)
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
	c.rejected = codes(m, "rejected", nil)
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
	c.expires = optionalPath(m, "expires")
	c.request = rd.request(m, "create", http.MethodPost, []int{200, 201}, refs...)
	return c
}

func readList(m *fields.Map, rd *reader) *listSpec {
	l := &listSpec{
		items: neededPath(m, "items"), id: neededPath(m, "id"),
		name: optionalPath(m, "name"), created: optionalPath(m, "created"),
		lastUsed: optionalPath(m, "last_used"), expires: optionalPath(m, "expires"),
		where:   conditions(m, "where"),
		absence: m.Bool("absent_is_empty", false),
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
		want, ok := scalarText(sub.Value(text))
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
