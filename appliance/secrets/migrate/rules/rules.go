// Package rules knows what tokens of well-known services look like. The rules
// are gitleaks' own, its file unchanged (gitleaks.toml, MIT, version below);
// how they are applied follows its detector, which test/e2e holds this against.
//
// gitleaks itself is not linked: its detector brings 47 modules, readers of
// RAR and 7z archives, a WebAssembly runtime and viper among them, into a
// program that handles tokens of Vault, and reads its rules through global
// state. The module test/oracles pins it, scripts and tests take the rules
// from there.
//
// It is not a scanner of files: it is asked about single assignments.
package rules

import (
	_ "embed"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"
)

// Version of gitleaks that the rules come from.
const Version = "v8.30.1"

//go:embed gitleaks.toml
var file string

// Set is a set of rules, safe for concurrent use.
type Set struct {
	rules  []*rule
	global allowlist
}

type document struct {
	Title      string    `toml:"title"`
	MinVersion string    `toml:"minVersion"`
	Allowlist  allowlist `toml:"allowlist"`
	Rules      []*rule   `toml:"rules"`
}

type rule struct {
	ID          string       `toml:"id"`
	Description string       `toml:"description"`
	Regex       string       `toml:"regex"`
	Path        string       `toml:"path"`
	SecretGroup int          `toml:"secretGroup"`
	Entropy     float64      `toml:"entropy"`
	Keywords    []string     `toml:"keywords"`
	Tags        []string     `toml:"tags"`
	Allowlists  []*allowlist `toml:"allowlists"`

	once sync.Once
	re   *regexp.Regexp
}

type allowlist struct {
	Description string   `toml:"description"`
	Condition   string   `toml:"condition"`
	Paths       []string `toml:"paths"`
	RegexTarget string   `toml:"regexTarget"`
	Regexes     []string `toml:"regexes"`
	StopWords   []string `toml:"stopwords"`

	once sync.Once
	re   []*regexp.Regexp
}

// Default is the built-in set. It is made once: each rule's expression is compiled
// when it is needed first, and that is most of the time of a small scan.
func Default() (*Set, error) { return builtIn() }

var builtIn = sync.OnceValues(func() (*Set, error) { return parse(file) })

// parse refuses what it would not apply, so that a newer file with more in it
// is noticed.
func parse(text string) (*Set, error) {
	var doc document
	md, err := toml.Decode(text, &doc)
	if err != nil {
		return nil, fmt.Errorf("secret rules: %w", err)
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("secret rules: unknown key %q", unknown[0])
	}
	for _, r := range doc.Rules {
		if r.Regex == "" && r.Path == "" {
			return nil, fmt.Errorf("secret rules: rule %q has neither regex nor path", r.ID)
		}
		for i, k := range r.Keywords {
			r.Keywords[i] = strings.ToLower(k)
		}
	}
	return &Set{rules: doc.Rules, global: allowlist{Regexes: doc.Allowlist.Regexes, StopWords: doc.Allowlist.StopWords}}, nil
}

// Match gives the ids of the rules that see a secret in text, sorted. text is
// a line of code or configuration, such as NAME="value". A rule about files of
// a certain path never matches. Rules named generic yield to others.
func (s *Set) Match(text string) []string {
	var found []finding
	lower := strings.ToLower(text)
	for _, r := range s.rules {
		if r.Regex == "" || r.Path != "" || !r.hasKeyword(lower) {
			continue
		}
		found = append(found, r.match(text, &s.global)...)
	}
	var ids []string
	for _, f := range found {
		if !f.outdone(found) {
			ids = append(ids, f.id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Allowed says whether value is one of the placeholders that are never a
// secret, such as ${NAME} or xxxx.
func (s *Set) Allowed(value string) bool { return s.global.allows(value, value, value) }

type finding struct{ id, secret string }

// outdone says whether a more precise rule has found the same.
func (f finding) outdone(all []finding) bool {
	if !strings.Contains(f.id, "generic") {
		return false
	}
	return slices.ContainsFunc(all, func(o finding) bool {
		return !strings.Contains(o.id, "generic") && strings.Contains(o.secret, f.secret)
	})
}

func (r *rule) hasKeyword(lower string) bool {
	return len(r.Keywords) == 0 || slices.ContainsFunc(r.Keywords, func(k string) bool { return strings.Contains(lower, k) })
}

func (r *rule) match(text string, global *allowlist) []finding {
	// Two hundred rules, of which a tree meets a few: each is compiled when it
	// is first needed. The file is part of the program, so that it compiles is
	// a matter of its test.
	r.once.Do(func() { r.re = regexp.MustCompile(r.Regex) })
	var found []finding
	for _, whole := range r.re.FindAllString(text, -1) {
		whole = strings.Trim(whole, "\n")
		secret := whole
		if groups := r.re.FindStringSubmatch(whole); len(groups) > 1 {
			if r.SecretGroup > 0 {
				secret = groups[r.SecretGroup]
			} else if i := slices.IndexFunc(groups[1:], func(g string) bool { return g != "" }); i >= 0 {
				secret = groups[i+1]
			}
		}
		if r.Entropy != 0 && Entropy(secret) <= r.Entropy {
			continue
		}
		allowed := global.allows(secret, whole, text)
		for _, a := range r.Allowlists {
			allowed = allowed || a.allows(secret, whole, text)
		}
		if !allowed {
			found = append(found, finding{r.ID, secret})
		}
	}
	return found
}

func (a *allowlist) allows(secret, whole, line string) bool {
	a.once.Do(func() {
		for _, re := range a.Regexes {
			a.re = append(a.re, regexp.MustCompile(re))
		}
	})
	target := secret
	switch a.RegexTarget {
	case "match":
		target = whole
	case "line":
		target = line
	}
	byRegex := slices.ContainsFunc(a.re, func(re *regexp.Regexp) bool { return re.MatchString(target) })
	lower := strings.ToLower(secret)
	byWord := slices.ContainsFunc(a.StopWords, func(w string) bool { return strings.Contains(lower, strings.ToLower(w)) })
	if !strings.EqualFold(a.Condition, "and") && a.Condition != "&&" {
		return byRegex || byWord
	}
	// A text has no path, so a condition on one is never met.
	return len(a.Paths) == 0 && (len(a.re) == 0 || byRegex) && (len(a.StopWords) == 0 || byWord)
}

// Entropy is Shannon's, in bits per byte of s.
func Entropy(s string) float64 {
	counts := map[rune]int{}
	for _, r := range s {
		counts[r]++
	}
	e := 0.0
	for _, n := range counts {
		p := float64(n) / float64(len(s))
		e -= p * math.Log2(p)
	}
	return e
}
