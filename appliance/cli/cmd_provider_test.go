package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
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
	var presets []struct {
		Name, Type, Title string
		HeldTo            string `json:"held_to"`
		HeldToDate        string `json:"held_to_date"`
		HeldToSource      string `json:"held_to_source"`
	}
	if err := errors.Join(err, json.Unmarshal([]byte(listed), &presets)); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(table, "\n"); lines != len(presets)+1 {
		t.Errorf("%d lines for %d presets", lines, len(presets))
	}
	for _, p := range presets {
		if p.HeldTo == "" || p.HeldToSource == "" || !strings.Contains(table, p.HeldTo+" "+p.HeldToDate) {
			t.Errorf("%s: held to %q on %q, %q", p.Name, p.HeldTo, p.HeldToDate, p.HeldToSource)
		}
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
	for _, args := range [][]string{{"show"}, {"show", "no-such"}, {"show", "../appliance"}, {"show", "none.toml"}, {"show", "aws-iam", "github"}, {"list", "x"}} {
		var e *Error
		if out, err := run(args...); !errors.As(err, &e) || e.Code != ExitUsage || out != "" {
			t.Errorf("%q: %v, %q", args, err, out)
		}
	}
	dir := t.TempDir()
	own, bad := filepath.Join(dir, "acme.toml"), filepath.Join(dir, "bad.toml")
	for path, text := range map[string]string{own: "# Acme\ntype = \"manual\"\n[settings]\ndescription = \"x\"\n", bad: "type = \"manual\"\nsetings = {}\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := run("show", own, "--json"); err != nil || out != "{\n  \"type\": \"manual\",\n  \"settings\": {\n    \"description\": \"x\"\n  }\n}\n" {
		t.Errorf("one's own: %v\n%s", err, out)
	}
	t.Chdir(dir)
	if out, err := run("show", "acme.toml"); err != nil || !strings.HasPrefix(out, "# Acme\n") {
		t.Errorf("one's own, in this folder: %v\n%s", err, out)
	}
	var e *Error
	if out, err := run("show", bad); !errors.As(err, &e) || e.Code != ExitUsage || out != "" || !strings.Contains(err.Error(), bad+":2: setings: unknown key; known here: settings") {
		t.Errorf("a slip in one's own: %v, %q", err, out)
	}
	if _, err := run("show", "no-such"); !strings.Contains(err.(*Error).Hint, "cloudflare") {
		t.Errorf("the hint does not name the presets: %v", err)
	}
}
