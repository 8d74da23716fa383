package migrate

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"strongroom.example/appliance/secrets/dotenv"
)

// ScanOptions say what to look at.
type ScanOptions struct {
	Root    string
	Dialect dotenv.Dialect
	// Environments gives a .env file (relative to Root) an environment that its
	// name does not tell.
	Environments map[string]string
	// Default environment of a plain .env.
	Default string
	// History also looks for the secrets in git's history.
	History bool
	// Reveal keeps the values in the report.
	Reveal bool
}

// Definition is a place that gives a variable a value.
type Definition struct {
	File        string `json:"file"`
	Line        int    `json:"line"`                  // from 1
	Kind        string `json:"kind"`                  // dotenv, template, or a kind of Use
	Environment string `json:"environment,omitempty"` // of a .env file
	// Secret reasons, none for plain configuration.
	Secret []string `json:"secret,omitempty"`
	// InHistory is the git commits that brought the value in, oldest first; at
	// most three.
	InHistory []string `json:"in_history,omitempty"`
	// Bytes of the value.
	Bytes int `json:"bytes"`
	// Value only if it was asked for.
	Value string `json:"value,omitempty"`
	// Unresolved are references to variables that the file does not define.
	Unresolved []string `json:"unresolved,omitempty"`
}

// Variable is one name in the whole tree.
type Variable struct {
	Name        string       `json:"name"`
	Definitions []Definition `json:"definitions"`
	Uses        []Use        `json:"uses"`
}

// Secret says whether any definition looks like a secret.
func (v *Variable) Secret() bool {
	return slices.ContainsFunc(v.Definitions, func(d Definition) bool { return len(d.Secret) > 0 })
}

// Report is what a scan found. It holds no value unless that was asked for.
type Report struct {
	Root      string     `json:"root"`
	Dialect   string     `json:"dialect"`
	Files     int        `json:"files"` // all regular files, looked at or not
	Variables []Variable `json:"variables"`
	Problems  []Problem  `json:"problems,omitempty"`
	// Differences of the two dialects.
	Differences []FileDifference `json:"differences,omitempty"`
	// Tracked .env files are in git's index.
	Tracked []string `json:"tracked,omitempty"`
	// History says what was looked at there; empty if nothing was.
	History string `json:"history,omitempty"`
}

// FileDifference is a variable that python-dotenv and docker-compose read
// otherwise.
type FileDifference struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Name string `json:"name,omitempty"`
	Why  string `json:"why"`
}

// Fatal are the problems that stand in the way of a migration.
func (r *Report) Fatal() []Problem {
	var out []Problem
	for _, p := range r.Problems {
		if p.Fatal {
			out = append(out, p)
		}
	}
	return out
}

// Scan looks through a tree. It fails only if the tree cannot be read at all;
// everything else is in the report.
func Scan(ctx context.Context, o ScanOptions) (*Report, error) {
	classifier, err := NewClassifier()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("scan %q: %w", o.Root, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	defer root.Close()
	s := &scanner{o: o, classifier: classifier, vars: map[string]*Variable{}, values: map[string]string{}, written: map[string]string{}}
	w := &walker{root: root, dir: dir, each: s.source}
	if err := w.run(ctx); err != nil {
		return nil, fmt.Errorf("scan %q: %w", o.Root, err)
	}
	s.bad = append(s.bad, w.bad...)
	s.referenced(root)
	r := s.report(dir, w.all)
	if o.History {
		if err := s.history(ctx, dir, r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// scanner collects what the workers find.
type scanner struct {
	o          ScanOptions
	classifier *Classifier

	mu      sync.Mutex
	vars    map[string]*Variable
	bad     []Problem
	differ  []FileDifference
	envRefs map[string]bool // .env files by other names, relative to the root
	// values of the secrets in .env files, for the search in git's history,
	// by file, line and name.
	values map[string]string
	// written has those of them that their files write otherwise.
	written map[string]string
}

func (s *scanner) variable(name string) *Variable {
	v := s.vars[name]
	if v == nil {
		v = &Variable{Name: name}
		s.vars[name] = v
	}
	return v
}

func (s *scanner) source(src source) {
	if isEnvFile(src.path) {
		s.envFile(src)
		return
	}
	k := &sink{src: src, uses: map[string][]Use{}}
	for _, extract := range extractorsFor(src.path) {
		extract(k)
	}
	// Judged outside of the lock: it is where the time goes.
	defs := make([]Definition, len(k.defs))
	for i, d := range k.defs {
		defs[i] = Definition{File: src.path, Line: d.line, Kind: d.kind, Bytes: len(d.value), Secret: s.classifier.Why(d.name, d.value)}
		if s.o.Reveal {
			defs[i].Value = d.value
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, uses := range k.uses {
		v := s.variable(name)
		v.Uses = append(v.Uses, uses...)
	}
	for i, d := range k.defs {
		v := s.variable(d.name)
		v.Definitions = append(v.Definitions, defs[i])
	}
	s.bad = append(s.bad, k.bad...)
	for _, ref := range k.envRef {
		if s.envRefs == nil {
			s.envRefs = map[string]bool{}
		}
		if !path.IsAbs(ref) && !strings.ContainsAny(ref, "$%") {
			s.envRefs[path.Join(path.Dir(src.path), ref)] = true
		}
	}
}

// referenced reads the files that a compose file or a unit names as its
// environment, where their own names do not give them away.
func (s *scanner) referenced(root *os.Root) {
	for _, ref := range sortedKeys(s.envRefs) {
		if isEnvFile(ref) || !filepath.IsLocal(filepath.FromSlash(ref)) {
			continue
		}
		if st, err := root.Lstat(filepath.FromSlash(ref)); err != nil || !st.Mode().IsRegular() {
			continue // made at deployment
		}
		data, err := readRegular(root, ref, dotenv.MaxSize)
		if err != nil {
			s.bad = append(s.bad, Problem{File: ref, Why: reason(err), Fatal: true})
			continue
		}
		s.envFile(source{ref, data})
	}
}

func (s *scanner) envFile(src source) {
	template := isTemplate(src.path)
	vars, faults := readEnv(src, s.o.Dialect)
	var defs []Definition
	tainted := map[string]bool{}
	for _, v := range vars {
		d := Definition{File: src.path, Line: v.Line, Kind: "dotenv", Bytes: len(v.Value), Unresolved: v.Unresolved}
		if template {
			d.Kind = "template"
		} else {
			d.Environment = s.environmentOf(src.path)
			d.Secret = s.classifier.Why(v.Name, v.Value)
			for _, ref := range v.Refs {
				if tainted[ref] && len(d.Secret) == 0 {
					d.Secret = []string{fmt.Sprintf("holds the secret %s", ref)}
				}
			}
			tainted[v.Name] = len(d.Secret) > 0
		}
		if s.o.Reveal {
			d.Value = v.Value
		}
		defs = append(defs, d)
	}
	var written map[string]string
	if s.o.History && !template {
		written = asWritten(src, s.o.Dialect, vars)
	}
	var differ []FileDifference
	if !template && len(faults) == 0 {
		for _, d := range dotenv.Differences(src.data) {
			differ = append(differ, FileDifference{src.path, d.Line, d.Name, d.Why})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range faults {
		faults[i].Fatal = !template
		s.bad = append(s.bad, Problem{f.File, f.Line, f.Why, !template})
	}
	s.differ = append(s.differ, differ...)
	for i, v := range vars {
		if !v.Set {
			continue // a name alone comes from outside
		}
		found := s.variable(v.Name)
		found.Definitions = append(found.Definitions, defs[i])
		if s.o.History && len(defs[i].Secret) > 0 {
			key := definitionKey(src.path, v.Line, v.Name)
			s.values[key] = v.Value
			if w := written[key]; w != "" {
				s.written[key] = w
			}
		}
	}
}

func definitionKey(file string, line int, name string) string {
	return fmt.Sprintf("%s\x00%d\x00%s", file, line, name)
}

// readEnv gives the variables of a .env file, or its faults.
func readEnv(src source, d dotenv.Dialect) ([]dotenv.Variable, []Problem) {
	f, err := dotenv.Parse(src.data, d)
	var vars []dotenv.Variable
	if err == nil {
		vars, err = f.Resolve(nil)
	}
	if err == nil {
		return vars, nil
	}
	return nil, problemsOf(src.path, err)
}

// problemsOf takes an error of the dotenv package apart into its lines.
func problemsOf(file string, err error) []Problem {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var out []Problem
		for _, e := range many.Unwrap() {
			out = append(out, problemsOf(file, e)...)
		}
		return out
	}
	if e, ok := err.(*dotenv.LineError); ok {
		return []Problem{{File: file, Line: e.Line, Why: e.Reason, Fatal: true}}
	}
	return []Problem{{File: file, Why: err.Error(), Fatal: true}}
}

// environments by the names that people use.
var environments = map[string]string{
	"prod": "production", "production": "production", "live": "production", "stage": "staging", "staging": "staging", "stg": "staging",
	"dev": "development", "development": "development", "local": "development", "test": "test", "testing": "test", "ci": "ci", "qa": "qa", "preview": "preview",
}

// environmentOf goes by the option, the file's name, its folders.
func (s *scanner) environmentOf(rel string) string {
	if e := s.o.Environments[rel]; e != "" {
		return e
	}
	var words []string
	for _, w := range strings.FieldsFunc(path.Base(rel), func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		if w != "env" {
			words = append(words, strings.ToLower(w))
		}
	}
	for _, w := range words {
		if e := environments[w]; e != "" {
			return e
		}
	}
	dirs := strings.Split(path.Dir(rel), "/")
	for _, d := range slices.Backward(dirs) {
		if e := environments[strings.ToLower(d)]; e != "" {
			return e
		}
	}
	if len(words) > 0 && path.Base(rel) != ".env" {
		return strings.Join(words, "-")
	}
	if s.o.Default != "" {
		return s.o.Default
	}
	return "development"
}

func (s *scanner) report(dir string, files int) *Report {
	r := &Report{Root: dir, Dialect: s.o.Dialect.String(), Files: files, Problems: s.bad, Differences: s.differ}
	for _, name := range sortedKeys(s.vars) {
		v := s.vars[name]
		sort.Slice(v.Definitions, func(i, j int) bool {
			a, b := v.Definitions[i], v.Definitions[j]
			return a.File < b.File || a.File == b.File && a.Line < b.Line
		})
		sort.Slice(v.Uses, func(i, j int) bool {
			a, b := v.Uses[i], v.Uses[j]
			return a.File < b.File || a.File == b.File && a.Line < b.Line
		})
		r.Variables = append(r.Variables, *v)
	}
	sort.Slice(r.Problems, func(i, j int) bool {
		a, b := r.Problems[i], r.Problems[j]
		return a.File < b.File || a.File == b.File && a.Line < b.Line
	})
	sort.Slice(r.Differences, func(i, j int) bool {
		a, b := r.Differences[i], r.Differences[j]
		return a.File < b.File || a.File == b.File && a.Line < b.Line
	})
	return r
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
