package httpprov

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
	"strongroom.example/plugin/provider/safehttp"
)

// refusalRule says what an answer means whose status alone does not tell, as
// of services that answer 200 to everything, or 403 to a full account.
type refusalRule struct {
	status []int // empty: any
	when   []condition
	means  string
}

// The meanings beside the kinds of errors.
const meansGone = "gone" // the key is dead already: revoke's goal, a test's refusal

var meanings = map[string]provider.Kind{
	"unauthorized": provider.KindUnauthorized,
	"expired":      provider.KindExpired,
	"forbidden":    provider.KindForbidden,
	"limit":        provider.KindLimit,
	"rate_limited": provider.KindRateLimited,
	"transient":    provider.KindTransient,
	"rejected":     provider.KindRejected,
	meansGone:      provider.KindNotFound,
}

func readRefusals(m *fields.Map) []refusalRule {
	var out []refusalRule
	for _, one := range m.SubList("refusals", 50) {
		words := make([]string, 0, len(meanings))
		for word := range meanings {
			words = append(words, word)
		}
		slices.Sort(words)
		r := refusalRule{means: one.OneOf("means", "", words...), status: codes(one, "status", nil), when: conditions(one, "when")}
		if len(r.status) == 0 && len(r.when) == 0 {
			one.Fail("", "needs status, when, or both")
		}
		out = append(out, r)
	}
	return out
}

// meaning is what the rules say of an answer; "" where none fits. A request's
// own rules come before those of all requests.
func (p *Provider) meaning(r *request, res *safehttp.Response) string {
	var doc any
	if len(r.refusals) > 0 || len(p.refusals) > 0 {
		doc, _ = decode(res.Body) // without one, no condition holds
	}
	for _, rule := range slices.Concat(r.refusals, p.refusals) {
		if len(rule.status) > 0 && !slices.Contains(rule.status, res.Status) {
			continue
		}
		if doc == nil && len(rule.when) > 0 {
			continue
		}
		if !slices.ContainsFunc(rule.when, func(c condition) bool { return !c.like(doc) }) {
			return rule.means
		}
	}
	if means := challenge(res); means != "" {
		return means
	}
	if slices.Contains(r.codes, res.Status) {
		return r.codesMean
	}
	return ""
}

var (
	bearerError       = regexp.MustCompile(`(?i)\bBearer\b[^"]*(?:"[^"]*"[^"]*)*?\berror="([a-z_]+)"`)
	bearerDescription = regexp.MustCompile(`(?i)\berror_description="([^"]*)"`)
)

// challenge is what a service says of a bearer token in the header that is there
// for it (RFC 6750, section 3): whether it is known, and may do this.
func challenge(res *safehttp.Response) string {
	if res.Status != http.StatusUnauthorized && res.Status != http.StatusForbidden {
		return ""
	}
	for _, h := range res.Header.Values("WWW-Authenticate") {
		m := bearerError.FindStringSubmatch(h)
		if m == nil {
			continue
		}
		switch description := bearerDescription.FindStringSubmatch(h); {
		case m[1] == "insufficient_scope":
			return "forbidden"
		case m[1] != "invalid_token":
		case description != nil && strings.Contains(strings.ToLower(description[1]), "expired") && !strings.Contains(strings.ToLower(description[1]), " or "):
			return "expired"
		default:
			return "unauthorized"
		}
	}
	return ""
}

// like tells whether the value is there and is the condition's, in which *
// stands for any text.
func (c condition) like(doc any) bool {
	v, ok, err := c.path.one(doc)
	if err != nil || !ok {
		return false
	}
	text, scalar := provider.ScalarText(v)
	if !scalar {
		return false
	}
	parts := strings.Split(c.value, "*")
	if len(parts) == 1 {
		return text == c.value
	}
	rest, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

// outcome judges an answer: nil for a success. lost tells that the request may
// have made a key that nobody will see, replay that it kills when it is sent
// twice.
func (p *Provider) outcome(r *request, res *safehttp.Response, masks *masker, lost, replay bool) *provider.Error {
	means := p.meaning(r, res)
	if means == "" && slices.Contains(r.success, res.Status) {
		return nil
	}
	e := &provider.Error{Op: r.op, Status: res.Status, Kind: meanings[means]}
	if means == "" && slices.Contains(r.unsure, res.Status) {
		e.Kind, e.Unsure, e.Msg = provider.KindUnauthorized, true, words[provider.KindUnauthorized]
	} else if means == "" {
		e.Kind, e.Msg = kindOf(r, res, lost, replay)
	} else {
		e.Msg = words[e.Kind]
	}
	if r.op == "test" && means == meansGone {
		e.Kind = provider.KindUnauthorized
	}
	if w := keyWords[e.Kind]; r.op == "test" && w != "" {
		e.Msg = w
	}
	e.RetryAfter = retryAfter(res.Header, p.reset, p.now())
	if said := p.said(res.Body, masks); said != "" {
		e.Msg += ": " + said
	}
	return e
}

// words say a kind where nothing more is known; keyWords where the request
// showed the key itself.
var (
	words = map[provider.Kind]string{
		provider.KindUnauthorized: "the service refuses the credential",
		provider.KindExpired:      "the credential is over",
		provider.KindForbidden:    "the service knows the credential, but does not let it do this: a right that is missing, or the account",
		provider.KindLimit:        "the account has no place for one more key",
		provider.KindRateLimited:  "the service asks to slow down",
		provider.KindTransient:    "the service failed",
		provider.KindRejected:     "the service refuses the request",
		provider.KindNotFound:     "the service does not know what was asked for",
	}
	keyWords = map[provider.Kind]string{
		provider.KindUnauthorized: "the service refuses the key",
		provider.KindExpired:      "the key is over",
		provider.KindForbidden:    "the service does not let the key do this, which says nothing about the key: a right that is missing, or the account",
		provider.KindLimit:        "a limit of the account, which says nothing about the key",
	}
)

// kindOf is what a status means by itself.
func kindOf(r *request, res *safehttp.Response, lost, replay bool) (provider.Kind, string) {
	of := func(kind provider.Kind) (provider.Kind, string) { return kind, words[kind] }
	switch status := res.Status; {
	case status == http.StatusTooManyRequests:
		return of(provider.KindRateLimited)
	case status == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "" && !replay:
		return provider.KindRateLimited, "the service is down for the moment"
	case status == http.StatusNotImplemented || status == http.StatusHTTPVersionNotSupported:
		return provider.KindRejected, "the service does not know this request"
	case status >= 500 && lost:
		return provider.KindUncertain, "the service failed; whether it made the key is unknown"
	case status >= 500:
		return of(provider.KindTransient)
	case status == http.StatusUnauthorized && r.op == "test":
		return provider.KindRejected, "the service refuses the request with 401, which is not declared to be a refusal of the key"
	case status == http.StatusUnauthorized:
		return of(provider.KindUnauthorized)
	case status == http.StatusForbidden:
		return of(provider.KindForbidden)
	case status == http.StatusPaymentRequired:
		return provider.KindForbidden, "the service wants to be paid first"
	case status == http.StatusRequestTimeout && lost:
		return provider.KindUncertain, "the service, or a proxy before it, gave up waiting"
	case status == http.StatusRequestTimeout:
		return provider.KindTransient, "the service, or a proxy before it, gave up waiting"
	case status == http.StatusNotFound:
		return of(provider.KindNotFound)
	case status >= 300 && status < 400 && lost:
		// "See other" is how a service may say that it is done, and what stands
		// before a service may redirect after that.
		return provider.KindUncertain, "the service redirects, which is not followed; whether it made the key is unknown"
	case status >= 300 && status < 400:
		return provider.KindRejected, "the service redirects, which is not followed; correct the URL"
	case status < 300 && lost:
		return provider.KindUncertain, fmt.Sprintf("the status is none that was declared a success (%v)", r.success)
	}
	return of(provider.KindRejected)
}
