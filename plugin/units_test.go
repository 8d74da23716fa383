package apikeys

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestDurationWithoutUnitIsToldAsSeconds(t *testing.T) {
	for name, c := range map[string]struct {
		fields map[string]any
		want   []string
	}{
		"a number as text":    {map[string]any{"rotation_period": "90"}, []string{"rotation_period=90 is in seconds: write 90d for days"}},
		"a number of JSON":    {map[string]any{"rotation_period": json.Number("90")}, []string{"rotation_period=90 is in seconds: write 90d for days"}},
		"the grace, too":      {map[string]any{"rotation_period": 60, "grace_period": 7}, []string{"rotation_period=60", "grace_period=7"}},
		"seconds, said so":    {map[string]any{"rotation_period": "90s"}, nil},
		"days":                {map[string]any{"rotation_period": "90d"}, nil},
		"days in seconds":     {map[string]any{"rotation_period": 7776000}, nil},
		"no grace":            {map[string]any{"grace_period": 0}, nil},
		"neither of the two":  {nil, nil},
		"the mount's default": {map[string]any{"rotation_period": 0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.write("providers/gen", map[string]any{"type": "generated"})
			for _, again := range []string{"created", "changed"} {
				fields := map[string]any{"provider": "gen", "force": true}
				for k, v := range c.fields {
					fields[k] = v
				}
				resp := w.write("keys/k", fields)
				var got []string
				if resp != nil {
					got = resp.Warnings
					if len(got) == 0 {
						t.Errorf("%s: an answer that says nothing, which clients show as nothing", again)
					}
				}
				if again == "changed" && len(got) > len(c.want) {
					got = got[len(got)-len(c.want):] // after those about the promise
				}
				if len(got) != len(c.want) {
					t.Fatalf("%s: warnings %q, want %q", again, got, c.want)
				}
				for i, want := range c.want {
					if !strings.Contains(got[i], want) {
						t.Errorf("%s: warning %q, want %q", again, got[i], want)
					}
				}
			}
		})
	}
}

// What is said of a wrong value fits it.
func TestHintOfAWrongType(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for name, c := range map[string]struct {
		value any
		list  bool
	}{
		"no duration":  {"3dd", false},
		"an object":    {map[string]any{"a": 1}, false},
		"a list":       {[]any{"3d", "4d"}, true},
		"a list of Go": {[]string{"3d", "4d"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := w.b.checkTypes(&logical.Request{Operation: logical.UpdateOperation, Path: "keys/k", Data: map[string]any{"rotation_period": c.value}})
			if err == nil || strings.Contains(err.Error(), "given twice") != c.list {
				t.Errorf("%v", err)
			}
		})
	}
}
