package vaultapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A field is there with the type that is meant, or it is an error that does not
// quote it: absent is not empty, 0 or false.
func TestDataFields(t *testing.T) {
	var d Data
	text := `{"text":"canary","empty":"","true":true,"false":false,"null":null,"one":1,"big":9007199254740993,"half":1.5,"huge":1e40,
		"time":"2026-01-02T03:04:05.123456789+01:00","map":{"a":"b"},"list":["a","b"],"none":[],"mixed":["a",1]}`
	if err := decode([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	takes := map[string]func(string) (any, error){
		"text":   func(f string) (any, error) { return d.Text(f) },
		"bool":   func(f string) (any, error) { return d.Bool(f) },
		"number": func(f string) (any, error) { return d.Number(f) },
		"time":   func(f string) (any, error) { v, err := d.Time(f); return v.UTC(), err },
		"map":    func(f string) (any, error) { return d.Map(f) },
		"list":   func(f string) (any, error) { return d.Strings(f) },
	}
	good := map[string]string{
		"text text": "canary", "text empty": "", "text time": "2026-01-02T03:04:05.123456789+01:00", "bool true": "true", "bool false": "false",
		"number one": "1", "number big": "9007199254740993", "time time": "2026-01-02 02:04:05.123456789 +0000 UTC", "map map": "map[a:b]", "list list": "[a b]", "list none": "[]",
	}
	for kind, take := range takes {
		for _, field := range []string{"text", "empty", "true", "false", "null", "one", "big", "half", "huge", "time", "map", "list", "none", "mixed", "absent"} {
			got, err := take(field)
			want, ok := good[kind+" "+field]
			switch {
			case ok && (err != nil || fmt.Sprint(got) != want):
				t.Errorf("%s as %s: %v, %v", field, kind, got, err)
			case !ok && (err == nil || !strings.Contains(err.Error(), `"`+field+`"`) || strings.Contains(err.Error(), "canary")):
				t.Errorf("%s as %s: %v, %v", field, kind, got, err)
			}
		}
	}
	for field, want := range map[string]bool{"text": true, "empty": true, "false": true, "null": false, "absent": false} {
		if d.Has(field) != want {
			t.Errorf("has %s: %t", field, !want)
		}
	}
	if got, err := (Data{"a": []string{"b"}}).Strings("a"); err != nil || fmt.Sprint(got) != "[b]" {
		t.Errorf("texts that did not come as JSON: %v, %v", got, err)
	}
}

func TestDataInto(t *testing.T) {
	var v struct {
		A json.Number
		B []string
	}
	if err := (Data{"a": json.Number("12345678901234567890"), "b": []any{"x"}}).Into(&v); err != nil || v.A != "12345678901234567890" || fmt.Sprint(v.B) != "[x]" {
		t.Errorf("%v, %v", v, err)
	}
	for name, d := range map[string]Data{"another type": {"b": "canary"}, "no JSON": {"b": func() {}}} {
		if err := d.Into(&v); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An error's words, and what they mean, whoever made it and however deep it is.
func TestErrors(t *testing.T) {
	none := errors.New("x")
	for name, tt := range map[string]struct {
		err  error
		text string
		is   []string
	}{
		"a refusal":      {&Error{Method: "GET", Path: "a", Status: 400, Errors: []string{"1 error:\n\t* no", "never"}}, "GET a: Vault answers 400: 1 error: * no; never", []string{"refusal", "bad"}},
		"nothing":        {&Error{Method: "GET", Path: "a", Status: 404}, "GET a: Vault answers 404: there is nothing", []string{"refusal", "none"}},
		"not mounted":    {&Error{Status: 404, Errors: []string{`no handler for route "a"`}}, `no handler`, []string{"refusal", "unmounted"}},
		"sealed":         {&Error{Method: "GET", Path: "a", Status: 503}, "GET a: Vault answers 503", []string{"refusal", "sealed"}},
		"failed":         {&Error{Status: 500}, "500", []string{"refusal", "internal"}},
		"another server": {&Error{Status: 404, foreign: true}, "is that Vault?", []string{"refusal", "foreign"}},
		"another error":  {none, "x", nil},
		"no error":       {nil, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.err
			if err != nil {
				err = fmt.Errorf("do: %w", err)
				if !strings.Contains(err.Error(), tt.text) {
					t.Errorf("says %q", err)
				}
			}
			got := map[string]bool{
				"refusal": IsRefusal(err), "bad": IsBadRequest(err), "none": IsNotFound(err), "unmounted": IsUnmounted(err), "sealed": IsUnavailable(err),
				"internal": IsInternal(err), "foreign": errors.Is(err, ErrNotVault), "denied": IsDenied(err), "changed": IsChanged(err), "uncertain": IsUncertain(err), "no answer": IsNoAnswer(err),
			}
			for _, kind := range tt.is {
				if !got[kind] {
					t.Errorf("it is not %s", kind)
				}
				delete(got, kind)
			}
			for kind, is := range got {
				if is {
					t.Errorf("it is %s", kind)
				}
			}
		})
	}
	if d := DataOf(fmt.Errorf("do: %w", &Error{Status: 404, Data: Data{"a": "b"}})); d["a"] != "b" || DataOf(none) != nil || DataOf(nil) != nil {
		t.Errorf("data of errors: %v", d)
	}
}
