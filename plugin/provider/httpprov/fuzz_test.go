package httpprov

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// A value cannot leave its segment of the path, whatever the template.
func FuzzTemplate(f *testing.F) {
	f.Add("/a/{{param.x}}/b", "../c")
	f.Add("{{name}}{{name}}", "a?b#c")
	f.Add("{{ value.key }}", "%2e%2e")
	f.Add("}}{{", "")
	f.Fuzz(func(t *testing.T, text, value string) {
		tmpl, err := parseTemplate(text)
		if err != nil {
			return
		}
		s := scope{}
		for _, ref := range tmpl.refs() {
			if !validRef(ref) {
				t.Fatalf("%q is taken for a reference", ref)
			}
			s[ref] = value
		}
		plain, err := tmpl.render(s, nil)
		if err != nil {
			t.Fatalf("every reference has a value: %v", err)
		}
		if len(tmpl.refs()) == 0 && plain != text {
			t.Fatalf("%q became %q", text, plain)
		}
		escaped, err := escapeSegment(value)
		if err != nil {
			return
		}
		u, err := url.Parse("https://example.com/a/" + escaped + "/z")
		if err != nil || u.Host != "example.com" || u.RawQuery != "" || u.Fragment != "" || strings.Count(u.EscapedPath(), "/") != 3 {
			t.Fatalf("%q changed the URL: %v, %v", value, u, err)
		}
	})
}

// A value cannot leave its string of a JSON body.
func FuzzBody(f *testing.F) {
	f.Add(`{"a":"x{{name}}y","b":["{{name}}"]}`, `","admin":"`)
	f.Add(`["{{name}}"]`, "\xff\x00\u2028")
	f.Fuzz(func(t *testing.T, body, value string) {
		v, err := decode([]byte(body))
		if err != nil {
			return
		}
		budget := maxNodes
		n, err := parseNode(v, 0, &budget)
		if err != nil {
			return
		}
		count := func(value string) int {
			s := scope{}
			for _, tmpl := range n.templates() {
				for _, ref := range tmpl.refs() {
					s[ref] = value
				}
			}
			built, _, err := n.build(s)
			if err != nil {
				t.Fatalf("every reference has a value: %v", err)
			}
			text, err := json.Marshal(built)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decode(text)
			if err != nil {
				t.Fatalf("what is sent is no JSON: %s", text)
			}
			return nodes(again)
		}
		if a, b := count("harmless"), count(value); a != b {
			t.Fatalf("%q made %d parts of %d", value, b, a)
		}
	})
}

func nodes(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			n += nodes(one)
		}
	case map[string]any:
		for _, one := range v {
			n += nodes(one)
		}
	}
	return n
}

// Settings are refused or work: none makes the provider fail later, or sends
// anything to an address inside.
func FuzzSettings(f *testing.F) {
	f.Add([]byte(minimal), []byte(`{}`))
	full, err := json.Marshal(acmeSettings("https://api.example.com", ""))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full, []byte(`{"team":"x"}`))
	f.Add([]byte(`{"allow_http":true,"allow_addresses":["10.0.0.0/8"],"create":{"url":"http://10.0.0.1/","id":"$.i","values":{"key":"$.k"}}}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, settings, params []byte) {
		var s, p map[string]any
		if json.Unmarshal(settings, &s) != nil || json.Unmarshal(params, &p) != nil {
			return
		}
		made, err := New(provider.Config{Settings: s, Now: fixed, Credential: map[string]string{"token": "canary-token"}})
		if err != nil {
			if strings.Contains(err.Error(), "canary-token") {
				t.Fatalf("the credential is shown: %v", err)
			}
			return
		}
		hp := made.(*Provider)
		hp.Capabilities()
		requests, err := hp.DryRun(p)
		if err != nil {
			return
		}
		for _, r := range requests {
			u, err := url.Parse(r.URL)
			if err != nil {
				t.Fatalf("%q is no URL", r.URL)
			}
			if err := hp.client.CheckURL(u); err != nil {
				t.Fatalf("%q: %v", r.URL, err)
			}
		}
	})
}

// No answer makes the provider panic, and none is quoted.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"data":{"id":"canary-1","token":"canary-2","secret":"s"}}`), 201)
	f.Add([]byte(`{"data":[{"id":1,"label":"canary","created":1e99}]}`), 200)
	f.Add([]byte(`{"at":"canary","error":{"message":"canary"}}`), 200)
	f.Add([]byte(`{"data":{"id":["canary"],"token":{"canary":1},"secret":null}}`), 200)
	f.Add([]byte(strings.Repeat(`[`, 500)), 500)
	made, err := New(provider.Config{
		Settings: acmeSettingsForFuzz(), Now: fixed, Credential: map[string]string{"token": "x"},
	})
	if err != nil {
		f.Fatal(err)
	}
	p := made.(*Provider)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		key, err := p.create.read(body, fixed(), time.Time{}, nil)
		if err == nil && (key.ID == "" || key.Values["key"] == "" || key.Values["secret"] == "" || hasControl(key.ID) || len(key.ID) > maxID) {
			t.Fatalf("half a key: %v", key)
		}
		quotes(t, err)
		listed, _, err := p.readList(body)
		for _, k := range listed {
			if k.ID == "" && k.odd == nil {
				t.Fatal("a key without an id")
			}
		}
		quotes(t, err)
		m := &masker{}
		m.add("canary")
		if said := p.said(body, m); strings.Contains(said, "canary") {
			t.Fatalf("a secret is shown: %s", said)
		}
		p.list.paging.start().advance(map[string]any{}, nil, status)
	})
}

func acmeSettingsForFuzz() map[string]any {
	s := acmeSettings("https://api.example.com", "")
	delete(s, "ca_certificate")
	return s
}

func quotes(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "canary") {
		t.Fatalf("the answer is quoted: %v", err)
	}
}

// No secret survives, however the message is put together.
func FuzzMask(f *testing.F) {
	f.Add("the key hunter2 is wrong", "hunter2")
	f.Add("aaaaabaaaab", "aaab")
	f.Add("a\nbb \x00 cc\td", "bb cc")
	f.Add("x bb  cc", "bb  cc")
	f.Fuzz(func(t *testing.T, text, secret string) {
		// Credentials and keys come as JSON, so they are valid UTF-8.
		if len(secret) < 4 || !utf8.ValidString(secret) || strings.Contains(provider.Masked+"…", secret) || strings.Trim(secret, "* \t\r\n…") != secret {
			return
		}
		m := &masker{}
		m.add(secret)
		if got := m.message(text); strings.Contains(got, secret) && !strings.ContainsAny(secret, "*") {
			t.Fatalf("%q holds %q", got, secret)
		}
	})
}

// Whatever a service asks for, the wait is sane.
func FuzzRetryAfter(f *testing.F) {
	f.Add("3", "4")
	f.Add("", "1795532645")
	f.Add("Tue, 24 Nov 2026 15:01:30 GMT", "NaN")
	f.Fuzz(func(t *testing.T, standard, own string) {
		h := http.Header{}
		h.Set("Retry-After", standard)
		h.Set("X-Own", own)
		if d := retryAfter(h, "X-Own", fixed()); d < 0 || d > 24*60*60*1e9 {
			t.Fatalf("%v", d)
		}
	})
}

// Each name that fits comes back from what the service shows, and whatever a
// service shows is a name of ours only if we would send it.
func FuzzNames(f *testing.F) {
	f.Add("sr-0a1b2c3d-00ff00ff00ff-local-1-00000f", uint8(0))
	f.Add("s00000000000000000000000000000000", uint8(1))
	f.Add("X1", uint8(3))
	f.Add("a_b-c", uint8(2))
	f.Add("sr-0a1b2c3d-00ff00ff00ff-local-1-00000f-app-mail", uint8(5))
	forms := []nameForm{{}, {max: 32}, {max: 64, joiner: '_'}, {max: 40, upper: true}, {max: 64, joiner: '-', upper: true}, {max: 64, joiner: '-', bare: true}}
	f.Fuzz(func(t *testing.T, name string, which uint8) {
		form := forms[int(which)%len(forms)]
		if sent, err := form.encode(name); err == nil && provider.CheckName(name) == nil {
			if back := form.decode(sent); back != name && !lifecycle.ListedAs(name, back) {
				t.Fatalf("%q is sent as %q, which is read as %q", name, sent, back)
			}
		}
		if ours := form.decode(name); ours != name {
			if again, err := form.encode(ours); err != nil || !strings.EqualFold(again, name) {
				t.Fatalf("%q is taken for %q, which would be sent as %q, %v", name, ours, again, err)
			}
		}
	})
}

// What is read as a time is one that a service could mean.
func FuzzReadTime(f *testing.F) {
	for _, seed := range []string{"2026-11-24T15:04:05Z", "1795532645", "1795532645123456789", "29/11/2026", "-1", "1.5e9", "1795532645.0 1440", "Tue, 24 Nov 2026 15:04:05 CET"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := readTime(text)
		if !ok && !at.IsZero() {
			t.Fatalf("%q: unreadable, and %v", text, at)
		}
		if ok && !at.IsZero() && (at.Location() != time.UTC || at.Year() < 2) {
			t.Fatalf("%q: %v", text, at)
		}
	})
}
