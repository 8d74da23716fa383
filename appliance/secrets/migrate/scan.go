package migrate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/dotenv"
)

// ScanOptions say what to look at.
type ScanOptions struct {
	Root string
	// Dialect of all .env files; 0 is, for each, that of who reads it.
	Dialect dotenv.Dialect
	// Dialects of single files, relative to Root: they win over Dialect.
	Dialects map[string]dotenv.Dialect
	// Environments gives a .env file (relative to Root) an environment that its
	// name does not tell.
	Environments map[string]string
	// Default environment of a plain .env.
	Default string
	// OtherStore is what another store has printed; see ReadOtherStore.
	OtherStore []byte
	// History also looks for the secrets in git's history.
	History bool
	// HistoryLimit bounds that search; 0 is the constant of that name.
	HistoryLimit time.Duration
	// Progress of the search in git's history, for each object; may be nil.
	Progress func(HistoryProgress)
	// Exclude are patterns of paths that are not looked at: see CheckExclude.
	Exclude []string
	// Reveal keeps the values in the report.
	Reveal bool
	// Compare keeps the values of secrets in memory, for the report's Tree.
	Compare bool
}

// Definition is a place that gives a variable a value.
type Definition struct {
	File        string `json:"file"`
	Line        int    `json:"line"`                  // from 1
	Kind        string `json:"kind"`                  // dotenv, template, or a kind of Use
	Environment string `json:"environment,omitempty"` // of a .env file
	// Secret reasons, none for plain configuration.
	Secret []string `json:"secret,omitempty"`
	// Rule by which it is a secret: see Judgment.
	Rule string `json:"rule,omitempty"`
	// Parts of a composite value that are secret, such as "password of the URL".
	Parts []string `json:"parts,omitempty"`
	// ByPart is the variable in which clients read the part by itself, if they do.
	ByPart string `json:"by_part,omitempty"`
	// Whole says which clients do, or why none does.
	Whole string `json:"whole,omitempty"`
	// Placeholder says why a value under a secret's name is none.
	Placeholder string `json:"placeholder,omitempty"`
	// InHistory is the first git commit that holds the value, in twelve digits;
	// object-… is an object of no commit, refs a name of a branch or tag, reflog
	// git's log of them; FOLDER@… is of a repository below.
	InHistory []string `json:"in_history,omitempty"`
	// Bytes of the value.
	Bytes int `json:"bytes"`
	// Value only if it was asked for.
	Value string `json:"value,omitempty"`
	// Unresolved are references to variables that the file does not define; masked
	// in a secret, unless values were asked for.
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
	// NotMoved are secrets in places that this tool does not move.
	NotMoved []Finding `json:"not_moved,omitempty"`
	Problems []Problem `json:"problems,omitempty"`
	// Dialects are those that were followed, by .env file.
	Dialects map[string]string `json:"dialects,omitempty"`
	// Chosen are the files of Dialects for which that was asked for.
	Chosen map[string]string `json:"chosen,omitempty"`
	// Readers are who reads each .env file, as far as the tree shows it.
	Readers map[string][]Reader `json:"readers,omitempty"`
	// Differences between readers of one file.
	Differences []FileDifference `json:"differences,omitempty"`
	// Tracked .env files are in git's index.
	Tracked []string `json:"tracked,omitempty"`
	// History says what was looked at there; empty if nothing was.
	History string `json:"history,omitempty"`
	// HistoryNotes say what of it could not be looked at.
	HistoryNotes []string `json:"history_notes,omitempty"`
	// NotSearched are secrets that were not looked for in the history.
	NotSearched []NotSearched `json:"not_searched,omitempty"`

	values map[string]string // as the scanner has them, for a comparison
}

// FileDifference is a variable that two readers of its file read otherwise.
type FileDifference struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Name string `json:"name,omitempty"` // empty where one of them does not read the file at all
	Why  string `json:"why"`            // never a value
	// Stops is true where the tree shows both readers, and the variable would go
	// to Vault: nobody has said whose value that is.
	Stops bool `json:"stops"`
}

// Stops are the differences that stand in the way of a plan.
func (r *Report) Stops() []FileDifference {
	var out []FileDifference
	for _, d := range r.Differences {
		if d.Stops {
			out = append(out, d)
		}
	}
	return out
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
	root, err := atomicfile.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("scan: %w", err)
	}
	defer root.Close()
	s := newScanner(o, classifier)
	for _, pattern := range o.Exclude {
		if err := CheckExclude(pattern); err != nil {
			return nil, fmt.Errorf("scan: exclude %w", err)
		}
	}
	s.ignored = ignoredDirs(ctx, dir)
	w := &walker{root: root, dir: dir, each: s.source, want: wantedByScan, exclude: o.Exclude, ignored: s.ignored}
	s.inIgnored = w.inIgnored
	if err := w.run(ctx); err != nil {
		return nil, fmt.Errorf("scan %q: %w", o.Root, err)
	}
	s.bad = append(s.bad, w.bad...)
	if data, err := readRegular(root, gitConfig, maxSource); err == nil && !w.excluded(gitConfig) { // where there is none, there is nothing to say
		s.source(source{gitConfig, data})
	}
	s.referenced(root)
	if len(o.OtherStore) > 0 {
		s.envs = append(s.envs, source{OtherStore, o.OtherStore})
	}
	if err := s.envFiles(ctx); err != nil {
		return nil, fmt.Errorf("scan %q: %w", o.Root, err)
	}
	r := s.report(dir, w.all)
	if o.Compare {
		r.values = s.values
	}
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
	envs    []source
	shown   []mention
	readers map[string][]Reader
	follow  map[string]following
	// values of secrets, for the search in git's history and for comparisons, by file,
	// line and name.
	values map[string]string
	// ignored folders are git's.
	ignored   map[string]bool
	inIgnored func(rel string) bool
	elsewhere []Finding
	// written has those of them that their files write otherwise.
	written map[string]string
}

func newScanner(o ScanOptions, c *Classifier) *scanner {
	return &scanner{o: o, classifier: c, vars: map[string]*Variable{}, values: map[string]string{}, written: map[string]string{}, inIgnored: func(string) bool { return false }}
}

func (s *scanner) keeps() bool { return s.o.History || s.o.Compare }

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
		s.mu.Lock()
		defer s.mu.Unlock()
		s.envs = append(s.envs, src) // read when all is known of who reads it
		return
	}
	// Judged outside of the lock: it is where the time goes.
	found := s.classifier.look(src)
	shown := mentionsIn(src)
	k := &sink{src: src, uses: map[string][]Use{}}
	for _, extract := range extractorsOf(src) {
		extract(k)
	}
	defs := make([]Definition, len(k.defs))
	for i, d := range k.defs {
		j := s.classifier.Judge(d.name, d.value)
		defs[i] = Definition{File: src.path, Line: d.line, Kind: d.kind, Bytes: len(d.value), Secret: j.Secret, Rule: j.Rule, Placeholder: j.Placeholder}
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
		if s.keeps() && len(defs[i].Secret) > 0 {
			s.values[definitionKey(src.path, d.line, d.name)] = d.value
		}
	}
	s.bad = append(s.bad, k.bad...)
	s.add(found)
	s.shown = append(s.shown, shown...)
	for _, ref := range k.envRef {
		if s.envRefs == nil {
			s.envRefs = map[string]bool{}
		}
		if !path.IsAbs(ref) && !strings.ContainsAny(ref, "$%") {
			s.envRefs[path.Join(path.Dir(src.path), ref)] = true
		}
	}
}

// add takes what was found beside the variables.
func (s *scanner) add(l *lookup) {
	s.bad = append(s.bad, l.bad...)
	s.elsewhere = append(s.elsewhere, l.found...)
	if s.keeps() {
		maps.Copy(s.values, l.values)
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
		s.envs = append(s.envs, source{ref, data})
		// What it holds is moved, and not elsewhere.
		s.elsewhere = slices.DeleteFunc(s.elsewhere, func(f Finding) bool { return f.File == ref })
	}
}

// envFiles reads all .env files, each as its reader does.
func (s *scanner) envFiles(ctx context.Context) error {
	var names []string
	for _, src := range s.envs {
		names = append(names, src.path)
	}
	slices.Sort(names)
	s.readers = readersOf(s.shown, names)
	s.follow = map[string]following{}
	for _, src := range s.envs {
		if !isTemplate(src.path) {
			s.follow[src.path] = s.o.followingOf(src, s.readers[src.path])
		}
	}
	err := parallel(ctx, s.envs, runtime.GOMAXPROCS(0), func(_ context.Context, src source) error {
		s.envFile(src)
		return nil
	})
	for i, p := range s.bad {
		// Whatever it is called, a program reads it.
		if s.envRefs[p.File] && p.Line > 0 && !isTemplate(p.File) {
			s.bad[i].Fatal = true
		}
	}
	return err
}

func (s *scanner) envFile(src source) {
	template := isTemplate(src.path)
	kind, why := "", ""
	switch {
	case !utf8.ValidString(src.path):
		kind, why = "unnamed", "a path that is not UTF-8, which no plan can name: rename it; it is not planned"
	case isEnvCopy(src.path) || !mustRead(src.path) && isDiff(src.data):
		kind, why = "copy", "a copy or a patch: it is not planned"
	}
	if kind != "" {
		found := s.classifier.envElsewhere(src, kind)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.add(found)
		s.bad = append(s.bad, Problem{File: src.path, Why: why})
		return
	}
	follow, ok := s.follow[src.path]
	if !ok {
		follow.dialect = cmp.Or(s.o.Dialect, dotenv.Python)
	}
	vars, faults := readEnv(src, follow.dialect)
	for i := range faults {
		faults[i].Why += follow.because()
	}
	fatal := src.path == OtherStore || mustRead(src.path) && !s.inIgnored(src.path)
	switch {
	case template:
		kind = "template"
	case len(faults) > 0 && !fatal:
		kind = "malformed"
	}
	beside := &lookup{}
	if src.path != OtherStore {
		beside = s.classifier.envElsewhere(src, kind)
	}
	var defs []Definition
	tainted := map[string]bool{}
	for _, v := range vars {
		d := Definition{File: src.path, Line: v.Line, Kind: "dotenv", Bytes: len(v.Value), Unresolved: v.Unresolved}
		if template {
			d.Kind = "template"
		} else {
			d.Environment = s.environmentOf(src.path)
			j := s.classifier.Judge(v.Name, v.Value)
			d.Secret, d.Rule, d.Parts, d.Placeholder = j.Secret, j.Rule, j.Parts, j.Placeholder
			if len(d.Parts) > 0 {
				d.ByPart, d.Whole = asWhole(v.Name, v.Value, d.Parts)
			}
			for _, ref := range v.Refs {
				if tainted[ref] && len(d.Secret) == 0 {
					d.Secret, d.Rule, d.Placeholder = []string{fmt.Sprintf("holds the secret %s", ref)}, "reference", ""
				}
			}
			tainted[v.Name] = len(d.Secret) > 0
		}
		if s.o.Reveal {
			d.Value = v.Value
		} else if len(d.Secret) > 0 && len(d.Unresolved) > 0 {
			d.Unresolved = []string{masked} // may be the rest of a password with a dollar in it
		}
		defs = append(defs, d)
	}
	var written map[string]string
	if s.o.History && !template && src.path != OtherStore {
		written = asWritten(src, follow.dialect, vars)
	}
	var differ []FileDifference
	if !template && len(faults) == 0 {
		differ = follow.differences(src)
		for i, d := range differ {
			// What stays in its file is read as before.
			differ[i].Stops = d.Stops && (src.path == OtherStore || moves(d.Name, vars, defs))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(beside)
	for _, f := range faults {
		if !fatal && !template {
			f.Why += "; it is not planned"
		}
		s.bad = append(s.bad, Problem{f.File, f.Line, f.Why, fatal})
	}
	s.differ = append(s.differ, differ...)
	for i, v := range vars {
		if !v.Set {
			continue // a name alone comes from outside
		}
		found := s.variable(v.Name)
		found.Definitions = append(found.Definitions, defs[i])
		if s.keeps() && len(defs[i].Secret) > 0 {
			key := definitionKey(src.path, v.Line, v.Name)
			s.values[key] = v.Value
			if w := written[key]; w != "" {
				s.written[key] = w
			}
		}
	}
}

// moves says whether a variable that readers differ on would go to Vault; without
// a name, whether any of its file would. One that only another reader sees may.
func moves(name string, vars []dotenv.Variable, defs []Definition) bool {
	known := false
	for i, v := range vars {
		if len(defs[i].Secret) > 0 && (name == "" || v.Name == name) {
			return true
		}
		known = known || v.Name == name
	}
	return name != "" && !known
}

func definitionKey(file string, line int, name string) string {
	return fmt.Sprintf("%s\x00%d\x00%s", file, line, name)
}

// readEnv gives the variables of a .env file, or its faults.
func readEnv(src source, d dotenv.Dialect) ([]dotenv.Variable, []Problem) {
	if src.path == OtherStore {
		return readOtherStore(src.data, d)
	}
	return readDotenv(src, d)
}

func readDotenv(src source, d dotenv.Dialect) ([]dotenv.Variable, []Problem) {
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
	base := strings.TrimPrefix(path.Base(rel), ".dev.vars.") // .dev.vars.staging
	for _, w := range strings.FieldsFunc(base, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		if w = strings.ToLower(w); w != "env" && w != "flaskenv" && w != "secrets" && w != "vars" {
			words = append(words, w)
		}
	}
	for _, w := range words {
		if e := environments[w]; e != "" {
			return e
		}
	}
	dirs := strings.Split(path.Dir(rel), "/")
	for _, d := range slices.Backward(dirs) {
		if e := environments[strings.ToLower(strings.TrimPrefix(d, "."))]; e != "" {
			return e
		}
	}
	if len(words) > 0 && path.Base(rel) != ".env" {
		if e := strings.Join(words, "-"); checkSegment(e) == nil {
			return e
		}
		return kebab(strings.Join(words, "-"))
	}
	if s.o.Default != "" {
		return s.o.Default
	}
	return "development"
}

func (s *scanner) report(dir string, files int) *Report {
	r := &Report{Root: dir, Dialect: cmp.Or(s.o.Dialect, dotenv.Python).String(), Files: files, Problems: s.bad, Differences: s.differ,
		Dialects: map[string]string{}, Chosen: map[string]string{}, Readers: s.readers}
	for file, f := range s.follow {
		r.Dialects[file] = f.dialect.String()
		if _, ok := s.o.Dialects[file]; ok {
			r.Chosen[file] = f.dialect.String()
		}
	}
	seen := map[string]bool{}
	for _, f := range s.elsewhere {
		seen[definitionKey(f.File, f.Line, f.Name[strings.LastIndexByte(f.Name, '.')+1:])] = true
	}
	for _, name := range sortedKeys(s.vars) {
		v := s.vars[name]
		for _, d := range v.Definitions {
			if d.Kind == "dotenv" || d.Kind == "template" || len(d.Secret) == 0 || seen[definitionKey(d.File, d.Line, name)] {
				continue
			}
			s.elsewhere = append(s.elsewhere, Finding{File: d.File, Line: d.Line, Kind: d.Kind, Name: name, Secret: d.Secret, Rule: d.Rule, Advice: advice(d.Kind, d.File)})
		}
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
	sortFindings(s.elsewhere)
	r.NotMoved = s.elsewhere
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
