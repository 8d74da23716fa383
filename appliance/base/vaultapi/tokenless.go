package vaultapi

import (
	"errors"
	"net/http"
	"regexp"
)

// ErrNoToken is a call that needs a token and has none. It was not sent.
var ErrNoToken = errors.New("nobody has logged in, and without a token there is no answer to that")

// Tokenless is a call that a client without a token may make; it sends no other.
type Tokenless struct {
	Method, Path string // the path is a regular expression, for all of it
	Why          string // it needs none
	// Recovery calls want a token since Vault 2.0, and on OpenBao's usual listeners are
	// not there: they are made through wayin.Door, which opens them. Vault 2.x and
	// OpenBao answer all others as Vault 1.x does.
	Recovery bool
	// Refused: it is made for the refusal.
	Refused bool
}

// WithoutToken are all of them. Vault's own list has more (unseal, rekey, raft's
// bootstrap), which nobody here asks for:
// https://developer.hashicorp.com/vault/docs/concepts/tokens#when-to-use-tokens
func WithoutToken() []Tokenless {
	const (
		get, put, del = http.MethodGet, http.MethodPut, http.MethodDelete

		state  = "who waits for Vault, or looks how it is, cannot log in before it is well"
		before = "before Vault is initialised there are no tokens"
		lost   = "it is for those whose log-ins are lost; the recovery keys are in a token's place"
	)
	return []Tokenless{
		{Method: get, Path: `sys/health`, Why: state},
		{Method: get, Path: `sys/seal-status`, Why: state},
		{Method: get, Path: `sys/leader`, Why: state},
		{Method: get, Path: `sys/init`, Why: before},
		{Method: put, Path: `sys/init`, Why: before},
		{Method: put, Path: `sys/wrapping/lookup`, Why: "it is asked of the wrapping token that it sends"},
		{Method: put, Path: `auth/.+/login(/[^/]+)?`, Why: "it gets the token"},
		{Method: get, Path: `auth/token/lookup-self`, Why: "it is to be refused: whoever watches the audit logs has Vault log something", Refused: true},
		{Method: get, Path: attempt, Why: lost, Recovery: true},
		{Method: put, Path: attempt, Why: lost, Recovery: true},
		{Method: put, Path: update, Why: lost, Recovery: true},
		{Method: del, Path: attempt, Why: lost, Recovery: true},
	}
}

var withoutToken = func() (calls []func(method, path string) bool) {
	for _, c := range WithoutToken() {
		path := regexp.MustCompile(`^(?:` + c.Path + `)$`)
		calls = append(calls, func(method, p string) bool { return method == c.Method && path.MatchString(p) })
	}
	return calls
}()

func needsToken(method, path string) bool {
	for _, is := range withoutToken {
		if is(method, path) {
			return false
		}
	}
	return true
}
