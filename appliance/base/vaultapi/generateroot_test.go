package vaultapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// The attempt of before is given up, as many keys are sent as Vault asks for,
// and an attempt that fails is given up, too. No error quotes a key or a token.
func TestGenerateRoot(t *testing.T) {
	const otp, token = "0123456789", "hvs.canary"
	raw := []byte(token)
	for i := range raw {
		raw[i] ^= otp[i]
	}
	encoded := base64.RawStdEncoding.EncodeToString(raw)
	for name, tt := range map[string]struct {
		begun  string // the answer to a new attempt
		done   string // the answer to the last key
		status int    // of that
		keys   []string
		asks   string
		is     func(error) bool
	}{
		"enough keys":       {`{"nonce":"n","otp":"0123456789","required":2}`, `{"complete":true,"encoded_token":"` + encoded + `"}`, 200, []string{"canary-a", "canary-b", "canary-c"}, "cancel begin key:canary-a key:canary-b", isNil},
		"too few":           {`{"nonce":"n","otp":"0123456789","required":2}`, ``, 0, []string{"canary-a"}, "cancel begin cancel", func(err error) bool { return errors.Is(err, ErrFewShares) }},
		"no number":         {`{"nonce":"n","otp":"0123456789"}`, ``, 0, []string{"canary-a"}, "cancel begin cancel", isNoData},
		"another server":    {`hello`, ``, 0, []string{"canary-a"}, "cancel begin", func(err error) bool { return errors.Is(err, ErrNotVault) }},
		"a wrong key":       {`{"nonce":"n","otp":"0123456789","required":1}`, `{"errors":["root generation aborted"]}`, 400, []string{"canary-a"}, "cancel begin key:canary-a cancel", IsBadRequest},
		"not content":       {`{"nonce":"n","otp":"0123456789","required":1}`, `{"complete":false}`, 200, []string{"canary-a"}, "cancel begin key:canary-a cancel", isOther},
		"no token":          {`{"nonce":"n","otp":"0123456789","required":1}`, `{"complete":true}`, 200, []string{"canary-a"}, "cancel begin key:canary-a cancel", isOther},
		"a shorter one":     {`{"nonce":"n","otp":"0123456789","required":1}`, `{"complete":true,"encoded_token":"Y2FuYXJ5"}`, 200, []string{"canary-a"}, "cancel begin key:canary-a cancel", isOther},
		"what is no base64": {`{"nonce":"n","otp":"0123456789","required":1}`, `{"complete":true,"encoded_token":"canary!"}`, 200, []string{"canary-a"}, "cancel begin key:canary-a cancel", isOther},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				var body struct{ Key, Nonce string }
				_ = json.NewDecoder(r.Body).Decode(&body)
				switch {
				case r.Method == http.MethodDelete:
					asked = append(asked, "cancel")
					answers(204, "")(w, r)
				case r.URL.Path == "/v1/sys/generate-root/attempt":
					asked = append(asked, "begin")
					answers(200, tt.begun)(w, r)
				case r.URL.Path == "/v1/sys/generate-root/update" && body.Nonce == "n":
					asked = append(asked, "key:"+body.Key)
					if body.Key == "canary-a" && strings.Contains(tt.asks, "canary-b") {
						answers(200, `{"complete":false}`)(w, r)
						return
					}
					answers(tt.status, tt.done)(w, r)
				default:
					t.Errorf("asked %s %s", r.Method, r.URL)
				}
			})
			got, err := client(t, Options{Address: s.URL}).GenerateRoot(t.Context(), tt.keys)
			if !tt.is(err) || strings.Contains(fmt.Sprint(err), "canary") {
				t.Errorf("error: %v", err)
			}
			if (err == nil) != (got == token) || err != nil && got != "" {
				t.Errorf("got a token of %d bytes, %v", len(got), err)
			}
			if a := strings.Join(asked, " "); a != tt.asks {
				t.Errorf("asked %q", a)
			}
		})
	}
}
