package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/oldnames"
)

// takes is how docs/commands.md says what a flag takes.
var takes = map[string]string{
	"string": "text", "stringArray": "text, repeatable", "bool": "nothing", "duration": "duration", "int": "number", "uintSlice": "numbers",
}

// word is one flag of the vocabulary.
type word struct {
	shorthand, takes, meaning string
}

var (
	wordRow = regexp.MustCompile("(?m)^\\| `--([a-z0-9-]+)`(?:, `-([a-z])`)? \\| ([a-z, ]+) \\| (.+) \\|$")
	oldRow  = regexp.MustCompile("(?m)^\\| `(strongroom[a-z -]*)` \\| `--([a-z-]+)` \\| `--([a-z-]+)` \\|$")
	// An instance of a flag may say with which other it goes.
	together = regexp.MustCompile(`^with --[a-z-]+(?: and --[a-z-]+)?: `)
)

func page(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// One name is one thing in both programs: every flag of both is in the table of
// docs/commands.md, with one type, one shorthand and one meaning; and no two
// names there mean the same.
func TestVocabulary(t *testing.T) {
	known, unused, meanings := map[string]word{}, map[string]bool{}, map[string]string{}
	for _, row := range wordRow.FindAllStringSubmatch(page(t), -1) {
		name, w := row[1], word{row[2], row[3], row[4]}
		if _, ok := known[name]; ok {
			t.Errorf("docs/commands.md has --%s twice", name)
		}
		if other, ok := meanings[w.meaning]; ok {
			t.Errorf("docs/commands.md: --%s and --%s both are %q", other, name, w.meaning)
		}
		known[name], unused[name], meanings[w.meaning] = w, true, name
	}
	if len(known) < 100 {
		t.Fatalf("only %d flags are in docs/commands.md", len(known))
	}
	each(func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" || f.Name == "version" {
				return // cobra's own
			}
			w, ok := known[f.Name]
			if !ok {
				t.Errorf("%s --%s is not in the vocabulary: use the word there that means the same, or add a row to docs/commands.md (%s, %q)",
					c.CommandPath(), f.Name, takes[f.Value.Type()], f.Usage)
				return
			}
			delete(unused, f.Name)
			if fault := w.differs(f); fault != "" {
				t.Errorf("%s --%s %s", c.CommandPath(), f.Name, fault)
			}
		})
	})
	for name := range unused {
		t.Errorf("docs/commands.md has --%s, and no command", name)
	}
}

// The page has the exit codes in the words of the programs' help.
func TestExitCodesInDocs(t *testing.T) {
	_, codes, _ := strings.Cut(fault.Codes, ": ")
	if !strings.Contains(page(t), codes) {
		t.Errorf("docs/commands.md does not say %q", codes)
	}
}

// differs says what of a flag is not as the vocabulary has it.
func (w word) differs(f *pflag.Flag) string {
	help := together.ReplaceAllString(f.Usage, "")
	rest, begins := strings.CutPrefix(help, w.meaning)
	switch {
	case takes[f.Value.Type()] != w.takes:
		return fmt.Sprintf("takes %s (%s), and %s in the vocabulary", takes[f.Value.Type()], f.Value.Type(), w.takes)
	case f.Shorthand != w.shorthand:
		return fmt.Sprintf("has the shorthand %q, and %q in the vocabulary", f.Shorthand, w.shorthand)
	case !begins || rest != "" && !strings.Contains(" ,;:(", rest[:1]):
		return fmt.Sprintf("is %q, and %q in the vocabulary", f.Usage, w.meaning)
	}
	return ""
}

// The test above sees what it is for.
func TestVocabularySees(t *testing.T) {
	w := word{"n", "nothing", "change nothing"}
	for name, c := range map[string]struct {
		flag  func(*pflag.FlagSet)
		fault string
	}{
		"as it is":          {func(f *pflag.FlagSet) { f.BoolP("x", "n", false, "change nothing, and show it") }, ""},
		"with another":      {func(f *pflag.FlagSet) { f.BoolP("x", "n", false, "with --path: change nothing") }, ""},
		"another type":      {func(f *pflag.FlagSet) { f.StringP("x", "n", "", "change nothing") }, "takes text"},
		"another shorthand": {func(f *pflag.FlagSet) { f.BoolP("x", "d", false, "change nothing") }, "shorthand"},
		"none":              {func(f *pflag.FlagSet) { f.Bool("x", false, "change nothing") }, "shorthand"},
		"another meaning":   {func(f *pflag.FlagSet) { f.BoolP("x", "n", false, "show it") }, "in the vocabulary"},
		"a longer word":     {func(f *pflag.FlagSet) { f.BoolP("x", "n", false, "change nothings") }, "in the vocabulary"},
	} {
		t.Run(name, func(t *testing.T) {
			set := pflag.NewFlagSet("x", pflag.ContinueOnError)
			c.flag(set)
			if got := w.differs(set.Lookup("x")); (got == "") != (c.fault == "") || !strings.Contains(got, c.fault) {
				t.Errorf("%q, want %q", got, c.fault)
			}
		})
	}
}

// The page tells of the old names, all of them.
func TestOldNamesPage(t *testing.T) {
	text := page(t)
	if !strings.Contains(text, "until version "+oldnames.Until+";") {
		t.Errorf("the page does not say that they go in %s", oldnames.Until)
	}
	var there []oldnames.Flag
	for _, row := range oldRow.FindAllStringSubmatch(text, -1) {
		there = append(there, oldnames.Flag{Command: row[1], Old: row[2], New: row[3]})
	}
	if want := oldnames.Flags(); !slices.Equal(there, want) {
		t.Errorf("docs/commands.md has %v\nthe table    has %v", there, want)
	}
}

// Whatever a person can type is on a page: each verb of both programs that help
// shows, but for those that a unit of systemd runs.
func TestVerbsAreOnPages(t *testing.T) {
	var said strings.Builder
	for _, pattern := range []string{"../README.md", "../docs/*.md", "../systemd/*.service"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			said.WriteString(text(t, file))
		}
	}
	verbs := 0
	each(func(c *cobra.Command) {
		if c.Hidden || c.HasSubCommands() || !c.Runnable() {
			return
		}
		verbs++
		if !regexp.MustCompile(`\b` + c.CommandPath() + `\b`).MatchString(said.String()) {
			t.Errorf("no page of docs/ says %q, and no unit runs it", c.CommandPath())
		}
	})
	if verbs < 40 {
		t.Errorf("only %d verbs were seen", verbs)
	}
}
