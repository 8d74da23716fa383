package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
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
		{"unknown flag", []string{"demo", "--nosuch"}, ExitUsage, "--nosuch"},
		{"surplus argument", []string{"demo", "now"}, ExitUsage, "now"},
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
