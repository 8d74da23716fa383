package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every command of this program in the pages below is one that it takes: the
// verb is there, and so is each flag.
func TestCommandsInDocs(t *testing.T) {
	for _, page := range []string{"backup.md", "restore.md", "escrow.md", "drill.md", "status.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		commands := commandsIn(string(text))
		if len(commands) < 4 {
			t.Fatalf("%s: only %d commands found", page, len(commands))
		}
		for _, line := range commands {
			args := strings.Fields(line)[1:]
			verb, rest, err := New("test").Find(args)
			if err != nil || verb.RunE == nil {
				t.Errorf("%s: %q: no such verb: %v", page, line, err)
				continue
			}
			if err := verb.ParseFlags(rest); err != nil {
				t.Errorf("%s: %q: %v", page, line, err)
				continue
			}
			if err := verb.ValidateArgs(verb.Flags().Args()); err != nil {
				t.Errorf("%s: %q: %v", page, line, err)
			}
		}
	}
}

// commandsIn gives the lines of shell blocks that run this program.
func commandsIn(page string) []string {
	var out []string
	shell := false
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			shell = line == "```sh"
		case shell && strings.HasPrefix(line, "strongroom "):
			out = append(out, line)
		}
	}
	return out
}
