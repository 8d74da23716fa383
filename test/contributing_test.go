package test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A recipe names files and tests that are there.
func TestContributingIsTrue(t *testing.T) {
	page := text(t, "../CONTRIBUTING.md")
	tests := map[string]bool{}
	for _, file := range goTests(t) {
		for _, name := range firsts(`(?m)^func (Test\w+)\(t `, text(t, file)) {
			tests[name] = true
		}
	}
	// The Python client's, by their names alone.
	python, err := filepath.Glob("../python/tests/test_*.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range python {
		for _, name := range firsts(`(?m)^def (test_\w+)\(`, text(t, file)) {
			tests[name] = true
		}
	}
	named := firsts("`([Tt]est(?:[A-Z]|_)\\w+)`", page)
	for _, name := range named {
		if !tests[name] {
			t.Errorf("there is no test %s", name)
		}
	}
	paths := firsts("[` (]([a-z]+/[A-Za-z0-9_./*-]+)", page)
	for _, p := range paths {
		root := "../"
		if strings.HasPrefix(p, "tests/") {
			root += "python/" // where scripts/python-test runs
		}
		// NAME and VERB stand for what is yet to be.
		glob := regexp.MustCompile(`[A-Z]{2,}`).ReplaceAllString(root+strings.TrimRight(p, "./,"), "*")
		if found, err := filepath.Glob(glob); err != nil || len(found) == 0 {
			t.Errorf("there is no %s: %v", p, err)
		}
	}
	if len(named) < 15 || len(paths) < 25 {
		t.Errorf("only %d tests and %d paths were seen", len(named), len(paths))
	}
}

// A type of provider is in the plugin's program, and passes the suite of all types.
func TestProviderTypesAreWhole(t *testing.T) {
	files, err := filepath.Glob("../plugin/provider/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	program := text(t, "../plugin/cmd/vault-plugin-secrets-apikeys/main.go")
	types := 0
	for _, file := range files {
		if !strings.Contains(text(t, file), "\nfunc New(cfg provider.Config) ") {
			continue
		}
		types++
		dir := filepath.Dir(file)
		if name := filepath.Base(dir); !strings.Contains(program, name+".New,") {
			t.Errorf("%s.New is not in the table of %s", name, "plugin/cmd/vault-plugin-secrets-apikeys/main.go")
		}
		tests, err := filepath.Glob(dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		suite := false
		for _, test := range tests {
			suite = suite || strings.Contains(text(t, test), "conformance.Run(t,")
		}
		if !suite {
			t.Errorf("no test of %s calls conformance.Run", dir)
		}
	}
	if types < 4 {
		t.Errorf("only %d types were seen", types)
	}
}
