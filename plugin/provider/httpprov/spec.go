package httpprov

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"strongroom.example/plugin/provider/internal/fields"
)

// request is the declaration of one request, ready to be rendered.
type request struct {
	op      string
	method  string
	url     template // variables are already filled in
	base    string   // scheme and authority, which no reference can change
	query   []pair
	headers []pair
	body    body
	auth    auth
	success []int
	// refusals are the request's own rules.
	refusals []refusalRule
	// codes are statuses of which all mean codesMean.
	codes     []int
	codesMean string
	// unsure are statuses of a test that count as codes, though nobody has said so.
	unsure []int
}

// pair is a name with a template, in the order of names.
type pair struct {
	name  string
	value template
}

// body is what a request carries: a JSON value or form fields.
type body struct {
	kind string // "", json, form, multipart
	json node
	form []pair
	// contentType stands in place of the kind's own; "": none.
	contentType string
}

// reader reads the declarations of one provider.
type reader struct {
	vars       scope
	params     map[string]parameter
	credential map[string]string
	usedParams map[string]bool
	usedVars   map[string]bool
	values     map[string]bool // names of a key's values; nil: any
	auth       auth
	check      func(*url.URL) error
}

var (
	headerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
	authority  = regexp.MustCompile(`^https?://[^/?#\\@]+/`)
)

// ownHeaders are set by net/http, or change how a message is framed or routed.
var ownHeaders = []string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Te", "Trailer",
	"Upgrade", "Expect", "Accept-Encoding", "Proxy-Authorization", "Keep-Alive", "Content-Type", "Cookie"}

// request reads a declaration; refs are what its templates may name besides
// var, param and credential.
func (rd *reader) request(m *fields.Map, op, method string, success []int, refs ...string) *request {
	r := &request{op: op}
	r.method = m.OneOf("method", method, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete)
	r.success = codes(m, "success", success)
	r.refusals = readRefusals(m)
	rd.url(m, "url", r, refs)
	r.query = rd.pairs(m, "query", refs, false, nil)
	r.headers = rd.pairs(m, "headers", refs, true, badHeader)
	rd.body(m, r, refs)
	r.auth = rd.auth
	if own := m.Sub("auth"); own != nil {
		r.auth = rd.readAuth(own, refs)
	}
	for _, name := range r.auth.headerNames() {
		if slices.ContainsFunc(r.headers, func(h pair) bool { return strings.EqualFold(h.name, name) }) {
			m.Fail("headers", "%s is set by auth already", name)
		}
	}
	return r
}

func badHeader(name string) string {
	if !headerName.MatchString(name) {
		return "is no name of a header"
	}
	if slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)) {
		return "is set by the engine itself"
	}
	return ""
}

func codes(m *fields.Map, name string, def []int) []int {
	if !m.Has(name) {
		m.Value(name)
		return def
	}
	list, ok := m.Value(name).([]any)
	if !ok {
		m.Fail(name, "must be a list of status codes")
		return def
	}
	var out []int
	for _, v := range list {
		n, ok := fields.Integer(v)
		if !ok || n < 200 || n > 599 {
			m.Fail(name, "must be a list of status codes from 200 to 599")
			return def
		}
		out = append(out, int(n))
	}
	if len(out) == 0 || len(out) > 20 {
		m.Fail(name, "must hold 1 to 20 status codes")
		return def
	}
	return out
}

// url fills in the variables, which whoever configures the provider has
// chosen, and then allows references only behind the host: a key's parameters
// can never send the credential elsewhere.
func (rd *reader) url(m *fields.Map, field string, r *request, refs []string) {
	text := m.String(field, "", maxTemplate)
	if text == "" {
		m.Fail(field, "is missing")
		return
	}
	t, err := parseTemplate(text)
	if err != nil {
		m.Fail(field, "%v", err)
		return
	}
	filled := template{}
	for _, p := range t.parts {
		if strings.HasPrefix(p.ref, groupVar+".") {
			rd.usedVars[p.ref] = true
			v, ok := rd.vars[p.ref]
			if !ok {
				m.Fail(field, "{{%s}} is not declared in settings.variables", p.ref)
				return
			}
			p = part{text: strings.TrimRight(v.(string), "/")} // so that {{var.url}}/x has one slash
		}
		if n := len(filled.parts); p.ref == "" && n > 0 && filled.parts[n-1].ref == "" {
			filled.parts[n-1].text += p.text
			continue
		}
		filled.parts = append(filled.parts, p)
	}
	head := filled.parts[0].text + "/"
	if len(filled.parts) > 1 {
		head = filled.parts[0].text
	}
	r.base = authority.FindString(head)
	if r.base == "" {
		m.Fail(field, `%.100q must begin with https://host/, and references other than {{var.…}} may only follow that`, text)
		return
	}
	for _, p := range filled.parts {
		if strings.ContainsAny(p.text, "?#") || hasControl(p.text) || strings.Contains(p.text, " ") {
			m.Fail(field, "must not hold ?, # or spaces; a query goes into the table query")
			return
		}
		if slices.ContainsFunc(strings.Split(p.text, "/"), func(s string) bool { return s == "." || s == ".." }) {
			m.Fail(field, "must not hold . or .. as a part of the path")
			return
		}
	}
	rd.allow(m, field, filled, refs, false, true)
	sample, err := filled.render(sampleOf(filled), escapeSegment)
	if err == nil {
		var u *url.URL
		if u, err = url.Parse(sample); err == nil {
			err = rd.check(u)
		}
	}
	if err != nil {
		m.Fail(field, "%.100q %v", text, err)
		return
	}
	r.url = filled
}

// sampleOf gives each reference of a template a harmless value.
func sampleOf(t template) scope {
	s := scope{}
	for _, ref := range t.refs() {
		s[ref] = "x"
	}
	return s
}

// pairs reads a table of templates.
func (rd *reader) pairs(m *fields.Map, name string, refs []string, secrets bool, bad func(string) string) []pair {
	sub := m.Sub(name)
	if sub == nil {
		return nil
	}
	if len(sub.Names()) > 50 {
		sub.Fail("", "has %d entries, at most 50 are allowed", len(sub.Names()))
		return nil
	}
	var out []pair
	for _, key := range sub.Names() {
		text := sub.String(key, "", maxTemplate)
		if key == "" || len(key) > 100 || hasControl(key) {
			sub.Fail(key, "is no name")
			continue
		}
		if bad != nil {
			if why := bad(key); why != "" {
				sub.Fail(key, "%s", why)
				continue
			}
		}
		t, err := parseTemplate(text)
		if err != nil {
			sub.Fail(key, "%v", err)
			continue
		}
		rd.allow(sub, key, t, refs, secrets, false)
		out = append(out, pair{key, t})
	}
	return out
}

func (rd *reader) body(m *fields.Map, r *request, refs []string) {
	kinds := 0
	for _, kind := range []string{"json", "form", "multipart"} {
		if !m.Has(kind) {
			m.Value(kind)
			continue
		}
		kinds++
		r.body.kind = kind
		if kind != "json" {
			r.body.form = rd.pairs(m, kind, refs, true, nil)
			continue
		}
		budget := maxNodes
		n, err := parseNode(m.Value(kind), 0, &budget)
		if err != nil {
			m.Fail(kind, "%v", err)
			continue
		}
		for _, t := range n.templates() {
			rd.allowIn(m, kind, t, refs, true, false, true)
		}
		r.body.json = n
	}
	r.body.contentType = m.String("content_type", "", 200)
	if m.Has("content_type") {
		if media, _, err := mime.ParseMediaType(r.body.contentType); err != nil || !strings.Contains(media, "/") || hasControl(r.body.contentType) {
			m.Fail("content_type", "%q is none, such as application/vnd.api+json", r.body.contentType)
		}
		if r.body.kind != "json" && r.body.kind != "form" {
			m.Fail("content_type", "belongs to json or form: nothing else has one of its own")
		}
	}
	if kinds > 1 {
		m.Fail("", "has more than one of json, form and multipart")
	}
	if kinds > 0 && r.method == http.MethodGet {
		m.Fail("", "a GET request carries no body")
	}
}

// allow records a fault for each reference of t that may not stand there.
func (rd *reader) allow(m *fields.Map, name string, t template, refs []string, secrets, always bool) {
	rd.allowIn(m, name, t, refs, secrets, always, false)
}

// allowIn: secrets tells whether secrets may stand there, always whether each
// reference must have a value whatever the key leaves out, typed whether lists
// and tables may.
func (rd *reader) allowIn(m *fields.Map, name string, t template, refs []string, secrets, always, typed bool) {
	_, alone := t.sole()
	for _, ref := range t.refs() {
		if secret(ref) && !secrets {
			m.Fail(name, "{{%s}} is secret: it may stand in headers and bodies only", ref)
			continue
		}
		if why := rd.refuse(ref, refs, always || !alone, typed && alone); why != "" {
			m.Fail(name, "{{%s}} %s", ref, why)
		}
	}
}

func (rd *reader) refuse(ref string, refs []string, always, typed bool) string {
	group, name, _ := strings.Cut(ref, ".")
	switch group {
	case groupVar:
		rd.usedVars[ref] = true
		if _, ok := rd.vars[ref]; !ok {
			return "is not declared in settings.variables"
		}
	case groupParam:
		rd.usedParams[name] = true
		p, ok := rd.params[name]
		switch {
		case !ok:
			return "is not declared in settings.parameters"
		case always && !p.present():
			return "is optional: here it needs required = true or a default"
		case !typed && (p.kind == "list" || p.kind == "table"):
			return fmt.Sprintf("is a %s, which only a JSON body can hold, and alone", p.kind)
		}
	case groupCredential:
		if rd.credential[name] == "" {
			return fmt.Sprintf("is missing: write %q into the provider's credential", name)
		}
	case groupValue:
		if !slices.Contains(refs, groupValue) {
			return "is not known in this request"
		}
		if rd.values != nil && !rd.values[name] {
			return "is none of the values that create extracts"
		}
	case groupExpires:
		if !slices.Contains(refs, groupExpires) {
			return "is known in create only, and with lifetime"
		}
		if !slices.Contains([]string{"rfc3339", "date", "unix", "seconds"}, name) {
			return "is none of rfc3339, date, unix, seconds"
		}
	default:
		if !slices.Contains(refs, ref) {
			return "is not known in this request"
		}
	}
	return ""
}

// expiresScope gives the end of a key's life in every notation.
func expiresScope(s scope, now time.Time, lifetime time.Duration) time.Time {
	if lifetime == 0 {
		return time.Time{}
	}
	end := now.Add(lifetime).UTC().Truncate(time.Second)
	s[groupExpires+".rfc3339"] = end.Format(time.RFC3339)
	s[groupExpires+".date"] = end.Format(time.DateOnly)
	s[groupExpires+".unix"] = end.Unix()
	s[groupExpires+".seconds"] = int64(lifetime / time.Second)
	return end
}
