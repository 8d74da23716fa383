package front

import (
	"net/http"
	"slices"
	"strings"
)

// class is a kind of endpoint, by who may ask it. What a class does not name is
// refused, never taken out in silence.
type class struct {
	name string
	// headers are those of X-Vault-* that pass; true: also more than once.
	headers map[string]bool
	large   bool  // with a token, a body may be as large as the configuration allows
	weight  int64 // bytes that a request weighs at least which comes to nothing
}

const (
	headerToken     = "X-Vault-Token"
	headerNamespace = "X-Vault-Namespace"
	headerWrapTTL   = "X-Vault-Wrap-Ttl" // as net/http spells it
)

// stockHeaders are what Vault's own clients send with any request:
// https://developer.hashicorp.com/vault/api-docs
var stockHeaders = map[string]bool{
	headerToken: false, "X-Vault-Request": false, headerNamespace: false, "X-Vault-Mfa": true, "X-Vault-Index": true,
	"X-Vault-Inconsistent": true, "X-Vault-Forward": true, "X-Vault-Policy-Override": false,
}

// wrapHeaders has Vault store the answer, and a token and a lease with it, for as
// long as the client says.
var wrapHeaders = map[string]bool{headerWrapTTL: false, "X-Vault-Wrap-Format": false}

// The classes. What of sys/ is in no row is for the machine itself, over Vault's unix
// socket; what else is in no row is asked with a token.
var (
	// open is answered to anybody, so nothing of it is wrapped.
	open = &class{name: "open", headers: stockHeaders}
	// login succeeds only with a credential, in the body or the query.
	login = &class{name: "log-in", headers: both(stockHeaders, wrapHeaders), weight: loginWeight}
	// token is answered to who has a token, and refused by Vault otherwise.
	token = &class{name: "token", headers: both(stockHeaders, wrapHeaders), large: true}
)

func both(a, b map[string]bool) map[string]bool {
	out := map[string]bool{}
	for _, m := range []map[string]bool{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// row gives the paths of a pattern outside sys/ their class. "+" is any segment,
// "**" any number of them.
type row struct {
	path  string
	class *class
	why   string
}

// rows are judged in their order. Those of secrets engines are in openMounts.
var rows = []row{
	{"identity/oidc/**", open, "Vault as an OIDC provider: its keys, and tokens for its clients"},
	{"auth/**/login", login, "a log-in"},
	{"auth/**/login/+", login, "a log-in by name"},
	{"auth/**/oidc/callback", login, "the end of a log-in by OIDC, with the provider's code"},
	{"auth/**/oidc/auth_url", open, "the begin of a log-in by OIDC"},
	{"auth/**/oidc/poll", open, "whether a log-in by OIDC elsewhere is done"},
	{"auth/**/verify/+", open, "Okta's number challenge"},
}

// openMounts are answered without a token wherever PKI or SSH is mounted. Elsewhere
// the same names are somebody's secrets, so only Vault knows: see gate.asksToken.
var openMounts = []string{
	"**/ca", "**/ca/pem", "**/ca_chain", "**/cert/+", "**/cert/+/raw", "**/cert/+/raw/pem", "**/crl", "**/crl/+", "**/crl/+/pem",
	"**/issuer/+/pem", "**/issuer/+/der", "**/issuer/+/json", "**/issuer/+/crl", "**/issuer/+/crl/**",
	"**/issuer/+/unified-crl/**", "**/unified-crl", "**/unified-crl/**", "**/issuers", "**/ocsp", "**/ocsp/**", "**/unified-ocsp", "**/unified-ocsp/**",
	"**/acme/**", "**/est/**", "**/cmp", "**/scep/**", "**/public_key", "**/verify",
}

// classOf is the class of a path below v1/, by its segments.
func classOf(method string, logical []string) *class {
	switch {
	case len(logical) == 0:
		return token
	case strings.EqualFold(logical[0], "sys"):
		if r := allowedRow(method, logical[1:], false); r != nil {
			return r.class
		}
	case strings.EqualFold(logical[0], "auth"), strings.EqualFold(logical[0], "identity"):
		for _, r := range rows {
			if matches(r.path, logical) {
				return r.class
			}
		}
	}
	return token
}

// mayBeOpen says that Vault may answer a path without a token although no row says
// so: behind a namespace, and wherever an engine is mounted that has open paths.
func mayBeOpen(method string, logical []string) bool {
	if slices.ContainsFunc(openMounts, func(p string) bool { return matches(p, logical) }) {
		return true
	}
	for i := 1; i < len(logical); i++ {
		if classOf(method, logical[i:]) != token {
			return true
		}
	}
	return false
}

// matches folds letters: who spells a path otherwise than Vault does gets the
// stricter rule.
func matches(pattern string, segments []string) bool {
	for pattern != "" {
		want, rest, _ := strings.Cut(pattern, "/")
		if want == "**" {
			for i := range len(segments) + 1 {
				if matches(rest, segments[i:]) {
					return true
				}
			}
			return rest == ""
		}
		if len(segments) == 0 || want != "+" && !strings.EqualFold(want, segments[0]) {
			return false
		}
		pattern, segments = rest, segments[1:]
	}
	return len(segments) == 0
}

// isVaults says whether a header is one of Vault's, also where "_" or another sign
// stands for "-": what one reader drops another may take.
func isVaults(name string) bool {
	sign := func(b byte) bool { return !('a' <= b|0x20 && b|0x20 <= 'z' || '0' <= b && b <= '9') }
	return len(name) > 7 && name[0]|0x20 == 'x' && sign(name[1]) && strings.EqualFold(name[2:7], "vault") && sign(name[7])
}

// check refuses what the class does not name.
func (c *class) check(h http.Header) verdict {
	for name, values := range h {
		if !isVaults(name) {
			continue
		}
		many, ok := c.headers[name]
		switch {
		case !ok && wrapHas(name):
			return refusedWrap
		case !ok:
			return refusedHeader
		case !many && len(values) > 1:
			return refusedTwice
		}
	}
	return passed
}

func wrapHas(name string) bool { _, ok := wrapHeaders[name]; return ok }

// wrapped says whether Vault is asked to wrap its answer.
func wrapped(h http.Header) bool {
	for name := range wrapHeaders {
		if _, ok := h[name]; ok {
			return true
		}
	}
	return false
}

// presented says whether a request has a token where Vault looks for one.
func presented(h http.Header) bool {
	if h.Get(headerToken) != "" {
		return true
	}
	for _, v := range h["Authorization"] {
		if t, ok := strings.CutPrefix(v, "Bearer "); ok {
			return strings.TrimSpace(t) != "" // Vault looks at the first of them
		}
	}
	return false
}
