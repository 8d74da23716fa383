package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func text(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// firsts gives the first group of each match.
func firsts(re, in string) []string {
	var out []string
	for _, m := range regexp.MustCompile(re).FindAllStringSubmatch(in, -1) {
		out = append(out, m[1])
	}
	return out
}

// `make help` names whatever can be made, and what pages, scripts and workflows
// say to make is among it.
func TestMakeTargets(t *testing.T) {
	makefile := text(t, "../Makefile")
	helped := firsts(`(?m)^([a-z-]+):.*## \S`, makefile) // as the recipe of help has it
	for _, target := range firsts(`(?m)^\.PHONY: (.*)$`, makefile) {
		if target != "need-go" && !slices.Contains(helped, target) {
			t.Errorf("make help does not say what %q is", target)
		}
	}
	named := 0
	for _, pattern := range []string{"../*.md", "../Makefile", "../.ci/run", "../scripts/*", "../docs/*.md", "../python/*.md", "../.github/workflows/*.yml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			in := text(t, file)
			var targets []string
			for _, words := range firsts("(?m)(?:`|^ *|^# |run: )make ([a-z]+(?: [a-z]+)*)(?: +[A-Z]+=\\S+)?(?: +# .*)?(?:`|$)", in) {
				targets = append(targets, strings.Fields(words)...)
			}
			// A workflow's matrix of targets.
			for _, row := range firsts(`(?m)^ +run: \[(.*)\]$`, in) {
				targets = append(targets, firsts(`"([a-z]+)"`, row)...)
			}
			for _, target := range targets {
				named++
				if !slices.Contains(helped, target) {
					t.Errorf("%s: the Makefile has no target %q", file, target)
				}
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d targets were seen", named)
	}
}

// Each area of `make soak` has tests, by each of its words; and no test of a
// real machine or Vault, nor a long form of any other, is in none.
func TestSoakAreas(t *testing.T) {
	_, table, _ := strings.Cut(text(t, "../scripts/soak"), "<<'AREAS'\n")
	table, _, ok := strings.Cut(table, "\nAREAS\n")
	if !ok {
		t.Fatal("scripts/soak has no table of areas")
	}
	tests := testsIn(t, "e2e", "vps")
	var packages, words []string
	for line := range strings.Lines(table) {
		cells := strings.Fields(line)
		if len(cells) != 3 {
			t.Fatalf("%q is no area, packages and names", line)
		}
		for _, word := range strings.Split(cells[2], "|") {
			words = append(words, word)
			if !slices.ContainsFunc(tests, regexp.MustCompile("^Test.*("+word+")").MatchString) {
				t.Errorf("%s: %q is in no test's name", cells[0], word)
			}
		}
		if cells[1] == "-" {
			continue
		}
		for _, p := range strings.Split(cells[1], ",") {
			dir := filepath.Join("..", strings.TrimSuffix(p, "/..."))
			if info, err := os.Stat(dir); err != nil || !info.IsDir() {
				t.Errorf("%s: there is no %s", cells[0], p)
			}
			packages = append(packages, dir+"/")
		}
	}
	all := regexp.MustCompile("^Test.*(" + strings.Join(words, "|") + ")")
	for _, name := range tests {
		if !all.MatchString(name) {
			t.Errorf("%s is in no area of scripts/soak", name)
		}
	}
	long := 0
	for _, file := range goTests(t) {
		if strings.HasPrefix(file, "../test/") || !strings.Contains(text(t, file), `"STRONGROOM_SOAK"`) {
			continue
		}
		long++
		if !slices.ContainsFunc(packages, func(p string) bool { return strings.HasPrefix(file, p) }) {
			t.Errorf("%s has a long form, and is in no area of scripts/soak", file)
		}
	}
	if long == 0 {
		t.Error("no package has a long form: the test looks in the wrong place")
	}
}

// testsIn are the names of the tests of folders beside this one.
func testsIn(t *testing.T, dirs ...string) []string {
	t.Helper()
	var out []string
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil || len(files) < 10 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, file := range files {
			out = append(out, firsts(`(?m)^func (Test\w+)\(t `, text(t, file))...)
		}
	}
	return out
}

// goTests are the files of tests of the whole project.
func goTests(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, top := range []string{"appliance", "config", "installer", "plugin", "systemd", "test"} {
		err := filepath.WalkDir("../"+top, func(p string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(p, "_test.go") {
				out = append(out, p)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Each area starts what its row names, with the long form asked for, goes on after
// a failure, and ends with it.
func TestSoakStartsEachArea(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"soak": text(t, "../scripts/soak"),
		// What is called says so, and fails.
		"test-go": "#!/bin/sh\necho \"called $STRONGROOM_SOAK test-go $*\"\nexit 5\n", "test": "#!/bin/sh\necho \"called $STRONGROOM_SOAK test $*\"\nexit 6\n",
		"python-test": "#!/bin/sh\necho \"called $STRONGROOM_SOAK python-test $*\"\nexit 7\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "scripts", name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	soak := func(args ...string) (string, int) {
		c := exec.CommandContext(t.Context(), "bash", append([]string{filepath.Join(dir, "scripts", "soak")}, args...)...)
		out, err := c.CombinedOutput()
		if c.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), c.ProcessState.ExitCode()
	}
	listed, _ := soak("--list")
	areas := strings.Fields(listed)
	if len(areas) < 9 {
		t.Fatalf("the areas are %q", areas)
	}
	for _, area := range areas {
		out, code := soak(area)
		called := firsts(`(?m)^called 1 (.*)$`, out)
		switch {
		case area == "python":
			if code != 7 || !slices.Equal(called, []string{"python-test "}) {
				t.Errorf("python: exit code %d, called %q", code, called)
			}
		case code != 5 || !strings.Contains(out, "soak, "+area+": "):
			t.Errorf("%s: exit code %d:\n%s", area, code, out)
		case len(called) == 0 || !strings.Contains(called[len(called)-1], "-run ^Test.*(") || !strings.HasSuffix(called[len(called)-1], " ./test/e2e ./test/vps"):
			t.Errorf("%s: it called %q", area, called)
		case area != "cluster" && (len(called) != 2 || !strings.Contains(called[0], "/...")):
			t.Errorf("%s: it called %q, its packages are not there", area, called)
		}
	}
	if out, code := soak(); code != 6 || !strings.Contains(out, "called 1 test -timeout") {
		t.Errorf("all of it: exit code %d:\n%s", code, out)
	}
	if out, code := soak("nonsense"); code != 2 || !strings.Contains(out, "engine cluster front") {
		t.Errorf("no area: exit code %d:\n%s", code, out)
	}
}
