package front

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// wrapping judges a request that wants its answer wrapped, which has Vault store a
// token and a lease: for who has a token where one is asked for, or logs in.
func (g *gate) wrapping(r *http.Request, to target, next caddyhttp.Handler) verdict {
	switch {
	case r.URL.Query().Has("help"): // answered to anybody, at some paths
		return refusedWrap
	case to.class == login:
		// Read, a log-in tells of itself. OIDC's callback alone is one.
		if r.Method == http.MethodPost || r.Method == http.MethodPut || r.URL.Query().Has("code") {
			return passed
		}
		return refusedWrap
	case !presented(r.Header):
		return refusedUnasked
	case to.mayBeOpen(r.Method):
		return g.asksToken(r, next)
	}
	return passed
}

// asksToken asks Vault itself whether it wants a token at a path: it refuses whoever
// has none before it looks at anything else.
func (g *gate) asksToken(r *http.Request, next caddyhttp.Handler) verdict {
	ask := r.Clone(r.Context())
	ask.Method, ask.Body, ask.ContentLength, ask.TransferEncoding, ask.URL.RawQuery = http.MethodGet, http.NoBody, 0, nil, ""
	ask.Header = http.Header{}
	if ns := r.Header.Get(headerNamespace); ns != "" {
		ask.Header.Set(headerNamespace, ns)
	}
	w := &answer{header: http.Header{}}
	if err := next.ServeHTTP(w, ask); err != nil {
		return verdict{status: http.StatusBadGateway, text: vaultSilent}
	}
	if w.status == http.StatusForbidden {
		return passed
	}
	return refusedWrap
}
