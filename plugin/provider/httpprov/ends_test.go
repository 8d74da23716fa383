package httpprov

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

// An end of life that is declared and cannot be read, or is not there, is an
// error and never "never": the engine would let the key run out.
func TestEndOfLife(t *testing.T) {
	day := time.Date(2026, 12, 24, 15, 4, 5, 0, time.UTC)
	unix := day.Unix()
	for _, tc := range []struct {
		expires string // JSON; "-": absent
		want    time.Time
		bad     bool
	}{
		{expires: `"2026-12-24T15:04:05Z"`, want: day},
		{expires: `"2026-12-24T15:04Z"`, want: day.Truncate(time.Minute)},
		{expires: `"2026-12-24T16:04:05.000+01:00"`, want: day},
		{expires: `"2026-12-24T15:04:05.999+0000"`, want: day.Add(999 * time.Millisecond)},
		{expires: `"2026-12-24 15:04:05 +0000 UTC"`, want: day},
		{expires: `"2026-12-24 16:04:05 +0100 CET"`, want: day},
		{expires: `"2026-12-24 15:04:05 -0000"`, want: day},
		{expires: `"20261224T150405Z"`, want: day},
		{expires: `"2026/12/24"`, want: day.Truncate(24 * time.Hour)},
		{expires: `"24 Dec 2026"`, want: day.Truncate(24 * time.Hour)},
		{expires: `"Dec 24, 2026"`, want: day.Truncate(24 * time.Hour)},
		{expires: fmt.Sprint(unix), want: day},
		{expires: fmt.Sprintf(`"%d"`, unix), want: day},
		{expires: fmt.Sprintf("%d.5", unix), want: day},
		{expires: fmt.Sprintf("%d123", unix), want: day.Add(123 * time.Millisecond)},
		{expires: fmt.Sprintf("%d123456", unix), want: day.Add(123456 * time.Microsecond)},
		{expires: fmt.Sprintf("%d123456789", unix), want: day.Add(123456789)},
		{expires: fmt.Sprintf(`"%d.123000000"`, unix), want: day},
		{expires: fmt.Sprintf(`"%d.123000000 1440"`, unix), want: day},
		{expires: `null`}, {expires: `""`}, {expires: `0`}, {expires: `-1`}, {expires: `"0001-01-01T00:00:00Z"`},

		{expires: "-", bad: true},
		{expires: `"29/11/2026"`, bad: true},
		{expires: `"11/12/2026"`, bad: true},
		{expires: `"29.11.2026"`, bad: true},
		{expires: `"in 90 days"`, bad: true},
		{expires: `"P90D"`, bad: true},
		{expires: `"2026-12-24 15:04:05 CET"`, bad: true},
		{expires: `"Thu, 24 Dec 2026 15:04:05 PST"`, bad: true},
		{expires: `86400`, bad: true}, // a length of time
		{expires: `"604800"`, bad: true},
		{expires: `-5`, bad: true},
		{expires: `1e30`, bad: true},
		{expires: `99999999999999999999`, bad: true},
		{expires: `true`, bad: true},
		{expires: `false`, bad: true},
		{expires: `{}`, bad: true},
		{expires: `["2026-12-24"]`, bad: true},
		{expires: `"never ever"`, bad: true},
		{expires: `"2026-02-31"`, bad: true},
		{expires: `"9999-12-31T23:59:59Z"`, want: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
		{expires: `"9999-12-31T23:59:59-01:00"`, bad: true}, // the year 10000, which no record can hold
	} {
		t.Run(tc.expires, func(t *testing.T) {
			field := `,"e":` + tc.expires
			if tc.expires == "-" {
				field = ""
			}
			p := served(t, `{"create":{"url":"BASE/k","expires":"$.e"},"test":{"url":"BASE/t","expires":"$.e"},
				"list":{"url":"BASE/k","items":"$","id":"$.id","expires":"$.e"}}`, func(w http.ResponseWriter, r *http.Request) {
				item := `{"id":"1","key":"k"` + field + `}`
				if r.Method == http.MethodGet && r.URL.Path == "/k" {
					item = "[" + item + "]"
				}
				io.WriteString(w, item)
			})
			key, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
			at, told, testErr := p.Examine(t.Context(), nil, provider.Key{ID: "1"})
			listed, _, listErr := p.listedEnd(t.Context(), nil, "1")
			if tc.bad {
				wantError(t, err, provider.KindUncertain, "$.e")
				wantError(t, testErr, provider.KindTransient, "$.e")
				wantError(t, listErr, provider.KindTransient, "$.e")
				if keys, err := p.List(t.Context(), nil, ""); err != nil || len(keys) != 1 {
					t.Errorf("a list with somebody's unreadable end: %v, %v", keys, err)
				}
				return
			}
			near := func(got time.Time) bool { d := got.Sub(tc.want); return d > -time.Second && d < time.Second }
			if err != nil || testErr != nil || listErr != nil || !told {
				t.Fatalf("%v, %v, %v, told %v", err, testErr, listErr, told)
			}
			if !near(key.Expires) || !near(at) || !near(listed) {
				t.Errorf("create %v, test %v, list %v; want %v", key.Expires, at, listed, tc.want)
			}
		})
	}
}

// What is told elsewhere than in create's answer.
func TestEndOfLifeElsewhere(t *testing.T) {
	answer := func(create, list string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				io.WriteString(w, create)
				return
			}
			io.WriteString(w, list)
		}
	}
	const inList = `"list":{"url":"BASE/k","items":"$","id":"$.id","expires":"$.e"}`
	t.Run("in the list only", func(t *testing.T) {
		p := served(t, `{"create":{"url":"BASE/k"},`+inList+`}`, answer(`{"id":"1","key":"k"}`, `[{"id":"2"},{"id":"1","e":1798124645}]`))
		if !p.Capabilities().Expires {
			t.Fatal("nobody is told to ask")
		}
		at, told, err := provider.Examine(t.Context(), p, nil, provider.Key{ID: "1"})
		if err != nil || !told || at.Unix() != 1798124645 {
			t.Fatalf("%v, %v, %v", at, told, err)
		}
		_, _, err = provider.Examine(t.Context(), p, nil, provider.Key{ID: "3"})
		wantError(t, err, provider.KindNotFound, "nobody knows when it ends")
	})
	t.Run("as a length of time", func(t *testing.T) {
		p := served(t, `{"create":{"url":"BASE/k","expires_in":"$.s"}}`, answer(`{"id":"1","key":"k","s":"3600"}`, ""))
		key, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
		if err != nil || !key.Expires.Equal(fixed().Add(time.Hour)) {
			t.Fatalf("%v, %v", key.Expires, err)
		}
	})
	for _, bad := range []string{`"soon"`, `-3600`, `1.5`, `true`, `1e40`, `{}`} {
		t.Run("as no length of time: "+bad, func(t *testing.T) {
			p := served(t, `{"create":{"url":"BASE/k","expires_in":"$.s"}}`, answer(`{"id":"1","key":"k","s":`+bad+`}`, ""))
			_, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
			wantError(t, err, provider.KindUncertain, "$.s")
		})
	}
	t.Run("by a parameter", func(t *testing.T) {
		p := served(t, `{"parameters":{"s":{"type":"integer","default":0}},
			"create":{"url":"BASE/k","json":{"s":"{{param.s}}"},"lifetime_seconds":"{{param.s}}"}}`, answer(`{"id":"1","key":"k"}`, ""))
		for s, want := range map[int]time.Time{0: {}, 86400: fixed().Add(24 * time.Hour)} {
			key, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1", Parameters: map[string]any{"s": s}})
			if err != nil || !key.Expires.Equal(want) {
				t.Fatalf("%d: %v, %v", s, key.Expires, err)
			}
		}
		_, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1", Parameters: map[string]any{"s": -1}})
		wantError(t, err, provider.KindRejected, "-1 is no length of a life")
	})
	t.Run("absent, and that was declared to be never", func(t *testing.T) {
		p := served(t, `{"create":{"url":"BASE/k","expires":"$.e","expires_absent_is_never":true}}`, answer(`{"id":"1","key":"k"}`, ""))
		if key, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"}); err != nil || !key.Expires.IsZero() {
			t.Fatalf("%v, %v", key.Expires, err)
		}
	})
	t.Run("absent, but asked for", func(t *testing.T) {
		p := served(t, `{"create":{"url":"BASE/k","expires":"$.e","lifetime":"48h"}}`, answer(`{"id":"1","key":"k"}`, ""))
		if key, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"}); err != nil || !key.Expires.Equal(fixed().Add(48*time.Hour)) {
			t.Fatalf("%v, %v", key.Expires, err)
		}
	})
	t.Run("asked for, and then unreadable", func(t *testing.T) {
		p := served(t, `{"create":{"url":"BASE/k","expires":"$.e","lifetime":"48h"}}`, answer(`{"id":"1","key":"k","e":"29/11/2026"}`, ""))
		_, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
		wantError(t, err, provider.KindUncertain, `its form is "99/99/9999" (9 is a digit`)
		if strings.Contains(err.Error(), "29/11") {
			t.Error("the answer is quoted")
		}
	})
}

// Somebody else's key does not make the list fail, whatever its id is; one
// that may be ours does.
func TestOddIDs(t *testing.T) {
	odd := map[string]string{
		"null": `null`, "dots": `".."`, "dot": `"."`, "empty": `""`, "257 bytes": `"` + strings.Repeat("x", 257) + `"`,
		"fraction": `1.5`, "exponent": `1e3`, "object": `{"a":1}`, "list": `["x"]`, "truth": `true`, "line break": `"a\nb"`, "nul": `"a\u0000"`,
	}
	for name, id := range odd {
		t.Run(name, func(t *testing.T) {
			var body string
			p := served(t, `{"create":{"url":"BASE/k","json":{"n":"{{name}}"}},"list":{"url":"BASE/k","items":"$","id":"$.id","name":"$.n"}}`,
				func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
			for what, list := range map[string]string{
				"alone":  `[{"id":` + id + `,"n":"theirs"}]`,
				"before": `[{"id":` + id + `,"n":"theirs"},{"id":7,"n":"sr-a-1"}]`,
				"after":  `[{"id":7,"n":"sr-a-1"},{"id":` + id + `,"n":null},{"id":` + id + `}]`,
			} {
				body = list
				want := 1
				if what == "alone" {
					want = 0
				}
				keys, err := p.List(t.Context(), nil, "sr-a-")
				if err != nil || len(keys) != want {
					t.Errorf("%s: %v, %v", what, keys, err)
				}
			}
			body = `[{"id":` + id + `,"n":"sr-a-2"}]`
			_, err := p.List(t.Context(), nil, "sr-a-")
			wantError(t, err, provider.KindTransient, "$.id")
		})
	}
	t.Run("without names", func(t *testing.T) {
		var body string
		p := served(t, `{"list":{"url":"BASE/k","items":"$","id":"$.id"}}`, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) })
		for list, want := range map[string]int{`[{"id":null},{"id":7}]`: 1, `[{"id":{}},{"id":"x"}]`: 1, `[{"id":null}]`: 0, `[{"id":12345678901234567890}]`: 1} {
			body = list
			if keys, err := p.List(t.Context(), nil, ""); err != nil || len(keys) != want {
				t.Errorf("%s: %v, %v", list, keys, err)
			}
		}
		for _, list := range []string{`[{"id":{}}]`, `[{"no":1},{"id":1}]`} { // the path is wrong
			body = list
			_, err := p.List(t.Context(), nil, "")
			wantError(t, err, provider.KindTransient, "$.id")
		}
	})
	t.Run("of another form", func(t *testing.T) {
		body := `[{"id":"x'; DROP"},{"id":"k-1"}]`
		p := served(t, `{"id_pattern":"k-[0-9]+","create":{"url":"BASE/k"},"revoke":{"url":"BASE/k/{{id}}"},"list":{"url":"BASE/k","items":"$","id":"$.id"}}`,
			func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					io.WriteString(w, `{"id":"x'; DROP","key":"k"}`)
					return
				}
				io.WriteString(w, body)
			})
		if keys, err := p.List(t.Context(), nil, ""); err != nil || len(keys) != 1 || keys[0].ID != "k-1" {
			t.Errorf("%v, %v", keys, err)
		}
		_, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-1"})
		wantError(t, err, provider.KindUncertain, "id_pattern")
		// Neither is one sent that a person gives.
		wantError(t, p.Revoke(t.Context(), nil, "k-1'; DROP"), provider.KindRejected, "is not of the form")
	})
}

// A list that ends early is an error, or is read on: what is not listed is
// taken for gone.
func TestEmptyPageInTheMiddle(t *testing.T) {
	for _, tc := range []struct {
		name, paging string
		pages        []string
		want         int // -1: refused
	}{
		{"page", `"paging":{"type":"page","parameter":"p"}`, []string{`{"i":[{"id":1}]}`, `{"i":[]}`, `{"i":[{"id":2}]}`, `{"i":[]}`, `{"i":[]}`}, 2},
		{"the first page", `"paging":{"type":"page","parameter":"p"}`, []string{`{"i":[]}`, `{"i":[{"id":2}]}`, `{"i":[]}`, `{"i":[]}`}, 1},
		{"with a number of pages", `"paging":{"type":"page","parameter":"p","total_pages":"$.n"}`,
			[]string{`{"n":3,"i":[{"id":1}]}`, `{"n":3,"i":[]}`, `{"n":3,"i":[{"id":2}]}`}, 2},
		{"which says 0 pages", `"paging":{"type":"page","parameter":"p","total_pages":"$.n"}`,
			[]string{`{"n":3,"i":[{"id":1}]}`, `{"n":0,"i":[]}`, `{"n":3,"i":[{"id":2}]}`}, 2},
		{"which says no number", `"paging":{"type":"page","parameter":"p","total_pages":"$.n"}`,
			[]string{`{"n":3,"i":[{"id":1}]}`, `{"i":[]}`, `{"n":3,"i":[{"id":2}]}`}, 2},
		{"cursor", `"paging":{"type":"cursor","parameter":"p","next":"$.c"}`, []string{`{"c":"2","i":[{"id":1}]}`, `{"c":"3","i":[]}`, `{"i":[{"id":2}]}`}, 2},
		{"link", `"paging":{"type":"link","next":"$.c"}`, []string{`{"c":"/k?p=2","i":[{"id":1}]}`, `{"c":"/k?p=3","i":[]}`, `{"i":[{"id":2}]}`}, 2},
		{"fewer than there are", `"total":"$.t"`, []string{`{"t":3,"i":[{"id":1},{"id":2}]}`}, -1},
		{"as many as there are", `"total":"$.t"`, []string{`{"t":"2","i":[{"id":1},{"id":null}]}`}, 1},
		{"fewer over pages", `"total":"$.t","paging":{"type":"page","parameter":"p"}`, []string{`{"t":3,"i":[{"id":1}]}`, `{"t":0,"i":[]}`, `{"i":[]}`}, -1},
		{"a total that is none", `"total":"$.t"`, []string{`{"t":"many","i":[]}`}, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked := 0
			p := served(t, `{"list":{"url":"BASE/k","items":"$.i","id":"$.id",`+tc.paging+`}}`, func(w http.ResponseWriter, _ *http.Request) {
				asked++
				io.WriteString(w, tc.pages[min(asked, len(tc.pages))-1])
			})
			keys, err := p.List(t.Context(), nil, "")
			if tc.want < 0 {
				wantError(t, err, provider.KindTransient, "not as declared")
				return
			}
			if err != nil || len(keys) != tc.want || asked != len(tc.pages) {
				t.Errorf("%d keys after %d requests, %v; want %d after %d", len(keys), asked, err, tc.want, len(tc.pages))
			}
		})
	}
	t.Run("offset", func(t *testing.T) {
		p := served(t, `{"list":{"url":"BASE/k","items":"$","id":"$.id","paging":{"type":"offset","parameter":"o"}}}`, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, map[string]string{"0": `[{"id":1},{"id":2}]`, "2": `[]`, "4": `[{"id":3}]`}[r.URL.Query().Get("o")])
			if o := r.URL.Query().Get("o"); o == "5" || o == "7" {
				io.WriteString(w, `[]`)
			}
		})
		if keys, err := p.List(t.Context(), nil, ""); err != nil || len(keys) != 3 {
			t.Errorf("%v, %v", keys, err)
		}
	})
}
