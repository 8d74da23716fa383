package httpprov

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

// served is a provider whose requests go to h: BASE in settings stands for the
// server's URL.
func served(t *testing.T, settings string, h http.HandlerFunc) *Provider {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	m := merge(object(t, minimal), object(t, strings.ReplaceAll(settings, "BASE", s.URL)))
	m["allow_addresses"] = "127.0.0.1"
	m["ca_certificate"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	p, err := build(t, m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantError(t *testing.T, err error, kind provider.Kind, text string) *provider.Error {
	t.Helper()
	var e *provider.Error
	if !errors.As(err, &e) || e.Kind != kind || !strings.Contains(e.Error(), text) {
		t.Fatalf("%v, want kind %v and %q", err, kind, text)
	}
	return e
}

func TestPaging(t *testing.T) {
	keys := func(from, to int) string {
		var items []string
		for i := from; i < to; i++ {
			items = append(items, fmt.Sprintf(`{"id":%d}`, i))
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	const base = `"url":"BASE/keys","items":"$.items","id":"$.id"`
	for _, tc := range []struct {
		name, list string
		answer     func(r *http.Request, base string) string
		want       int // keys; -1: refused
		requests   int
	}{
		{"none", `{"list":{` + base + `}}`, func(*http.Request, string) string { return `{"items":` + keys(0, 3) + `}` }, 3, 1},
		{"offset", `{"list":{` + base + `,"paging":{"type":"offset","parameter":"o"}}}`, func(r *http.Request, _ string) string {
			switch r.URL.Query().Get("o") {
			case "0":
				return `{"items":` + keys(0, 3) + `}`
			case "3":
				return `{"items":` + keys(3, 5) + `}`
			}
			return `{"items":[]}`
		}, 5, 4},
		{"page to an empty one", `{"list":{` + base + `,"paging":{"type":"page","parameter":"p","first":0}}}`, func(r *http.Request, _ string) string {
			if r.URL.Query().Get("p") == "0" {
				return `{"items":` + keys(0, 3) + `}`
			}
			return `{"items":null}`
		}, 3, 3},
		{"page with a total", `{"list":{` + base + `,"paging":{"type":"page","parameter":"p","total_pages":"$.n"}}}`, func(r *http.Request, _ string) string {
			if r.URL.Query().Get("p") == "1" {
				return `{"n":2,"items":` + keys(0, 3) + `}`
			}
			return `{"n":2,"items":` + keys(3, 4) + `}`
		}, 4, 2},
		{"page with a total of zero", `{"list":{` + base + `,"paging":{"type":"page","parameter":"p","total_pages":"$.n"}}}`, func(*http.Request, string) string {
			return `{"n":0,"items":[]}`
		}, 0, 1},
		{"page with an odd total", `{"list":{` + base + `,"paging":{"type":"page","parameter":"p","total_pages":"$.n"}}}`, func(*http.Request, string) string {
			return `{"n":"many","items":[]}`
		}, -1, 1},
		{"a service that ignores the page", `{"list":{` + base + `,"paging":{"type":"page","parameter":"p"}}}`, func(*http.Request, string) string {
			return `{"items":` + keys(0, 3) + `}`
		}, -1, 2},
		{"endless", `{"list":{` + base + `,"paging":{"type":"page","parameter":"p"}}}`, func(r *http.Request, _ string) string {
			return `{"items":[{"id":"` + r.URL.Query().Get("p") + `"}]}`
		}, -1, maxPages},
		{"cursor", `{"list":{` + base + `,"paging":{"type":"cursor","parameter":"c","next":"$.next"}}}`, func(r *http.Request, _ string) string {
			if r.URL.Query().Get("c") == "" {
				return `{"next":"a b&c","items":` + keys(0, 3) + `}`
			}
			if r.URL.Query().Get("c") == "a b&c" {
				return `{"next":null,"items":` + keys(3, 4) + `}`
			}
			return "no"
		}, 4, 2},
		{"cursor that stands still", `{"list":{` + base + `,"paging":{"type":"cursor","parameter":"c","next":"$.next"}}}`, func(r *http.Request, _ string) string {
			if r.URL.Query().Get("c") == "" {
				return `{"next":"x","items":` + keys(0, 3) + `}`
			}
			return `{"next":"x","items":` + keys(3, 4) + `}`
		}, -1, 2},
		{"more, but not where", `{"list":{` + base + `,"paging":{"type":"cursor","parameter":"c","next":"$.next","more":"$.more"}}}`, func(*http.Request, string) string {
			return `{"next":null,"more":true,"items":` + keys(0, 3) + `}`
		}, -1, 1},
		{"no more, whatever next says", `{"list":{` + base + `,"paging":{"type":"cursor","parameter":"c","next":"$.next","more":"$.more"}}}`, func(*http.Request, string) string {
			return `{"next":"x","more":false,"items":` + keys(0, 3) + `}`
		}, 3, 1},
		{"link in the body", `{"list":{` + base + `,"paging":{"type":"link","next":"$.next"}}}`, func(r *http.Request, base string) string {
			if r.URL.Query().Get("c") == "" {
				return `{"next":"` + base + `/keys?c=2","items":` + keys(0, 3) + `}`
			}
			return `{"items":` + keys(3, 4) + `}`
		}, 4, 2},
		{"relative link", `{"list":{` + base + `,"paging":{"type":"link","next":"$.next"}}}`, func(r *http.Request, _ string) string {
			if r.URL.Query().Get("c") == "" {
				return `{"next":"/keys?c=2","items":` + keys(0, 3) + `}`
			}
			return `{"items":` + keys(3, 4) + `}`
		}, 4, 2},
		{"link to another host", `{"list":{` + base + `,"paging":{"type":"link","next":"$.next"}}}`, func(*http.Request, string) string {
			return `{"next":"https://evil.example.com/keys","items":` + keys(0, 3) + `}`
		}, -1, 1},
		{"link to another port", `{"list":{` + base + `,"paging":{"type":"link","next":"$.next"}}}`, func(*http.Request, string) string {
			return `{"next":"https://127.0.0.1:1/keys","items":` + keys(0, 3) + `}`
		}, -1, 1},
		{"link with a user", `{"list":{` + base + `,"paging":{"type":"link","next":"$.next"}}}`, func(_ *http.Request, base string) string {
			return `{"next":"` + strings.Replace(base, "https://", "https://u@", 1) + `/keys","items":` + keys(0, 3) + `}`
		}, -1, 1},
		{"link that is none", `{"list":{` + base + `,"paging":{"type":"link","next":"$.next"}}}`, func(*http.Request, string) string {
			return `{"next":"https://%zz","items":` + keys(0, 3) + `}`
		}, -1, 1},
		{"link in a header", `{"list":{` + base + `,"paging":{"type":"link"}}}`, func(r *http.Request, base string) string {
			if r.URL.Query().Get("c") == "" {
				return "Link: <" + base + `/keys?c=1>; rel="prev", <` + base + `/keys?c=2>; rel="next"` + "\n" + `{"items":` + keys(0, 3) + `}`
			}
			return "Link: <" + base + `/keys>; rel="first"` + "\n" + `{"items":` + keys(3, 4) + `}`
		}, 4, 2},
		{"the same key on two pages", `{"list":{` + base + `,"paging":{"type":"page","parameter":"p","total_pages":"$.n"}}}`, func(r *http.Request, _ string) string {
			if r.URL.Query().Get("p") == "1" {
				return `{"n":2,"items":` + keys(0, 3) + `}`
			}
			return `{"n":2,"items":` + keys(2, 4) + `}`
		}, 4, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			requests := 0
			p := served(t, tc.list, func(w http.ResponseWriter, r *http.Request) {
				requests++
				answer := tc.answer(r, "https://"+r.Host)
				if line, rest, ok := strings.Cut(answer, "\n"); ok {
					w.Header().Set("Link", strings.TrimPrefix(line, "Link: "))
					answer = rest
				}
				io.WriteString(w, answer)
			})
			got, err := p.List(t.Context(), nil, "")
			if tc.want < 0 {
				wantError(t, err, provider.KindTransient, "as declared")
				if got != nil {
					t.Error("a part of the list comes with the error")
				}
			} else if err != nil || len(got) != tc.want {
				t.Errorf("%d keys, %v; want %d", len(got), err, tc.want)
			}
			if requests != tc.requests {
				t.Errorf("%d requests, want %d", requests, tc.requests)
			}
		})
	}
}

func TestListFields(t *testing.T) {
	p := served(t, `{"list":{"url":"BASE/keys","items":"$","id":"$.id","name":"$.n","created":"$.c","last_used":"$.u","expires":"$.e",
		"where":{"$.active":true}}}`, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `[{"id":"1","n":"sr-1","c":1795532645,"u":null,"e":"2027-01-01","active":true},{"id":"2","n":"sr-2","active":false},{"id":"3","n":"sr-3","c":"nonsense"}]`)
	})
	got, err := p.List(t.Context(), nil, "sr-")
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v; want the first, and the third, of which nothing says that it is dead", got, err)
	}
	want := provider.RemoteKey{ID: "1", Name: "sr-1", Created: time.Unix(1795532645, 0).UTC(), Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	if got[0] != want || got[1] != (provider.RemoteKey{ID: "3", Name: "sr-3"}) {
		t.Fatalf("%+v", got)
	}
}

func TestCreateOnTheWire(t *testing.T) {
	for _, tc := range []struct{ name, settings, want string }{
		{"json", `{"create":{"url":"BASE/k","json":{"n":"{{name}}","x":"{{expires.rfc3339}} {{expires.seconds}}"},"lifetime":"48h"}}`,
			`POST /k application/json {"n":"sr-1","x":"2026-11-26T15:00:00Z 172800"}`},
		{"form", `{"create":{"url":"BASE/k","form":{"n":"{{name}}","a b":"c&d=ü"}}}`, `POST /k application/x-www-form-urlencoded a+b=c%26d%3D%C3%BC&n=sr-1`},
		{"query and method", `{"create":{"url":"BASE/k","method":"PUT","query":{"n":"{{name}}","z":"&"}}}`, `PUT /k?n=sr-1&z=%26  `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			p := served(t, tc.settings, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				got = r.Method + " " + r.RequestURI + " " + r.Header.Get("Content-Type") + " " + string(body)
				io.WriteString(w, `{"id":7,"key":"v"}`)
			})
			key, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
			if err != nil || key.ID != "7" || key.Values["key"] != "v" {
				t.Fatalf("%v, %v", key, err)
			}
			if got != tc.want {
				t.Errorf("sent %s\nwant %s", got, tc.want)
			}
			if strings.Contains(tc.settings, "lifetime") != !key.Expires.IsZero() {
				t.Errorf("expires %v", key.Expires)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	const settings = `{"error_message":"$.m","rate_limit_reset":"X-Reset","create":{"url":"BASE/k","rejected":[403]},
		"revoke":{"url":"BASE/k/{{id}}","gone":[404,422]},"list":{"url":"BASE/k","items":"$","id":"$.id"},
		"test":{"url":"BASE/t","headers":{"K":"{{value.key}}"},"expect":{"$.state":"on"}},
		"last_used":{"url":"BASE/k/{{id}}/u","time":"$.t"}}`
	var status int
	var header, body string
	p := served(t, settings, func(w http.ResponseWriter, r *http.Request) {
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	key := provider.Key{ID: "1", Values: map[string]string{"key": "canary-value"}}
	call := map[string]func() error{
		"create": func() error {
			_, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
			return err
		},
		"list":      func() error { _, err := p.List(t.Context(), nil, ""); return err },
		"test":      func() error { return p.Test(t.Context(), nil, key) },
		"revoke":    func() error { return p.Revoke(t.Context(), nil, "1") },
		"last_used": func() error { _, err := p.LastUsed(t.Context(), nil, "1"); return err },
	}
	for _, tc := range []struct {
		op           string
		status       int
		header, body string
		kind         provider.Kind // 0: none
		text         string
		after        time.Duration
	}{
		{"create", 503, "Retry-After: 5", "", provider.KindRateLimited, "down for the moment", 5 * time.Second},
		{"create", 503, "", "", provider.KindUncertain, "unknown", 0},
		{"create", 501, "", "", provider.KindRejected, "does not know this request", 0},
		{"create", 202, "", `{"id":"1","key":"x"}`, provider.KindUncertain, "none that was declared", 0},
		{"create", 408, "", "", provider.KindUncertain, "gave up waiting", 0},
		{"create", 403, "", `{"m":"limit of 50 keys reached"}`, provider.KindRejected, `"limit of 50 keys reached"`, 0},
		{"create", 401, "", `{"m":"token canary-token is wrong"}`, provider.KindUnauthorized, "refuses the credential", 0},
		{"create", 200, "", `{"id":"1"}`, provider.KindUncertain, "the key was created, but", 0},
		{"create", 200, "", `{"id":"1","key":7}`, provider.KindUncertain, "is no string", 0},
		{"create", 200, "", `{"id":null,"key":"x"}`, provider.KindUncertain, "$.id", 0},
		{"create", 429, "X-Reset: 30", "", provider.KindRateLimited, "slow down", 30 * time.Second},
		{"create", 429, fmt.Sprintf("X-Reset: %d", fixed().Unix()+40), "", provider.KindRateLimited, "slow down", 40 * time.Second},
		{"create", 429, fmt.Sprintf("X-Reset: %d", fixed().Unix()-40), "", provider.KindRateLimited, "slow down", 0},
		{"create", 429, "X-Reset: later", "", provider.KindRateLimited, "slow down", 0},
		{"list", 403, "", "", provider.KindForbidden, "does not let it do this", 0},
		{"list", 402, "", "", provider.KindForbidden, "to be paid", 0},
		{"list", 401, "", "", provider.KindUnauthorized, "refuses the credential", 0},
		{"list", 404, "", "", provider.KindNotFound, "", 0},
		{"list", 503, "", "", provider.KindTransient, "", 0},
		{"list", 408, "", "", provider.KindTransient, "", 0},
		{"list", 302, "Location: https://elsewhere.example.com", "", provider.KindRejected, "redirects", 0},
		{"list", 200, "", `[{"id":"1"},{"noid":"2"}]`, provider.KindTransient, "$.id selects nothing", 0},
		{"list", 200, "", `{"id":"1"}`, provider.KindTransient, "is no list", 0},
		{"test", 200, "", `{"state":"on"}`, 0, "", 0},
		{"test", 200, "", `{"state":"off"}`, provider.KindUnauthorized, `is not "on"`, 0},
		{"test", 200, "", `{}`, provider.KindTransient, "selects nothing", 0},
		{"test", 200, "", `<html>`, provider.KindTransient, "no JSON", 0},
		{"test", 401, "", "", provider.KindUnauthorized, "refuses the key", 0},
		{"test", 403, "", "", provider.KindUnauthorized, "refuses the key", 0},
		{"create", 307, "Location: https://elsewhere.example.com", "", provider.KindUncertain, "redirects", 0},
		{"create", 308, "Location: https://elsewhere.example.com", "", provider.KindUncertain, "redirects", 0},
		{"revoke", 302, "Location: /login", "", provider.KindRejected, "redirects", 0},
		{"test", 307, "Location: /login", "", provider.KindRejected, "redirects", 0},
		{"test", 404, "", "", provider.KindNotFound, "", 0},
		{"revoke", 204, "", "", 0, "", 0},
		{"revoke", 404, "", "", 0, "", 0},
		{"revoke", 422, "", "", 0, "", 0},
		{"revoke", 410, "", "", provider.KindRejected, "", 0},
		{"revoke", 409, "", `{"m":"it is the last one"}`, provider.KindRejected, "it is the last one", 0},
		{"last_used", 200, "", `{"t":"2026-01-01"}`, 0, "", 0},
		{"last_used", 200, "", `{"t":null}`, 0, "", 0},
		{"last_used", 200, "", `{"t":"soon"}`, provider.KindTransient, "is no time", 0},
		{"last_used", 200, "", `x`, provider.KindTransient, "no JSON", 0},
		{"last_used", 404, "", ``, provider.KindNotFound, "", 0},
	} {
		t.Run(fmt.Sprintf("%s %d %s %s", tc.op, tc.status, tc.header, tc.body), func(t *testing.T) {
			status, header, body = tc.status, tc.header, tc.body
			err := call[tc.op]()
			if tc.kind == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e := wantError(t, err, tc.kind, tc.text)
			if e.Unsure != (tc.op == "test" && tc.status == 403) {
				t.Errorf("%+v: unsure %v", e, e.Unsure)
			}
			if e.RetryAfter != tc.after || e.Status != tc.status || e.Op != tc.op {
				t.Errorf("%+v, want to wait %v", e, tc.after)
			}
			if strings.Contains(e.Error(), "canary") {
				t.Errorf("a secret is shown: %v", e)
			}
		})
	}
}

// What a key's parameters, a credential or a service's id hold cannot change
// what a request is.
func TestNothingSmuggles(t *testing.T) {
	var seen *http.Request
	p := served(t, `{"parameters":{"p":{"default":"x"}},"create":{"url":"BASE/a/{{param.p}}/b","headers":{"X-P":"{{param.p}}"}},
		"revoke":{"url":"BASE/keys/{{id}}"},"test":{"url":"BASE/t","headers":{"K":"{{value.key}}"}}}`, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		io.WriteString(w, `{"id":"1","key":"k"}`)
	})
	if _, err := p.Create(t.Context(), provider.CreateRequest{Name: "n", Parameters: map[string]any{"p": "../../admin?x=1#y"}}); err != nil {
		t.Fatal(err)
	}
	if seen.RequestURI != "/a/..%2F..%2Fadmin%3Fx=1%23y/b" {
		t.Errorf("a parameter changed the path: %s", seen.RequestURI)
	}
	if err := p.Revoke(t.Context(), nil, "../other"); err != nil || seen.RequestURI != "/keys/..%2Fother" {
		t.Errorf("an id changed the path: %s, %v", seen.RequestURI, err)
	}
	for _, id := range []string{"..", ".", "", "a\r\nb"} {
		wantError(t, p.Revoke(t.Context(), nil, id), provider.KindRejected, "url: {{id}}")
	}
	for _, value := range []string{"x\r\nX-Admin: 1", "x\x00", " x", "x "} {
		seen = nil
		err := p.Test(t.Context(), nil, provider.Key{ID: "1", Values: map[string]string{"key": value}})
		wantError(t, err, provider.KindRejected, "headers.K: holds a control character, or blanks")
		if seen != nil {
			t.Errorf("%q was sent", value)
		}
	}
	seen = nil
	wantError(t, p.Test(t.Context(), nil, provider.Key{ID: "1"}), provider.KindRejected, "{{value.key}} has no value")
	if seen != nil {
		t.Error("the test of a key went out without the key")
	}
}

// The exception for addresses is the only way to a server inside.
func TestNoWayInside(t *testing.T) {
	hits := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer s.Close()
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for _, host := range []string{"https://localhost", "https://127.0.0.1.nip.invalid", "https://localhost."} {
		m := merge(object(t, minimal), map[string]any{"create": map[string]any{"url": host + port + "/k"}})
		p, err := build(t, m)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Create(t.Context(), provider.CreateRequest{Name: "n"})
		wantError(t, err, provider.KindTransient, "")
	}
	if hits != 0 {
		t.Fatalf("%d requests came through", hits)
	}
}

func TestNoAnswerAtAll(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	url := s.URL
	s.Close()
	m := merge(object(t, minimal), map[string]any{"create": map[string]any{"url": url + "/k"}, "allow_addresses": "127.0.0.1"})
	p, err := build(t, m)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Create(t.Context(), provider.CreateRequest{Name: "n"})
	wantError(t, err, provider.KindTransient, "connection refused")
}
