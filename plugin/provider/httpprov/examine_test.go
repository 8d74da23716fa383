package httpprov

import (
	"io"
	"net/http"
	"testing"

	"strongroom.example/plugin/provider"
)

// Only the answer to the test itself is a word about the key. That the list, or the
// access token, is refused is said of the credential.
func TestARefusalOfTheCredentialIsNoneOfTheKey(t *testing.T) {
	const oauth = `"auth":{"type":"oauth2","token_url":"BASE/token","client_id":"id","client_secret":"{{credential.token}}"}`
	for name, c := range map[string]struct {
		settings string
		refuse   string // the path that answers 401
		ofTheKey bool
	}{
		"the test": {`{"create":{"url":"BASE/k"},"test":{"url":"BASE/t","headers":{"K":"{{value.key}}"}}}`, "/t", true},
		"the list, which has the end": {`{"create":{"url":"BASE/k"},"test":{"url":"BASE/t","headers":{"K":"{{value.key}}"}},
			"list":{"url":"BASE/k","items":"$","id":"$.id","expires":"$.e"}}`, "/k", false},
		"the access token": {`{"create":{"url":"BASE/k"},"test":{"url":"BASE/t/{{id}}"},` + oauth + `}`, "/token", false},
	} {
		t.Run(name, func(t *testing.T) {
			refuse := c.refuse
			p := served(t, c.settings, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == refuse:
					w.WriteHeader(http.StatusUnauthorized)
				case r.URL.Path == "/token":
					io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
				case r.URL.Path == "/k":
					io.WriteString(w, `[{"id":"1","e":null}]`)
				}
			})
			key := provider.Key{ID: "1", Values: map[string]string{provider.PrimaryValue: "k"}}
			_, _, err := provider.Examine(t.Context(), p, nil, key)
			if err == nil || provider.Refused(err) != c.ofTheKey {
				t.Errorf("refused %v: %v", provider.Refused(err), err)
			}
			if err := p.Test(t.Context(), nil, key); provider.Refused(err) != c.ofTheKey || (err == nil) != (refuse == "/k") {
				t.Errorf("the test alone: %v", err)
			}
			refuse = ""
			if _, _, err := provider.Examine(t.Context(), p, nil, key); err != nil {
				t.Errorf("when nothing is refused: %v", err)
			}
		})
	}
}
