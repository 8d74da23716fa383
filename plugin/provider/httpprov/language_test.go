package httpprov

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

func TestRefusals(t *testing.T) {
	const rules = `"error_message":"$.m","refusals":[
		{"when":{"$.ok":false,"$.error":"token_revoked"},"means":"gone"},
		{"when":{"$.ok":false,"$.error":"token_expired"},"means":"expired"},
		{"status":[403],"when":{"$.m":"*more than * keys*"},"means":"limit"},
		{"status":[403],"when":{"$.m":"suspended*"},"means":"forbidden"},
		{"status":[403],"means":"unauthorized"},
		{"status":[400],"when":{"$.code":17},"means":"rate_limited"}]`
	const settings = `{` + rules + `,"create":{"url":"BASE/k"},"list":{"url":"BASE/k","items":"$","id":"$.id"},
		"test":{"url":"BASE/t","headers":{"K":"{{value.key}}"},"refused":[401]},
		"revoke":{"url":"BASE/k/{{id}}","refusals":[{"status":[400],"when":{"$.code":"not_found"},"means":"gone"}]}}`
	var status int
	var body string
	p := served(t, settings, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	for _, tc := range []struct {
		op     string
		status int
		body   string
		kind   provider.Kind // 0: none
		text   string
	}{
		{"create", 403, `{"m":"Cannot create more than 100 keys."}`, provider.KindLimit, "no place for one more key"},
		{"create", 403, `{"m":"suspended since May"}`, provider.KindForbidden, "does not let it do this"},
		{"create", 403, `{"m":"who?"}`, provider.KindUnauthorized, "refuses the credential"},
		{"create", 403, `<html>`, provider.KindUnauthorized, "refuses the credential"},
		{"create", 200, `{"ok":false,"error":"token_expired"}`, provider.KindExpired, "the credential is over"},
		{"create", 200, `{"ok":true,"id":"1","key":"k"}`, 0, ""},
		{"create", 400, `{"code":17}`, provider.KindRateLimited, "slow down"},
		{"create", 400, `{"code":18}`, provider.KindRejected, "refuses the request"},
		{"test", 200, `{"ok":false,"error":"token_revoked"}`, provider.KindUnauthorized, "refuses the key"},
		{"test", 200, `{"ok":false,"error":"token_expired"}`, provider.KindExpired, "the key is over"},
		{"test", 403, `{"m":"suspended since May"}`, provider.KindForbidden, "says nothing about the key"},
		{"test", 403, `{"m":"more than any keys"}`, provider.KindLimit, ""},
		{"test", 403, `{"m":"more than keys"}`, provider.KindUnauthorized, "refuses the key"},
		{"test", 403, `{"m":"not more than 5 keys, please"}`, provider.KindLimit, "says nothing about the key"},
		{"test", 401, `{}`, provider.KindUnauthorized, "refuses the key"},
		{"revoke", 400, `{"code":"not_found"}`, 0, ""},
		{"revoke", 200, `{"ok":false,"error":"token_revoked"}`, 0, ""},
		{"revoke", 400, `{"code":"in_use"}`, provider.KindRejected, ""},
		{"revoke", 404, ``, 0, ""},
		{"list", 200, `{"ok":false,"error":"token_expired"}`, provider.KindExpired, ""},
	} {
		t.Run(fmt.Sprintf("%s %d %s", tc.op, tc.status, tc.body), func(t *testing.T) {
			status, body = tc.status, tc.body
			var err error
			switch tc.op {
			case "create":
				_, err = p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
			case "test":
				err = p.Test(t.Context(), nil, provider.Key{ID: "1", Values: map[string]string{"key": "canary"}})
			case "revoke":
				err = p.Revoke(t.Context(), nil, "1")
			case "list":
				_, err = p.List(t.Context(), nil, "")
			}
			if tc.kind == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e := wantError(t, err, tc.kind, tc.text)
			if dead := tc.op == "test" && (tc.kind == provider.KindUnauthorized || tc.kind == provider.KindExpired); tc.op == "test" && provider.Refused(e) != dead {
				t.Errorf("refused: %v", provider.Refused(e))
			}
		})
	}
}

type authServer struct {
	mu      sync.Mutex
	given   int
	current string
	fail    string // what the token endpoint answers instead
	status  int
	expires string
	seen    []string
}

func (a *authServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.URL.Path == "/token" {
		r.ParseForm()
		a.seen = append(a.seen, r.Header.Get("Authorization")+" "+r.PostForm.Encode())
		if a.status != 0 {
			w.WriteHeader(a.status)
			io.WriteString(w, a.fail)
			return
		}
		a.given++
		a.current = fmt.Sprintf("canary-access-%d", a.given)
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer"%s}`, a.current, a.expires)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+a.current {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"m":"bad token %s"}`, r.Header.Get("Authorization"))
		return
	}
	if r.Method == http.MethodPost {
		io.WriteString(w, `{"id":"1","key":"k"}`)
		return
	}
	io.WriteString(w, `[{"id":"1"}]`)
}

func TestOAuth2(t *testing.T) {
	const settings = `{"error_message":"$.m","create":{"url":"BASE/k"},"list":{"url":"BASE/k","items":"$","id":"$.id"},"revoke":{"url":"BASE/k/{{id}}"},
		"auth":{"type":"oauth2","token_url":"BASE/token","client_id":"id:1","client_secret":"{{credential.token}}","scope":"keys:write keys:read","parameters":{"audience":"api"}}}`
	start := func(t *testing.T, a *authServer) (*Provider, *atomic.Int64) {
		p := served(t, settings, a.ServeHTTP)
		offset := &atomic.Int64{}
		p.now = func() time.Time { return fixed().Add(time.Duration(offset.Load())) }
		return p, offset
	}
	list := func(p *Provider) error { _, err := p.List(t.Context(), nil, ""); return err }

	t.Run("the token is kept until its life is nearly over", func(t *testing.T) {
		a := &authServer{expires: `,"expires_in":3600`}
		p, offset := start(t, a)
		for _, step := range []struct {
			at    time.Duration
			given int
		}{{0, 1}, {time.Minute, 1}, {58 * time.Minute, 1}, {59*time.Minute + time.Second, 2}, {90 * time.Minute, 2}, {0, 3}} {
			offset.Store(int64(step.at))
			if err := list(p); err != nil || a.given != step.given {
				t.Fatalf("at %v: %d tokens, want %d: %v", step.at, a.given, step.given, err)
			}
		}
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("id%3A1:canary-token")) + " audience=api&grant_type=client_credentials&scope=keys%3Awrite+keys%3Aread"
		if a.seen[0] != want {
			t.Errorf("asked with\n%s, want\n%s", a.seen[0], want)
		}
	})
	t.Run("many at once ask for one token", func(t *testing.T) {
		a := &authServer{expires: `,"expires_in":"3600"`}
		p, _ := start(t, a)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := list(p); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if a.given != 1 {
			t.Errorf("%d tokens", a.given)
		}
	})
	t.Run("without a life it is used once", func(t *testing.T) {
		a := &authServer{}
		p, _ := start(t, a)
		if err := list(p); err != nil {
			t.Fatal(err)
		}
		if err := list(p); err != nil || a.given != 2 {
			t.Fatalf("%d tokens, %v", a.given, err)
		}
	})
	t.Run("ended early by the service", func(t *testing.T) {
		a := &authServer{expires: `,"expires_in":3600`}
		p, _ := start(t, a)
		if err := list(p); err != nil {
			t.Fatal(err)
		}
		a.current = "another"
		if err := list(p); err != nil || a.given != 2 {
			t.Fatalf("%d tokens, %v", a.given, err)
		}
		// A create is never sent twice.
		a.current = "another"
		_, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
		wantError(t, err, provider.KindTransient, "asks for another")
		if _, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"}); err != nil || a.given != 3 {
			t.Fatalf("%d tokens, %v", a.given, err)
		}
	})
	for _, tc := range []struct {
		name, body string
		status     int
		kind       provider.Kind
	}{
		{"the client is refused", `{"error":"invalid_client"}`, 401, provider.KindUnauthorized},
		{"the client is refused with 400", `{"error":"invalid_client"}`, 400, provider.KindUnauthorized},
		{"it may not", `{"error":"unauthorized_client"}`, 400, provider.KindForbidden},
		{"a scope too many", `{"error":"invalid_scope"}`, 400, provider.KindForbidden},
		{"slow down", ``, 429, provider.KindRateLimited},
		{"down", `<html>`, 502, provider.KindTransient},
		{"no token", `{"token_type":"bearer"}`, 200, provider.KindTransient},
		{"no text", `{"access_token":7}`, 200, provider.KindTransient},
		{"another type", `{"access_token":"canary-x","token_type":"mac"}`, 200, provider.KindTransient},
		{"two lines", `{"access_token":"canary\nx"}`, 200, provider.KindTransient},
		{"a life that is none", `{"access_token":"canary-x","expires_in":"soon"}`, 200, provider.KindTransient},
		{"a redirect", ``, 307, provider.KindRejected},
		{"it echoes", `{"m":"client id:1 with canary-token"}`, 400, provider.KindRejected},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &authServer{status: tc.status, fail: tc.body}
			p, _ := start(t, a)
			for op, err := range map[string]error{
				"list":   list(p),
				"create": func() error { _, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"}); return err }(),
			} {
				e := wantError(t, err, tc.kind, "no access token")
				if e.Op != op || strings.Contains(fmt.Sprintf("%v %+v", e, e), "canary") {
					t.Errorf("%s: %v", op, e)
				}
			}
			if a.given != 0 {
				t.Error("the request was sent all the same")
			}
		})
	}
	t.Run("a fresh token is refused", func(t *testing.T) {
		a := &authServer{expires: `,"expires_in":3600`}
		p := served(t, settings, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				a.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(401)
			fmt.Fprintf(w, `{"m":"bad %s"}`, r.Header.Get("Authorization"))
		})
		e := wantError(t, list(p), provider.KindUnauthorized, "refuses the credential")
		if strings.Contains(e.Error(), "canary") {
			t.Errorf("the token is shown: %v", e)
		}
	})
	t.Run("shown and nothing secret", func(t *testing.T) {
		a := &authServer{}
		p, _ := start(t, a)
		requests, err := p.DryRun(nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(requests)
		var ops []string
		for _, r := range requests {
			ops = append(ops, r.Op)
		}
		if strings.Contains(string(text), "canary") || strings.Join(ops, " ") != "token create list revoke" {
			t.Errorf("%v: %s", ops, text)
		}
	})
	for name, auth := range map[string]string{
		"no url":      `{"type":"oauth2","client_id":"x","client_secret":"y"}`,
		"inner url":   `{"type":"oauth2","token_url":"https://10.0.0.1/t","client_id":"x","client_secret":"y"}`,
		"a parameter": `{"type":"oauth2","token_url":"https://a.example.com/t","client_id":"{{param.p}}","client_secret":"y"}`,
		"a value":     `{"type":"oauth2","token_url":"https://a.example.com/t","client_id":"{{value.key}}","client_secret":"y"}`,
		"itself":      `{"type":"bearer","token":"{{access_token}}"}`,
		"grant twice": `{"type":"oauth2","token_url":"https://a.example.com/t","client_id":"x","client_secret":"y","parameters":{"grant_type":"password"}}`,
	} {
		if _, err := build(t, merge(object(t, minimal), object(t, `{"parameters":{"p":{"required":true}},"auth":`+auth+`,"create":{"json":{"p":"{{param.p}}"}}}`))); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestContentType(t *testing.T) {
	var got, body string
	h := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r.Header.Get("Content-Type"), string(b)
		io.WriteString(w, `{"id":"1","key":"k"}`)
	}
	for settings, want := range map[string]string{
		`"json":{"a":"{{name}}"}`: `application/json {"a":"sr-1"}`,
		`"json":{"a":"{{name}}"},"content_type":"application/vnd.api+json"`:                        `application/vnd.api+json {"a":"sr-1"}`,
		`"form":{"a":"{{name}}"},"content_type":"application/x-www-form-urlencoded;charset=UTF-8"`: `application/x-www-form-urlencoded;charset=UTF-8 a=sr-1`,
	} {
		p := served(t, `{"create":{"url":"BASE/k",`+settings+`}}`, h)
		if _, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"}); err != nil || got+" "+body != want {
			t.Errorf("%s: %s %s, %v", settings, got, body, err)
		}
	}
	for _, bad := range []string{`"json":{},"content_type":"json"`, `"json":{},"content_type":"a/b\nX-Evil: 1"`, `"content_type":"application/json"`,
		`"multipart":{"a":"b"},"content_type":"multipart/mixed"`, `"json":{},"content_type":"application/"`, `"json":{},"content_type":""`} {
		if _, err := build(t, merge(object(t, minimal), object(t, `{"create":{`+bad+`}}`))); err == nil || !strings.Contains(err.Error(), "create.content_type") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestNameForms(t *testing.T) {
	long := lifecycle.MintName{Mount: "0a1b2c3d", Key: "00ff00ff00ff", Installation: "zzzzzzz9", Version: 23456, Attempt: "00000f"}.String()
	if !engineName.MatchString(long) {
		t.Fatalf("%s is not known to be the engine's", long)
	}
	names := []string{long, "sr-ffffffff-ffffffffffff-local-1-ffffff", "sr-00000000-000000000000-0-1-000000", "sr-00000000-000000000000-00000000-999-000000",
		"sr-0123abcd-00000000000a-local-7-00000a-app-production-mail"}
	for settings, form := range map[string]string{
		`{}`:                               `^sr-[a-z0-9-]{3,61}$`,
		`{"max_length":32}`:                `^s[a-z0-9]{31}$`,
		`{"characters":"alphanumeric"}`:    `^s[a-z0-9]{39}$`,
		`{"characters":"underscore"}`:      `^sr_[a-z0-9_]{3,61}$`,
		`{"max_length":40,"case":"upper"}`: `^S[A-Z0-9]{39}$`,
		`{"case":"upper"}`:                 `^SR-[A-Z0-9-]{3,61}$`,
		`{"label":false}`:                  `^sr-[a-z0-9]{8}-[a-z0-9]{12}-[a-z0-9]{1,8}-[0-9]+-[a-z0-9]{6}$`,
	} {
		t.Run(settings, func(t *testing.T) {
			var mu sync.Mutex
			var alive []string
			p := served(t, `{"key_name":`+settings+`,"create":{"url":"BASE/k","json":{"n":"{{name}}"}},"revoke":{"url":"BASE/k/{{name}}"},
				"list":{"url":"BASE/k","items":"$","id":"$.i","name":"$.n"}}`, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				switch r.Method {
				case http.MethodPost:
					var in struct{ N string }
					json.NewDecoder(r.Body).Decode(&in)
					alive = append(alive, in.N)
					fmt.Fprintf(w, `{"id":"%d","key":"k"}`, len(alive))
				case http.MethodDelete:
					name, _ := url.PathUnescape(strings.TrimPrefix(r.URL.Path, "/k/"))
					for i, n := range alive {
						if n == name {
							alive[i] = ""
							return
						}
					}
					w.WriteHeader(404)
				default:
					items := []any{}
					for i, n := range append(alive, "s", "x", "S0", "x1", strings.Repeat("s", 32), "szz", "theirs", "") {
						items = append(items, map[string]any{"i": i + 1, "n": n})
					}
					json.NewEncoder(w).Encode(items)
				}
			})
			seen := map[string]bool{}
			for _, name := range names {
				if _, err := p.Create(t.Context(), provider.CreateRequest{Name: name}); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range alive {
				if ok, _ := regexp.MatchString(form, n); !ok || seen[n] {
					t.Errorf("sent %q, want one of its own of the form %s", n, form)
				}
				seen[n] = true
			}
			for i, name := range names {
				keys, err := p.List(t.Context(), nil, lifecycle.WithoutLabel(name))
				if err != nil || len(keys) != 1 || !lifecycle.ListedAs(name, keys[0].Name) || keys[0].ID != fmt.Sprint(i+1) {
					t.Errorf("%s: %v, %v", name, keys, err)
				}
			}
			// All of the key's, and only those.
			if keys, err := p.List(t.Context(), nil, "sr-00000000-000000000000-"); err != nil || len(keys) != 2 {
				t.Errorf("by prefix: %v, %v", keys, err)
			}
			if err := p.RevokeNamed(t.Context(), nil, "1", names[0]); err != nil || alive[0] != "" || alive[1] == "" {
				t.Errorf("revoke by name: %v, %q", err, alive)
			}
			if err := p.Revoke(t.Context(), nil, "2"); err != nil || alive[1] != "" || alive[2] == "" { // the list knows the name
				t.Errorf("revoke by id: %v, %q", err, alive)
			}
			wantError(t, p.Revoke(t.Context(), nil, "999"), provider.KindNotFound, "does not list")
		})
	}
	for _, bad := range []string{`{"max_length":31}`, `{"characters":"emoji"}`, `{"case":"mixed"}`, `{"lenght":40}`} {
		if _, err := build(t, merge(object(t, minimal), object(t, `{"key_name":`+bad+`}`))); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	if _, err := build(t, merge(object(t, minimal), object(t, `{"key_name":{"max_length":32},"list":{"url":"https://a.example.com/","query":{"q":"{{prefix}}"},"items":"$","id":"$.id"}}`))); err == nil {
		t.Error("packed names are asked for by their beginning")
	}
}

func TestParameterBounds(t *testing.T) {
	p, err := build(t, merge(object(t, minimal), object(t, `{"parameters":{"u":{"pattern":"[A-Z_][A-Z0-9_$]*","required":true},"d":{"type":"integer","min":1,"max":365,"default":15}},
		"create":{"json":{"statement":"ALTER USER {{param.u}} ADD PAT DAYS {{param.d}}"}}}`)))
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{`{"u":"DAGSTER"}`, `{"u":"A1_$","d":1}`, `{"u":"A","d":"365"}`} {
		if err := p.ValidateParameters(object(t, good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		`{"u":"DAGSTER; DROP USER X"}`: "is not of the form", `{"u":"A B"}`: "form", `{"u":"A\"--"}`: "form", `{"u":"A'"}`: "form", `{"u":""}`: "form",
		`{"u":"A\n"}`: "control", `{"u":"A\u2028B"}`: "form", `{"u":"a"}`: "form", `{"u":"Ä"}`: "form", `{"u":"A","d":0}`: "not within 1 to 365",
		`{"u":"A","d":366}`: "within", `{"u":"A","d":-1}`: "within", `{"u":"A","d":"1 OR 1"}`: "whole number", `{"u":"A","d":1.5}`: "whole number",
	} {
		if err := p.ValidateParameters(object(t, bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
	for bad, want := range map[string]string{
		`{"type":"integer","pattern":"x"}`:         "only for parameters of type string",
		`{"min":1}`:                                "only for parameters of type integer",
		`{"type":"integer","min":2,"max":1}`:       "is above max",
		`{"pattern":"("}`:                          "no regular expression",
		`{"pattern":"a|b)|(.*"}`:                   "no regular expression",
		`{"pattern":"[a-z]+","default":"A"}`:       "is not of the form",
		`{"type":"integer","min":5,"default":"4"}`: "is not within",
	} {
		_, err := build(t, merge(object(t, minimal), object(t, `{"parameters":{"p":`+bad+`},"create":{"json":{"p":"{{param.p}}"}}}`)))
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
}

func TestNumbersAreExact(t *testing.T) {
	decoded, err := decode([]byte(`{"parameters":{"a":{},"i":{"type":"integer"},"t":{"type":"table"}},"variables":{"account":123456789012},
		"create":{"url":"https://api.example.com/{{var.account}}","json":{"a":"{{param.a}}","i":"{{param.i}}","t":"{{param.t}}","n":12345678901234567890}}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := build(t, merge(object(t, minimal), decoded.(map[string]any)))
	if err != nil {
		t.Fatal(err)
	}
	params, err := decode([]byte(`{"a":123456789012,"i":9007199254740993,"t":{"big":9223372036854775807}}`))
	if err != nil {
		t.Fatal(err)
	}
	requests, err := p.DryRun(params.(map[string]any))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a":"123456789012","i":9007199254740993,"n":12345678901234567890,"t":{"big":9223372036854775807}}`; requests[0].Body != want || requests[0].URL != "https://api.example.com/123456789012" {
		t.Errorf("%s %s", requests[0].URL, requests[0].Body)
	}
	for _, lost := range []any{1 << 53, 9007199254740993.0, 1.5, 1e300} {
		if f, ok := lost.(float64); ok {
			if err := p.ValidateParameters(map[string]any{"i": f}); err == nil {
				t.Errorf("%v has lost digits and is accepted", f)
			}
		}
	}
}

func TestDestinations(t *testing.T) {
	p, err := build(t, merge(object(t, minimal), object(t, `{"variables":{"h":"https://b.example.com:8443"},
		"auth":{"type":"oauth2","token_url":"https://login.example.com/t","client_id":"x","client_secret":"{{credential.token}}"},
		"create":{"url":"https://a.example.com/k"},
		"test":{"url":"{{var.h}}/me","auth":{"type":"bearer","token":"{{value.key}}"}},
		"revoke":{"url":"https://c.example.com/{{id}}","auth":{"type":"none"}}}`)))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Destinations()); got != "[{credential https://login.example.com} {credential https://a.example.com} {value https://b.example.com:8443}]" {
		t.Errorf("%s", got)
	}
}

// The header that is there to say why a bearer token is refused is believed.
func TestBearerChallenge(t *testing.T) {
	var status int
	var header string
	p := served(t, `{"create":{"url":"BASE/k"},"test":{"url":"BASE/t"},"list":{"url":"BASE/k","items":"$","id":"$.id"}}`, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", header)
		w.WriteHeader(status)
	})
	for _, tc := range []struct {
		status     int
		header     string
		test, list provider.Kind
	}{
		{403, `Bearer realm="x", error="insufficient_scope", scope="keys:read"`, provider.KindForbidden, provider.KindForbidden},
		{401, `Bearer error="invalid_token", error_description="The access token expired"`, provider.KindExpired, provider.KindExpired},
		{401, `bearer error="invalid_token", error_description="revoked"`, provider.KindUnauthorized, provider.KindUnauthorized},
		{403, `Bearer error="invalid_token"`, provider.KindUnauthorized, provider.KindUnauthorized},
		{401, `Bearer error="invalid_token", error_description="invalid, expired or revoked"`, provider.KindUnauthorized, provider.KindUnauthorized},
		{401, `Bearer realm="error=\"insufficient_scope\""`, provider.KindUnauthorized, provider.KindUnauthorized},
		{401, `Basic realm="x"`, provider.KindUnauthorized, provider.KindUnauthorized},
		{403, ``, provider.KindUnauthorized, provider.KindForbidden},
		{400, `Bearer error="invalid_token"`, provider.KindRejected, provider.KindRejected},
	} {
		status, header = tc.status, tc.header
		wantError(t, p.Test(t.Context(), nil, provider.Key{ID: "1"}), tc.test, "")
		_, err := p.List(t.Context(), nil, "")
		wantError(t, err, tc.list, "")
	}
}
