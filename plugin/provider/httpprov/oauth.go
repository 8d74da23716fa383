package httpprov

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
	"strongroom.example/plugin/provider/safehttp"
)

// oauth gives access tokens for the credential: OAuth 2's client credentials
// (RFC 6749, section 4.4). A token is kept in memory until most of its life is
// over, and nowhere else.
type oauth struct {
	*request
	mu      sync.Mutex
	token   string
	fetched time.Time
	until   time.Time // zero: it is used once
}

// readOAuth reads the fields of auth.type oauth2; one reads a template.
func (rd *reader) readOAuth(m *fields.Map, one func(string) template) *oauth {
	r := &request{op: "token", method: http.MethodPost, success: []int{http.StatusOK}}
	rd.url(m, "token_url", r, nil)
	client := auth{kind: "basic", username: one("client_id"), password: one("client_secret"), escaped: true}
	r.body = body{kind: "form", form: rd.pairs(m, "parameters", nil, true, nil)}
	add := func(name string, value template) {
		if slices.ContainsFunc(r.body.form, func(p pair) bool { return p.name == name }) {
			m.Fail("parameters", "%s is set already", name)
		}
		r.body.form = append(r.body.form, pair{name, value})
	}
	add("grant_type", template{parts: []part{{text: "client_credentials"}}})
	if m.Has("scope") {
		add("scope", one("scope"))
	} else {
		m.Value("scope")
	}
	if m.OneOf("client_auth", "basic", "basic", "form") == "form" {
		add("client_id", client.username)
		add("client_secret", client.password)
		client = auth{kind: "none"}
	}
	r.auth = client
	for _, t := range r.allTemplates() {
		for _, ref := range t.refs() {
			if strings.HasPrefix(ref, groupParam+".") {
				m.Fail("", "{{%s}}: an access token is the provider's, not a key's", ref)
			}
		}
	}
	r.refusals = tokenRefusals()
	return &oauth{request: r}
}

// tokenRefusals are what a token endpoint may answer (RFC 6749, section 5.2).
func tokenRefusals() []refusalRule {
	var out []refusalRule
	path, err := parsePath("$.error")
	if err != nil {
		panic(err) // it is a constant
	}
	for _, known := range [][2]string{
		{"invalid_client", "unauthorized"}, {"invalid_grant", "unauthorized"}, {"unauthorized_client", "forbidden"},
		{"invalid_scope", "forbidden"}, {"access_denied", "forbidden"}, {"temporarily_unavailable", "transient"},
		{"server_error", "transient"}, {"slow_down", "rate_limited"},
	} {
		out = append(out, refusalRule{when: []condition{{path: path, value: known[0]}}, means: known[1]})
	}
	return out
}

// access gives a token for a request of op; fresh tells that it was made now.
// Whatever fails, the request itself was not sent.
func (p *Provider) access(ctx context.Context, o *oauth, op string, s scope) (token string, fresh bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := p.now()
	if o.token != "" && now.Before(o.until) && !now.Before(o.fetched) {
		return o.token, false, nil
	}
	o.token = ""
	fault := func(kind provider.Kind, status int, msg string) error {
		return &provider.Error{Op: op, Kind: kind, Status: status, Msg: "no access token: " + msg}
	}
	res, masks, err := p.sendOnce(ctx, o.request, s, nil, false)
	if err != nil {
		return "", false, fault(provider.KindOf(err), 0, err.Error())
	}
	if e := p.outcome(o.request, res, masks, false, false); e != nil {
		e.Op, e.Msg = op, "no access token: "+e.Msg
		return "", false, e
	}
	token, life, err := readToken(res)
	if err != nil {
		return "", false, fault(provider.KindTransient, res.Status, err.Error())
	}
	// A tenth of its life, a minute at most, is left for the request's way.
	o.token, o.fetched, o.until = token, now, now.Add(life-min(life/10, time.Minute))
	return token, true, nil
}

// readToken reads an access token response (RFC 6749, section 5.1). Without
// expires_in nobody knows how long the token lives, so it is not kept.
func readToken(res *safehttp.Response) (token string, life time.Duration, err error) {
	doc, err := decode(res.Body)
	if err != nil {
		return "", 0, err
	}
	fields, _ := doc.(map[string]any)
	token, _ = fields["access_token"].(string)
	kind, _ := fields["token_type"].(string)
	switch {
	case token == "" || len(token) > maxValue || hasControl(token) || strings.ContainsRune(token, ' '):
		return "", 0, answerFault("$.access_token is no token")
	case kind != "" && !strings.EqualFold(kind, "bearer"):
		return "", 0, answerFault("$.token_type is not Bearer")
	}
	path, err := parsePath("$.expires_in")
	if err != nil {
		return "", 0, err
	}
	life, _, err = path.seconds(doc)
	return token, life, err
}

// forget makes the next request ask for another token, if token is still the
// one that is kept.
func (o *oauth) forget(token string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.token == token {
		o.token = ""
	}
}
