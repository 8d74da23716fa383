package httpprov

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

// object reads settings as the engine hands them over.
func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return m
}

func build(t *testing.T, settings map[string]any) (*Provider, error) {
	t.Helper()
	p, err := New(provider.Config{Name: "x", Settings: settings, Now: fixed, Credential: map[string]string{"token": "canary-token"}})
	if err != nil {
		return nil, err
	}
	return p.(*Provider), nil
}

// fixed is the clock of these tests.
func fixed() time.Time { return time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC) }

const minimal = `{"create":{"url":"https://api.example.com/keys","id":"$.id","values":{"key":"$.key"}}}`

// merge lays b over a, table by table.
func merge(a, b map[string]any) map[string]any {
	for k, v := range b {
		if sub, ok := v.(map[string]any); ok {
			if old, ok := a[k].(map[string]any); ok {
				a[k] = merge(old, sub)
				continue
			}
		}
		a[k] = v
	}
	return a
}

func TestSettingsAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name, over string
		want       []string
	}{
		{"unknown setting", `{"creat":{}}`, []string{"settings.creat: is not known here"}},
		{"unknown in a request", `{"create":{"uri":"x"}}`, []string{"settings.create.uri: is not known"}},
		{"all faults at once", `{"timeout":"1h","max_keys":-1,"create":{"method":"BREW","id":"nope"}}`,
			[]string{"settings.timeout", "settings.max_keys", "settings.create.method", "settings.create.id"}},

		{"http", `{"create":{"url":"http://api.example.com/keys"}}`, []string{"https://"}},
		{"http without addresses", `{"allow_http":true}`, []string{"allow_http: needs allow_addresses"}},
		{"http to elsewhere", `{"allow_http":true,"allow_addresses":["10.0.0.0/8"],"create":{"url":"http://192.168.1.1/keys"}}`, []string{"allow_addresses"}},
		{"loopback", `{"create":{"url":"https://127.0.0.1/keys"}}`, []string{"loopback"}},
		{"metadata", `{"create":{"url":"https://169.254.169.254/latest"}}`, []string{"link-local"}},
		{"mapped", `{"create":{"url":"https://[::ffff:10.0.0.1]/x"}}`, []string{"mapped"}},
		{"address wider than wide", `{"allow_addresses":["0.0.0.0/0"]}`, []string{"too wide"}},
		{"file", `{"create":{"url":"file:///etc/passwd"}}`, []string{"must begin with https://host/"}},
		{"no url", `{"list":{"items":"$","id":"$.id"}}`, []string{"settings.list.url: is missing"}},
		{"user in url", `{"create":{"url":"https://u:p@example.com/"}}`, []string{"must begin with https://host/"}},
		{"query in url", `{"create":{"url":"https://example.com/?a=b"}}`, []string{"query goes into the table query"}},
		{"fragment in url", `{"create":{"url":"https://example.com/#a"}}`, []string{"must not hold ?, #"}},
		{"dots in url", `{"create":{"url":"https://example.com/a/../b"}}`, []string{"must not hold . or .."}},
		{"parameter as host", `{"parameters":{"h":{"required":true}},"create":{"url":"https://{{param.h}}/x"}}`, []string{"must begin with https://host/"}},
		{"parameter ends the host", `{"parameters":{"h":{"required":true}},"create":{"url":"https://example.com{{param.h}}/x"}}`, []string{"must begin with https://host/"}},
		{"name as host", `{"create":{"url":"{{name}}"}}`, []string{"must begin with https://host/"}},
		{"host from an inner variable", `{"variables":{"h":"https://10.0.0.1"},"create":{"url":"{{var.h}}/x"}}`, []string{"private"}},
		{"variable smuggles a query", `{"variables":{"h":"https://example.com/?x="},"create":{"url":"{{var.h}}/x"}}`, []string{"must not hold ?"}},
		{"secret in url", `{"create":{"url":"https://example.com/{{credential.token}}"}}`, []string{"{{credential.token}} is secret"}},
		{"secret in query", `{"create":{"query":{"k":"{{credential.token}}"}}}`, []string{"is secret"}},

		{"unset variable", `{"variables":{"url":""},"create":{"url":"{{var.url}}/keys"}}`, []string{"settings.variables.url: is empty"}},
		{"unused variable", `{"variables":{"url":"https://x.example.com"}}`, []string{"variables: url is used by no request"}},
		{"undeclared variable", `{"create":{"url":"{{var.url}}/keys"}}`, []string{"{{var.url}} is not declared"}},
		{"undeclared variable in a body", `{"create":{"json":{"a":["{{var.x}}"]}}}`, []string{"{{var.x}} is not declared"}},
		{"bad name of a variable", `{"variables":{"a b":"x"}}`, []string{"is no name"}},
		{"undeclared parameter", `{"create":{"json":{"a":"{{param.x}}"}}}`, []string{"{{param.x}} is not declared"}},
		{"unused parameter", `{"parameters":{"x":{}}}`, []string{"parameters: x is used by no request"}},
		{"bad name of a parameter", `{"parameters":{"a b":{}}}`, []string{"is no name"}},
		{"unknown type", `{"parameters":{"x":{"type":"float"}}}`, []string{`"float" is not one of`}},
		{"required with a default", `{"parameters":{"x":{"required":true,"default":"y"}}}`, []string{"cannot stand beside required"}},
		{"bad default", `{"parameters":{"x":{"type":"integer","default":"y"}}}`, []string{"must be a whole number"}},
		{"allowed numbers", `{"parameters":{"x":{"type":"integer","allowed":["1"]}}}`, []string{"only for parameters of type string"}},
		{"optional in a path", `{"parameters":{"x":{}},"create":{"url":"https://example.com/{{param.x}}"}}`, []string{"is optional"}},
		{"optional within text", `{"parameters":{"x":{}},"create":{"json":{"a":"x{{param.x}}"}}}`, []string{"is optional"}},
		{"list in a header", `{"parameters":{"x":{"type":"list"}},"create":{"headers":{"X-A":"{{param.x}}"}}}`, []string{"is a list"}},
		{"table within text", `{"parameters":{"x":{"type":"table","required":true}},"create":{"json":{"a":"b{{param.x}}"}}}`, []string{"is a table"}},
		{"missing credential", `{"create":{"headers":{"X-A":"{{credential.other}}"}}}`, []string{`write "other" into the provider's credential`}},
		{"broken template", `{"create":{"headers":{"X-A":"{{name"}}}`, []string{"{{ without }}"}},
		{"value in create", `{"create":{"headers":{"X-A":"{{value.key}}"}}}`, []string{"{{value.key}} is not known in this request"}},
		{"unknown value", `{"test":{"url":"https://example.com/","headers":{"X-A":"{{value.other}}"}}}`, []string{"none of the values that create extracts"}},
		{"id in create", `{"create":{"json":{"a":"{{id}}"}}}`, []string{"{{id}} is not known"}},
		{"expiry without lifetime", `{"create":{"json":{"a":"{{expires.date}}"}}}`, []string{"with lifetime"}},
		{"unknown expiry", `{"create":{"lifetime":"24h","json":{"a":"{{expires.week}}"}}}`, []string{"none of rfc3339"}},
		{"lifetime of a second", `{"create":{"lifetime":"1s"}}`, []string{"settings.create.lifetime"}},

		{"header of ours", `{"create":{"headers":{"host":"x"}}}`, []string{"set by the engine itself"}},
		{"no header", `{"create":{"headers":{"X A":"x"}}}`, []string{"no name of a header"}},
		{"auth twice", `{"auth":{"type":"bearer","token":"{{credential.token}}"},"create":{"headers":{"authorization":"x"}}}`, []string{"Authorization is set by auth already"}},
		{"bearer without token", `{"auth":{"type":"bearer"}}`, []string{"settings.auth.token: is missing"}},
		{"basic by half", `{"auth":{"type":"basic","username":"x"}}`, []string{"settings.auth.password: is missing"}},
		{"header without headers", `{"auth":{"type":"header"}}`, []string{"settings.auth.headers: is missing"}},
		{"unknown auth", `{"auth":{"type":"digest"}}`, []string{`"digest" is not one of`}},
		{"two bodies", `{"create":{"json":{},"form":{"a":"b"}}}`, []string{"more than one of json, form and multipart"}},
		{"body of a GET", `{"list":{"url":"https://example.com/","items":"$","id":"$.id","json":{}}}`, []string{"a GET request carries no body"}},

		{"no create", `{"create":null}`, []string{"settings.create: is missing"}},
		{"no values", `{"create":{"values":null}}`, []string{"settings.create.values: is missing"}},
		{"no key among values", `{"create":{"values":{"key":null,"other":"$.o"}}}`, []string{"settings.create.values.key: is missing"}},
		{"bad path", `{"create":{"id":"id"}}`, []string{`"id" is no JSONPath: begin with $`}},
		{"bad name of a value", `{"create":{"values":{"a b":"$.x"}}}`, []string{"is no name"}},
		{"success of 100", `{"create":{"success":[100]}}`, []string{"from 200 to 599"}},
		{"success of nothing", `{"create":{"success":[]}}`, []string{"1 to 20 status codes"}},
		{"success is a number", `{"create":{"success":200}}`, []string{"must be a list of status codes"}},
		{"overlap of what replaces itself", `{"overlap":true,"create":{"replaces_current":true}}`, []string{"settings.overlap: cannot be true"}},
		{"paging without a parameter", `{"list":{"url":"https://example.com/","items":"$","id":"$.id","paging":{"type":"page"}}}`, []string{"paging.parameter: is missing"}},
		{"cursor without next", `{"list":{"url":"https://example.com/","items":"$","id":"$.id","paging":{"type":"cursor","parameter":"c"}}}`, []string{"paging.next: is missing"}},
		{"unknown paging", `{"list":{"url":"https://example.com/","items":"$","id":"$.id","paging":{"type":"scroll","parameter":"c"}}}`, []string{`"scroll" is not one of`}},
		{"paging's parameter in query", `{"list":{"url":"https://example.com/","query":{"p":"1"},"items":"$","id":"$.id","paging":{"type":"page","parameter":"p"}}}`, []string{"p is set by paging already"}},
		{"condition is a list", `{"test":{"url":"https://example.com/","expect":{"$.a":[]}}}`, []string{"must be a string, a number or a boolean"}},
		{"condition on no path", `{"test":{"url":"https://example.com/","expect":{"a":"b"}}}`, []string{"is no JSONPath"}},
		{"no certificate", `{"ca_certificate":"hello"}`, []string{"holds no certificate"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := build(t, merge(object(t, minimal), object(t, tc.over)))
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %q in it", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
	if _, err := build(t, object(t, minimal)); err != nil {
		t.Fatalf("the base of all these is refused itself: %v", err)
	}
}

func TestConfigIsRefused(t *testing.T) {
	if _, err := New(provider.Config{Settings: object(t, minimal)}); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("without a clock: %v", err)
	}
	_, err := New(provider.Config{Settings: object(t, minimal), Now: time.Now, Credential: map[string]string{"token": "canary\n"}})
	if err == nil || !strings.Contains(err.Error(), `"token" holds a control character`) || strings.Contains(err.Error(), "canary") {
		t.Errorf("a line break in the credential: %v", err)
	}
}

func TestParameters(t *testing.T) {
	p, err := build(t, merge(object(t, minimal), object(t, `{
		"parameters":{"s":{"allowed":["a","b"],"default":"a"},"i":{"type":"integer"},"b":{"type":"boolean"},
			"l":{"type":"list"},"t":{"type":"table"},"r":{"required":true}},
		"create":{"json":{"s":"{{param.s}}","i":"{{param.i}}","b":"{{param.b}}","l":"{{param.l}}","t":"{{param.t}}","r":"{{param.r}}","n":"{{name}}"}}}`)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ in, body, bad string }{
		{in: `{"r":"x"}`, body: `{"n":"NAME","r":"x","s":"a"}`},
		{in: `{"r":"x","s":"b","i":7,"b":true,"l":["u"],"t":{"k":1}}`, body: `{"b":true,"i":7,"l":["u"],"n":"NAME","r":"x","s":"b","t":{"k":1}}`},
		{in: `{"r":"x","i":"7","b":"false","l":"[\"u\"]","t":"{\"k\":1}"}`, body: `{"b":false,"i":7,"l":["u"],"n":"NAME","r":"x","s":"a","t":{"k":1}}`},
		{in: `{}`, bad: "parameters.r: is required"},
		{in: `{"r":null}`, bad: "is required"},
		{in: `{"r":true}`, bad: "must be a string"},
		{in: `{"r":7}`, body: `{"n":"NAME","r":"7","s":"a"}`},     // vault write makes a number of it
		{in: `{"r":123456789012345678}`, bad: "must be a string"}, // a float has lost its digits
		{in: `{"r":"a\u0000"}`, bad: "control character"},
		{in: `{"r":"x","s":"c"}`, bad: `"c" is not one of a, b`},
		{in: `{"r":"x","i":1.5}`, bad: "must be a whole number"},
		{in: `{"r":"x","b":1}`, bad: "must be true or false"},
		{in: `{"r":"x","l":{"k":1}}`, bad: "must be a list"},
		{in: `{"r":"x","t":[1]}`, bad: "must be a table"},
		{in: `{"r":"x","l":"nonsense"}`, bad: "written as JSON"},
		{in: `{"r":"x","t":7}`, bad: "must be a table"},
		{in: `{"r":"x","other":7}`, bad: "parameters.other: is not known"},
		{in: `{"r":"` + strings.Repeat("x", maxParamText+1) + `"}`, bad: "bytes"},
		{in: `{"r":"x","l":["` + strings.Repeat("x", maxParamJSON) + `"]}`, bad: "bytes as JSON"},
		{in: `{"r":"x","l":"` + strings.Repeat(" ", maxParamJSON+1) + `"}`, bad: "more than"},
	} {
		params := object(t, tc.in)
		err := p.ValidateParameters(params)
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) {
				t.Errorf("%.60s: %v, want %q", tc.in, err, tc.bad)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		requests, err := p.DryRun(params)
		if err != nil || len(requests) != 1 || requests[0].Body != tc.body {
			t.Errorf("%s: %+v, %v\nwant %s", tc.in, requests, err, tc.body)
		}
	}
	err = p.ValidateParameters(object(t, `{"s":"c","i":"x","z":1}`))
	if n := len(strings.Split(err.Error(), "\n")); n != 4 {
		t.Errorf("%d faults at once, want 4: %v", n, err)
	}
}

func TestDryRunShowsNoSecret(t *testing.T) {
	p, err := build(t, merge(object(t, minimal), object(t, `{
		"auth":{"type":"basic","username":"u","password":"{{credential.token}}"},
		"create":{"form":{"n":"{{name}}","t":"{{credential.token}}"},"lifetime":"24h","query":{"until":"{{expires.unix}}"}},
		"list":{"url":"https://api.example.com/keys","query":{"q":"{{prefix}}"},"items":"$","id":"$.id"},
		"test":{"url":"https://api.example.com/me","auth":{"type":"bearer","token":"{{value.key}}"}},
		"last_used":{"url":"https://api.example.com/keys/{{id}}/use","time":"$.t"},
		"revoke":{"url":"https://api.example.com/keys/{{id}}"}}`)))
	if err != nil {
		t.Fatal(err)
	}
	requests, err := p.DryRun(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(requests)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "canary") || strings.Contains(string(text), "dTpjYW5hcnk") {
		t.Errorf("a secret is shown: %s", text)
	}
	var ops []string
	for _, r := range requests {
		ops = append(ops, r.Op+" "+r.Method+" "+r.URL)
	}
	if want := fmt.Sprintf("create POST https://api.example.com/keys?until=%d", fixed().Unix()+86400); ops[0] != want {
		t.Errorf("%s, want %s", ops[0], want)
	}
	if got := strings.Join(ops[1:], "\n"); got != `list GET https://api.example.com/keys?q=PREFIX
test GET https://api.example.com/me
last_used GET https://api.example.com/keys/ID/use
revoke DELETE https://api.example.com/keys/ID` {
		t.Errorf("got\n%s", got)
	}
	if got := requests[0].Header["Authorization"]; got != "Basic "+provider.Masked {
		t.Errorf("basic: %q", got)
	}
	if got := requests[2].Header["Authorization"]; got != "Bearer "+provider.Masked {
		t.Errorf("bearer: %q", got)
	}
}

// Keys count together that one list would show.
func TestPool(t *testing.T) {
	const params = `"parameters":{"user":{"default":"d"},"role":{"default":"r"}},`
	for settings, want := range map[string]bool{
		params + `"list":{"url":"https://a.example.com/users/{{param.user}}/keys","items":"$","id":"$.id"}`:                        true,
		params + `"list":{"url":"https://a.example.com/keys","query":{"u":"{{param.user}}"},"items":"$","id":"$.id"}`:              true,
		params + `"list":{"url":"https://a.example.com/q","method":"POST","json":{"of":"{{param.user}}"},"items":"$","id":"$.id"}`: true,
		params + `"list":{"url":"https://a.example.com/keys","items":"$","id":"$.id"},"create":{"json":{"u":"{{param.user}}"}}`:    false,
		params + `"create":{"url":"https://a.example.com/users/{{param.user}}/keys","json":{"r":"{{param.role}}"}}`:                true,
		params + `"create":{"json":{"u":"{{param.user}}","r":"{{param.role}}"}}`:                                                   false,
	} {
		if !strings.Contains(settings, "param.role") {
			settings += `,"test":{"url":"https://a.example.com/{{param.role}}","headers":{"x":"{{value.key}}"}}`
		}
		if strings.Count(settings, "param.user") == 0 {
			t.Fatal(settings)
		}
		p, err := build(t, merge(object(t, minimal), object(t, "{"+settings+"}")))
		if err != nil {
			t.Errorf("%s: %v", settings, err)
			continue
		}
		pool := func(user, role any) string { return provider.Pool(p, map[string]any{"user": user, "role": role}) }
		if got := pool("x", "1") != pool("y", "1"); got != want {
			t.Errorf("%s: users are apart: %v", settings, got)
		}
		if pool("x", "1") != pool("x", "2") || pool(nil, "1") != pool("d", "1") {
			t.Errorf("%s: one user's keys are apart", settings)
		}
	}
}
