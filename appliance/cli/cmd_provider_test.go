package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestProvider(t *testing.T) {
	run := func(args ...string) (string, error) {
		c := New("0")
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetArgs(append([]string{"provider"}, args...))
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	table, err := run("list")
	if err != nil || !strings.Contains(table, "cloudflare") {
		t.Fatalf("%v\n%s", err, table)
	}
	listed, err := run("list", "--json")
	var presets []struct{ Name, Type, Title string }
	if err := errors.Join(err, json.Unmarshal([]byte(listed), &presets)); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(table, "\n"); lines != len(presets)+1 {
		t.Errorf("%d lines for %d presets", lines, len(presets))
	}
	for _, p := range presets {
		text, err := run("show", p.Name)
		if err != nil || !strings.Contains(text, "# credential:") || !strings.Contains(text, p.Title) {
			t.Errorf("%s: %v\n%s", p.Name, err, text)
		}
		asJSON, err := run("show", p.Name, "--json")
		var got map[string]any
		if err := errors.Join(err, json.Unmarshal([]byte(asJSON), &got)); err != nil || got["type"] != p.Type || got["settings"] == nil {
			t.Errorf("%s: %v\n%s", p.Name, err, asJSON)
		}
	}
	for _, args := range [][]string{{"show"}, {"show", "no-such"}, {"show", "../appliance"}, {"show", "aws-iam", "github"}, {"list", "x"}} {
		var e *Error
		if out, err := run(args...); !errors.As(err, &e) || e.Code != ExitUsage || out != "" {
			t.Errorf("%q: %v, %q", args, err, out)
		}
	}
	if _, err := run("show", "no-such"); !strings.Contains(err.(*Error).Hint, "cloudflare") {
		t.Errorf("the hint does not name the presets: %v", err)
	}
}
