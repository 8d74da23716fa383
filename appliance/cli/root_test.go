package cli

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestExitCodes(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want int
		says string
	}{
		{"version", []string{"--version"}, ExitOK, ""},
		{"help", nil, ExitOK, ""},
		{"unknown verb", []string{"nosuch"}, ExitUsage, "nosuch"},
		{"unknown verb of a group", []string{"app", "aply"}, ExitUsage, `unknown command "aply" for "strongroom app"`},
		{"group alone", []string{"migrate"}, ExitOK, ""},
		{"missing flag", []string{"app", "login-bundle"}, ExitUsage, `"output" not set`},
		{"unknown flag", []string{"demo", "--nosuch"}, ExitUsage, "--nosuch"},
		{"surplus argument", []string{"status", "now"}, ExitUsage, "now"},
		{"bad recipient", []string{"demo", "--vault=/bin/true", "--recipient=age1nonsense"}, ExitUsage, "--recipient"},
		{"not Vault", []string{"demo", "--vault=/bin/true"}, ExitUsage, "not a Vault program"},
		{"no such Vault", []string{"demo", "--vault=/no/such/vault"}, ExitUsage, "/no/such/vault"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			c := New("1.2.3 (abc)")
			var out, errOut bytes.Buffer
			c.SetOut(&out)
			c.SetErr(&out)
			c.SetArgs(tt.args)
			got := Report(&errOut, c.ExecuteContext(t.Context()))
			if got != tt.want {
				t.Errorf("exit code %d, want %d; it said %q", got, tt.want, errOut.String())
			}
			if !strings.Contains(errOut.String(), tt.says) {
				t.Errorf("said %q, want %q in it", errOut.String(), tt.says)
			}
			if n := strings.Count(errOut.String(), "\n"); n > 2 {
				t.Errorf("one fault and one hint are wanted, got %d lines: %q", n, errOut.String())
			}
		})
	}
}

func TestReport(t *testing.T) {
	var b bytes.Buffer
	if got := Report(&b, nil); got != ExitOK || b.Len() != 0 {
		t.Fatalf("nil: %d %q", got, b.String())
	}
	if got := Report(&b, errors.New("boom")); got != ExitFailed || b.String() != "strongroom: boom\n" {
		t.Fatalf("plain: %d %q", got, b.String())
	}
	b.Reset()
	err := fmt.Errorf("outer: %w", &Error{Code: ExitDrift, Err: errors.New("inner"), Hint: "do this"})
	if got := Report(&b, err); got != ExitDrift || b.String() != "strongroom: outer: inner\n  → do this\n" {
		t.Fatalf("wrapped: %d %q", got, b.String())
	}
}

// A slip in a script must not pass for done, whatever group it is in.
func TestEveryGroupRefusesUnknownVerbs(t *testing.T) {
	var groups func(c *cobra.Command, path []string)
	seen := 0
	groups = func(c *cobra.Command, path []string) {
		for _, sub := range c.Commands() {
			here := append(slices.Clone(path), sub.Name())
			if !sub.HasSubCommands() {
				continue
			}
			seen++
			if err := sub.Args(sub, []string{"nosuch"}); err == nil {
				t.Errorf("%s nosuch is taken", strings.Join(here, " "))
			}
			groups(sub, here)
		}
	}
	groups(New("1"), nil)
	if seen < 5 {
		t.Errorf("only %d groups were looked at", seen)
	}
}
