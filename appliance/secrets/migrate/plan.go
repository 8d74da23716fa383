package migrate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// PlanFile is the plan's usual name, under the root of the tree.
const PlanFile = "strongroom-migrate.toml"

const planFormat = 1

// maxPlan bounds a plan that is read, in bytes: that of a hundred thousand variables.
const maxPlan = 32 << 20

// The kinds of a planned variable.
const (
	KindKV       = "kv"       // KV version 2
	KindAPIKey   = "api-key"  // the apikeys engine, by import
	KindDatabase = "database" // a dynamic role of the database engine takes its place
	KindPlain    = "plain"    // no secret: stays in its file
)

// Plan says where each variable goes. People edit it.
type Plan struct {
	Format   int     `toml:"format"`
	App      string  `toml:"app"`
	Dialect  string  `toml:"dialect"`
	Mount    string  `toml:"mount"`
	Variable []Entry `toml:"variable"`
	// Exclude are patterns of paths that are not looked at: see CheckExclude.
	Exclude []string `toml:"exclude"`
	// Dialects of files that are read otherwise than by Dialect, as the tree
	// shows their readers; and Chosen, which were asked for and stay.
	Dialects map[string]string `toml:"dialects"`
	Chosen   map[string]string `toml:"chosen_dialects"`
}

// DialectOf is whose reading of a file the plan follows.
func (p *Plan) DialectOf(file string) (dotenv.Dialect, error) {
	name := cmp.Or(p.Chosen[file], p.Dialects[file], p.Dialect)
	d, err := dotenv.ParseDialect(name)
	if err != nil {
		return 0, fmt.Errorf("plan: %s: %w", file, err)
	}
	return d, nil
}

// Entry is one variable of one .env file.
type Entry struct {
	Name        string `toml:"name"`
	File        string `toml:"file"` // relative to the root, with slashes
	Environment string `toml:"environment"`
	Kind        string `toml:"kind"`
	Path        string `toml:"path"`   // under the mount; of a database: the role
	Field       string `toml:"field"`  // of a KV secret; default "value"
	Mount       string `toml:"mount"`  // default: the plan's for KV, apikeys, database
	Shared      bool   `toml:"shared"` // others may name the same field, with the same value
	Why         string `toml:"why"`    // for the reader
}

// DefaultField is what the Python client reads where no field is named.
const DefaultField = "value"

// NewPlan proposes a place for every variable that a .env file of the tree
// sets. app begins every path.
func NewPlan(r *Report, app string) (*Plan, error) {
	if err := checkSegment(app); err != nil {
		return nil, fmt.Errorf("app %q: %w", app, err)
	}
	p := &Plan{Format: planFormat, App: app, Dialect: r.Dialect, Mount: machine.MountKV, Dialects: map[string]string{}, Chosen: map[string]string{}}
	maps.Copy(p.Chosen, r.Chosen)
	for file, name := range r.Dialects {
		if name != r.Dialect && r.Chosen[file] == "" {
			p.Dialects[file] = name
		}
	}
	for _, v := range r.Variables {
		last := map[string]int{} // a later line of a file wins
		for _, d := range v.Definitions {
			if d.Kind != "dotenv" {
				continue
			}
			e := propose(app, v.Name, d)
			if i, ok := last[d.File]; ok {
				p.Variable[i] = e
				continue
			}
			last[d.File] = len(p.Variable)
			p.Variable = append(p.Variable, e)
		}
	}
	return p, nil
}

// fromOutside never says which variable: what stands behind a dollar may as well
// be the rest of a password.
func fromOutside(name string) string {
	return name + " refers to a variable that the file does not set: single quotes keep a dollar that is a part of the value (but for python-dotenv's ${…})"
}

// FromOutside are the variables that would go to Vault, by the plan, and take a
// part of their value from outside of their file: Apply refuses them.
func (p *Plan) FromOutside(r *Report) (out []Problem) {
	moves := map[[2]string]bool{}
	for _, e := range p.Variable {
		moves[[2]string{e.Name, e.File}] = e.Kind == KindKV || e.Kind == KindAPIKey
	}
	for _, v := range r.Variables {
		last := map[string]Definition{} // the one that counts, by file
		for _, d := range v.Definitions {
			last[d.File] = d
		}
		for file, d := range last {
			if len(d.Unresolved) > 0 && moves[[2]string{v.Name, file}] {
				out = append(out, Problem{File: file, Line: d.Line, Why: fromOutside(v.Name), Fatal: true})
			}
		}
	}
	sortProblems(out)
	return out
}

func propose(app, name string, d Definition) Entry {
	e := Entry{Name: name, File: d.File, Environment: d.Environment, Kind: KindPlain}
	switch {
	case len(d.Secret) > 0 && !readsAs.MatchString(name):
		e.Why = "looks like a secret, and has a name that no program can be given from Vault"
	case len(d.Secret) > 0:
		e.Kind = KindKV
		e.Why = strings.Join(d.Secret, "; ")
		if len(d.InHistory) > 0 {
			e.Why += "; " + toRotate(d.InHistory[0])
		}
		leaf, field := leafOf(name)
		e.Path, e.Field = path.Join(app, d.Environment, leaf), field
	case d.File == OtherStore && d.Bytes > 0 && !aboutStore(name):
		e.Kind = KindKV
		e.Why = "from another store"
		leaf, field := leafOf(name)
		e.Path, e.Field = path.Join(app, d.Environment, leaf), field
	case d.Placeholder != "":
		e.Why = "named like a secret; its value " + d.Placeholder
	case len(d.Unresolved) > 0:
		e.Why = "takes " + strings.Join(d.Unresolved, ", ") + " from outside of the file"
	}
	return e
}

// toRotate is what a plan says of a value that git's history holds.
func toRotate(since string) string { return "stands in git's history since " + since + ": rotate it" }

// SaysRotate tells whether the plan, which may be nil, says so of a variable.
func (p *Plan) SaysRotate(file, name, since string) bool {
	if p == nil {
		return false
	}
	i := p.index(file, name)
	return i >= 0 && strings.HasSuffix(p.Variable[i].Why, toRotate(since))
}

// groups are secrets that only make sense together.
var groups = map[string][2]string{
	"AWS_ACCESS_KEY_ID":     {"aws-credentials", "access-key-id"},
	"AWS_SECRET_ACCESS_KEY": {"aws-credentials", "secret-access-key"},
	"AWS_SESSION_TOKEN":     {"aws-credentials", "session-token"},
}

var apiKeyName = regexp.MustCompile(`^(.+)_API_?KEY$`)

// leafOf is the secret's name under {app}/{environment}/: DATABASE_URL is
// database-url, PROVIDER_A_API_KEY is api-keys/provider-a.
func leafOf(name string) (leaf, field string) {
	if g, ok := groups[name]; ok {
		return g[0], g[1]
	}
	if m := apiKeyName.FindStringSubmatch(strings.ToUpper(name)); m != nil {
		return "api-keys/" + kebab(m[1]), DefaultField
	}
	return kebab(name), DefaultField
}

// kebab keeps what no path dislikes.
func kebab(s string) string {
	out := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	for strings.Contains(out, "--") {
		out = strings.ReplaceAll(out, "--", "-")
	}
	if out = strings.Trim(out, "-"); out == "" {
		return "variable"
	}
	return out
}

// Encode writes the plan with what an editor of it needs to know.
func (p *Plan) Encode() []byte {
	var b bytes.Buffer
	b.WriteString(`# Where each variable goes. Edit it, then run: strongroom migrate apply
#
# kind = "kv"        written to path, field (default "value") of the KV engine
# kind = "api-key"   imported as the key at path of the engine apikeys; the key's definition must be there
# kind = "database"  not written: path is a role of the database engine, which gives a login of its own
# kind = "plain"     no secret: stays in its file
# shared = true      several variables with one value may name the same path and field
`)
	fmt.Fprintf(&b, "format = %d\napp = %s\ndialect = %s\nmount = %s\n", p.Format, tomlString(p.App), tomlString(p.Dialect), tomlString(p.Mount))
	if len(p.Exclude) > 0 {
		b.WriteString("exclude = [")
		for i, pattern := range p.Exclude {
			b.WriteString(map[bool]string{true: "", false: ", "}[i == 0] + tomlString(pattern))
		}
		b.WriteString("]\n")
	}
	for _, t := range []struct {
		about, name string
		of          map[string]string
	}{{"Who reads these files, as the tree shows it.", "dialects", p.Dialects}, {"By --dialect FILE=NAME.", "chosen_dialects", p.Chosen}} {
		if len(t.of) > 0 {
			fmt.Fprintf(&b, "\n# %s\n[%s]\n", t.about, t.name)
		}
		for _, file := range sortedKeys(t.of) {
			fmt.Fprintf(&b, "%s = %s\n", tomlString(file), tomlString(t.of[file]))
		}
	}
	for _, e := range p.Variable {
		b.WriteString("\n[[variable]]\n")
		for _, kv := range []struct{ key, value string }{
			{"name", e.Name}, {"file", e.File}, {"environment", e.Environment}, {"kind", e.Kind}, {"path", e.Path}, {"field", e.Field}, {"mount", e.Mount}, {"why", e.Why},
		} {
			if kv.value != "" && (kv.key != "field" || kv.value != DefaultField) {
				fmt.Fprintf(&b, "%s = %s\n", kv.key, tomlString(kv.value))
			}
		}
		if e.Shared {
			b.WriteString("shared = true\n")
		}
	}
	return b.Bytes()
}

// tomlString is a basic string. JSON's escapes are TOML's, but for DEL.
func tomlString(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

// LoadPlan reads, checks and completes a plan; its error joins all faults.
func LoadPlan(file string) (*Plan, error) {
	data, err := atomicfile.ReadSmall(file, maxPlan)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return ParsePlan(file, data)
}

// ParsePlan is LoadPlan for data that came from file.
func ParsePlan(file string, data []byte) (*Plan, error) {
	if len(sides(data)) > 1 {
		return nil, fmt.Errorf("plan %q has both sides of a merge: strongroom migrate plan makes one plan of them", file)
	}
	var p Plan
	at, faults := config.Decode(file, data, &p)
	if at != nil {
		p.complete(faults.Check(file, at))
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return &p, nil
}

// complete fills in defaults and checks everything.
func (p *Plan) complete(check func(field string, err error)) {
	if p.Format != planFormat {
		check("format", fmt.Errorf("%d must be %d", p.Format, planFormat))
	}
	if err := checkSegment(p.App); err != nil {
		check("app", fmt.Errorf("%q %w", p.App, err))
	}
	_, err := dotenv.ParseDialect(p.Dialect)
	check("dialect", err)
	for table, of := range map[string]map[string]string{"dialects": p.Dialects, "chosen_dialects": p.Chosen} {
		for _, file := range sortedKeys(of) {
			_, err := dotenv.ParseDialect(of[file])
			check(table+"."+file, err)
		}
	}
	if p.Mount == "" {
		p.Mount = machine.MountKV
	}
	for _, pattern := range p.Exclude {
		check("exclude", CheckExclude(pattern))
	}
	seen := map[string]int{}
	taken := map[string]int{}
	named := map[string]int{}
	for i := range p.Variable {
		e := &p.Variable[i]
		at := fmt.Sprintf("variable[%d]", i)
		for _, f := range e.complete(p) {
			check(at+"."+f.field, fmt.Errorf("%s: %w", e.Name, f.err))
		}
		if j, twice := seen[e.File+"\x00"+e.Name]; twice {
			check(at, fmt.Errorf("%s: %q is planned already by variable[%d]", e.Name, e.File, j))
		}
		seen[e.File+"\x00"+e.Name] = i
		if e.Kind != KindKV && e.Kind != KindAPIKey {
			continue
		}
		if j, twice := named[e.Environment+"\x00"+e.Name]; twice {
			other := p.Variable[j]
			if other.mapped() != e.mapped() || !e.Shared || !other.Shared {
				check(at, sameName(other, *e))
				continue
			}
		}
		named[e.Environment+"\x00"+e.Name] = i
		place := e.Kind + "\x00" + e.Mount + "\x00" + e.Path + "\x00" + e.Field
		if j, twice := taken[place]; twice && !(e.Shared && p.Variable[j].Shared) {
			check(at, fmt.Errorf("%s: goes to %q, as does variable[%d] (%s): give one of them another path or field, or both shared = true",
				e.Name, e.place(), j, p.Variable[j].Name))
		}
		taken[place] = i
	}
}

// flaw is what is wrong with one field of an entry.
type flaw struct {
	field string
	err   error
}

func (e *Entry) complete(p *Plan) []flaw {
	var flaws []flaw
	if e.Name == "" || strings.ContainsAny(e.Name, "=\x00") {
		flaws = append(flaws, flaw{"name", fmt.Errorf("%q is no variable", e.Name)})
	}
	if !filepath.IsLocal(filepath.FromSlash(e.File)) || path.Clean(e.File) != e.File {
		flaws = append(flaws, flaw{"file", fmt.Errorf("%q must be a path below the tree's root", e.File)})
	}
	defaults := map[string]string{KindKV: p.Mount, KindAPIKey: machine.MountKeys, KindDatabase: machine.MountDatabase}
	mount, known := defaults[e.Kind]
	switch {
	case e.Kind == KindPlain:
		return flaws
	case !known:
		return append(flaws, flaw{"kind", fmt.Errorf("%q must be %q, %q, %q or %q", e.Kind, KindKV, KindAPIKey, KindDatabase, KindPlain)})
	}
	if e.Mount == "" {
		e.Mount = mount
	}
	if e.Kind == KindKV && e.Field == "" {
		e.Field = DefaultField
	}
	if e.inMapping() && e.Name != "" && !readsAs.MatchString(e.Name) {
		flaws = append(flaws, flaw{"name", fmt.Errorf("%q is a name that no program can be given from Vault: plan it as %q", e.Name, KindPlain)})
	}
	if e.Kind != KindKV && e.Field != "" {
		flaws = append(flaws, flaw{"field", fmt.Errorf("%q is for kind = %q only", e.Field, KindKV)})
	}
	if err := checkSegment(e.Environment); err != nil {
		flaws = append(flaws, flaw{"environment", fmt.Errorf("%q %w", e.Environment, err)})
	}
	for key, value := range map[string]string{"path": e.Path, "mount": e.Mount} {
		if err := CheckPath(value); err != nil {
			flaws = append(flaws, flaw{key, fmt.Errorf("%q %w", value, err)})
		}
	}
	return flaws
}

// place is the entry's target as a person writes it.
func (e *Entry) place() string {
	if e.Field != "" && e.Field != DefaultField {
		return e.Mount + "/" + e.Path + ":" + e.Field
	}
	return e.Mount + "/" + e.Path
}

var errPath = errors.New(`must be segments of at most 128 letters, digits and -_.@~ with single slashes between, none of them "." or ".."`)

var pathSegment = regexp.MustCompile(`^[A-Za-z0-9_.@~-]{1,128}$`)

func checkSegment(s string) error {
	if s == "." || s == ".." || !pathSegment.MatchString(s) {
		return errPath
	}
	return nil
}

// CheckPath refuses what would mean something else in a URL or in a policy.
func CheckPath(p string) error {
	if len(p) > 512 {
		return errPath
	}
	for s := range strings.SplitSeq(p, "/") {
		if err := checkSegment(s); err != nil {
			return err
		}
	}
	return nil
}
