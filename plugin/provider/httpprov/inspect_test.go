package httpprov

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"strongroom.example/plugin/provider"
)

func TestInspect(t *testing.T) {
	var body string
	p := served(t, `{"create":{"url":"BASE/k"},"list":{"url":"BASE/k","items":"$.data","total":"$.n","id":"$.id","name":"$.label","expires":"$.e","where":{"$.on":true}},
		"test":{"url":"BASE/t","headers":{"K":"{{value.key}}"},"expect":{"$.ok":true},"expires":"$.until"}}`,
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/t" {
				fmt.Fprintf(w, `{"ok":true,"until":"2026-12-24T15:04:05Z","echo":%q}`, r.Header.Get("K"))
				return
			}
			io.WriteString(w, body)
		})
	show := func(op string) string {
		found, err := p.Inspect(t.Context(), op, nil, provider.Key{ID: "1", Values: map[string]string{"key": "canary-value"}})
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, f := range found {
			lines = append(lines, f.Field+" "+f.Path+": "+f.Shown)
		}
		return strings.Join(lines, "\n")
	}
	body = `{"n":2,"data":[{"id":"sk-live-51Hx9aQ8z","label":"reports","e":1798124645,"on":true},{"id":2}]}`
	if got := show("list"); got != `items $.data: a list of 2
total $.n: the number 2
id $.id: "********", 17 bytes
name $.label: "reports", 7 bytes
expires $.e: 2026-12-24T15:04:05Z
where $.on: true` {
		t.Errorf("got\n%s", got)
	}
	body = `{"data":[{"id":null,"label":["x"],"e":"29/11/2026"}]}`
	if got := show("list"); !strings.Contains(got, "total $.n: nothing") || !strings.Contains(got, "id $.id: null") || !strings.Contains(got, "name $.label: a list of 1") ||
		!strings.Contains(got, "expires $.e: no time that can be read") || !strings.Contains(got, "where $.on: nothing") {
		t.Errorf("got\n%s", got)
	}
	if got := show("test"); got != "expect $.ok: true\nexpires $.until: 2026-12-24T15:04:05Z" {
		t.Errorf("got\n%s", got)
	}
	_, err := p.Inspect(t.Context(), "revoke", nil, provider.Key{})
	wantError(t, err, provider.KindUnsupported, "")
	body = `<html>`
	_, err = p.Inspect(t.Context(), "list", nil, provider.Key{})
	wantError(t, err, provider.KindTransient, "no JSON")
}
