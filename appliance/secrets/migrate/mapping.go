package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"strongroom.example/appliance/secrets/appenv"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// MappingFile is what the Python client looks for in its working directory.
const MappingFile = "strongroom-env.toml"

const mappingFormat = 1

// MappingName is the mapping file of an environment, where there are several.
func MappingName(environment string) string { return "strongroom-env." + environment + ".toml" }

// Environments of the plan that have something in Vault, sorted.
func (p *Plan) Environments() []string {
	set := map[string]bool{}
	for _, e := range p.Variable {
		if e.inMapping() {
			set[e.Environment] = true
		}
	}
	return sortedKeys(set)
}

func (e *Entry) inMapping() bool { return e.Kind == KindKV || e.Kind == KindAPIKey }

// mapped is where a program finds a variable: a line of a mapping file.
type mapped struct {
	Engine string `toml:"engine"`
	Mount  string `toml:"mount"`
	Path   string `toml:"path"`
	Field  string `toml:"field"`
}

func (e *Entry) mapped() mapped {
	if e.Kind == KindAPIKey {
		return mapped{"apikeys", e.Mount, e.Path, ""}
	}
	return mapped{"kv", e.Mount, e.Path, e.Field}
}

// mapping is one mapping file: format 1, as python/src/strongroom_dagster/env.py
// reads it.
type mapping struct {
	app, environment string
	variables        map[string]mapped
}

var mappingHead = regexp.MustCompile(`(?m)^# Which variable is which secret of (\S+) in (\S+)\. `)

// readsAs is what readers of a mapping file take for the name of a variable.
var readsAs = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// encode has a sorted line for each variable, so that git merges what two people
// have added apart from each other.
func (m *mapping) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Which variable is which secret of %s in %s. Written by strongroom migrate, a line for each.\nformat = %d\n\n[variables]\n", m.app, m.environment, mappingFormat)
	for _, name := range sortedKeys(m.variables) {
		l := m.variables[name]
		fmt.Fprintf(&b, "%s = { engine = %s, mount = %s, path = %s", tomlKey(name), tomlString(l.Engine), tomlString(l.Mount), tomlString(l.Path))
		if l.Field != "" {
			fmt.Fprintf(&b, ", field = %s", tomlString(l.Field))
		}
		b.WriteString(" }\n")
	}
	return b.Bytes()
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func tomlKey(s string) string {
	if bareKey.MatchString(s) {
		return s
	}
	return tomlString(s)
}

// parseMapping reads a mapping file. One that a merge of git's has left with both
// sides is both of them, where they do not contradict each other; merged says so.
func parseMapping(file string, data []byte) (m *mapping, merged bool, err error) {
	m = &mapping{variables: map[string]mapped{}}
	both := sides(data)
	for _, side := range both {
		var raw struct {
			Format    int               `toml:"format"`
			Variables map[string]mapped `toml:"variables"`
		}
		at, faults := config.Decode(file, side, &raw)
		if at != nil && raw.Format != mappingFormat {
			faults.Check(file, at)("format", fmt.Errorf("%d must be %d", raw.Format, mappingFormat))
		}
		if err := faults.Err(); err != nil {
			return nil, false, err
		}
		if head := mappingHead.FindSubmatch(side); head != nil {
			if m.environment != "" && m.environment != string(head[2]) {
				return nil, false, fmt.Errorf("%s: is of the environment %s on one side of the merge and of %s on the other: take one side as it is (git checkout --ours, or --theirs), and strongroom migrate apply makes a file of its own for the other",
					file, m.environment, head[2])
			}
			m.app, m.environment = string(head[1]), string(head[2])
		}
		for name, l := range raw.Variables {
			l = l.complete()
			if old, there := m.variables[name]; there && old != l {
				return nil, false, fmt.Errorf("%s: %s is at two places, on the two sides of a merge: take one line out", file, name)
			}
			m.variables[name] = l
		}
	}
	return m, len(both) > 1, nil
}

func (l mapped) complete() mapped {
	if l.Engine == "" {
		l.Engine = "kv"
	}
	if l.Mount == "" {
		l.Mount = machine.MountKV
		if l.Engine == "apikeys" {
			l.Mount = machine.MountKeys
		}
	}
	return l
}

// sides are the whole files that a merge which git could not finish chooses from;
// the file itself where there is none.
func sides(data []byte) [][]byte {
	const both, ours, base, theirs = 0, 1, 2, 3
	var out [2]bytes.Buffer
	at, found := both, false
	for line := range bytes.Lines(data) {
		switch {
		case bytes.HasPrefix(line, []byte("<<<<<<< ")) && at == both:
			at, found = ours, true
		case bytes.HasPrefix(line, []byte("||||||| ")) && at == ours:
			at = base
		case strings.TrimRight(string(line), "\r\n") == "=======" && (at == ours || at == base):
			at = theirs
		case bytes.HasPrefix(line, []byte(">>>>>>> ")) && at == theirs:
			at = both
		default:
			if at == both || at == ours {
				out[0].Write(line)
			}
			if at == both || at == theirs {
				out[1].Write(line)
			}
		}
	}
	if !found || at != both {
		return [][]byte{data}
	}
	return [][]byte{out[0].Bytes(), out[1].Bytes()}
}

// mappings are the mapping files of a tree, by name.
type mappings struct {
	files map[string]*mapping
	text  map[string][]byte // as they are on disk
	stale map[string]bool   // what is on disk is to be written anew in any case
}

func readMappings(root *os.Root) (*mappings, error) {
	m := &mappings{files: map[string]*mapping{}, text: map[string][]byte{}, stale: map[string]bool{}}
	names, err := fs.Glob(root.FS(), "strongroom-env*.toml")
	if err != nil {
		return nil, fmt.Errorf("mapping files: %w", err)
	}
	var bad []Problem
	for _, name := range names {
		environment, several := "", false
		if name != MappingFile {
			environment, several = strings.CutPrefix(strings.TrimSuffix(name, ".toml"), "strongroom-env.")
			if !several {
				continue // somebody's own
			}
		}
		data, err := readRegular(root, name, appenv.MaxMapping)
		if err != nil {
			bad = append(bad, Problem{File: name, Why: reason(err)})
			continue
		}
		one, merged, err := parseMapping(name, data)
		if err != nil {
			bad = append(bad, Problem{File: name, Why: strings.TrimPrefix(err.Error(), name+":")})
			continue
		}
		if several {
			one.environment = environment
		}
		m.files[name], m.text[name], m.stale[name] = one, data, merged
	}
	if len(bad) > 0 {
		return nil, &Refused{bad}
	}
	return m, nil
}

// of are the files of an environment. A program that was told of none reads
// MappingFile, which therefore stays its environment's when others come.
func (m *mappings) of(environment string) []string {
	var out []string
	for _, name := range sortedKeys(m.files) {
		if m.files[name].environment == environment {
			out = append(out, name)
		}
	}
	return out
}

// at is where programs of the environment find a variable. Where two files
// of it disagree, nobody knows.
func (m *mappings) at(environment, name string) (l mapped, ok bool) {
	for i, file := range m.of(environment) {
		one, there := m.files[file].variables[name]
		if i > 0 && (there != ok || one != l) {
			return mapped{}, false
		}
		l, ok = one, there
	}
	return l, ok
}

// mappingChange is a mapping file that is to be written.
type mappingChange struct {
	name    string
	data    []byte
	created bool
	added   []ref
}

// merge adds the plan's variables to the mapping files, and gives those that
// change. What is there of others stays: what was moved before, on another
// branch or by hand.
func (m *mappings) merge(p *Plan) []mappingChange {
	m.adopt(p)
	environments := map[string]bool{}
	for _, one := range m.files {
		environments[one.environment] = true
	}
	for _, e := range p.Environments() {
		environments[e] = true
	}
	var out []mappingChange
	for _, environment := range p.Environments() {
		names := m.of(environment)
		if len(environments) == 1 && len(names) == 0 {
			names = []string{MappingFile}
		}
		if own := MappingName(environment); len(environments) > 1 && !slices.Contains(names, own) {
			names = append(names, own)
		}
		for _, name := range names {
			if c, changed := m.mergeOne(name, environment, p); changed {
				out = append(out, c)
			}
		}
	}
	return out
}

func (m *mappings) mergeOne(name, environment string, p *Plan) (mappingChange, bool) {
	old := m.files[name]
	if old == nil {
		old = &mapping{}
		// A second file of the environment begins as the first.
		for _, other := range m.of(environment) {
			old = m.files[other]
		}
	}
	next := &mapping{app: p.App, environment: environment, variables: maps.Clone(old.variables)}
	if next.variables == nil {
		next.variables = map[string]mapped{}
	}
	c := mappingChange{name: name, created: m.files[name] == nil}
	elsewhere := map[string]bool{}
	for _, e := range p.Variable {
		if e.Environment != environment || !e.inMapping() {
			continue
		}
		elsewhere[e.Name] = true
		if now, there := next.variables[e.Name]; !there || now != e.mapped() || c.created {
			next.variables[e.Name] = e.mapped()
			c.added = append(c.added, ref{Name: e.Name, File: e.File})
		}
	}
	for _, e := range p.Variable {
		if e.Environment == environment && e.Kind == KindPlain && !elsewhere[e.Name] {
			delete(next.variables, e.Name)
		}
	}
	if !c.created && !m.stale[name] && maps.Equal(old.variables, next.variables) {
		return c, false
	}
	c.data = next.encode()
	m.files[name] = next
	return c, true
}

// adopt finds out whose MappingFile is where its first line does not tell: it is
// of the environment that has all of its variables where the plan has them.
func (m *mappings) adopt(p *Plan) {
	one := m.files[MappingFile]
	if one == nil || one.environment != "" {
		return
	}
	places := map[string]map[string]mapped{}
	for _, e := range p.Variable {
		if e.inMapping() {
			if places[e.Environment] == nil {
				places[e.Environment] = map[string]mapped{}
			}
			places[e.Environment][e.Name] = e.mapped()
		}
	}
	for _, environment := range sortedKeys(places) {
		fits := true
		for name, l := range one.variables {
			fits = fits && places[environment][name] == l
		}
		if fits || len(places) == 1 {
			one.environment = environment
			return
		}
	}
}

// write makes the changes, and what they will be is in the journal before.
func (m *mappings) write(st *state, changes []mappingChange) error {
	for _, c := range changes {
		if err := st.append(event{Op: opMap, File: c.name, Created: c.created, Variables: c.added}); err != nil {
			return err
		}
		if err := st.put(c.name, c.data, kept{mode: 0o644}); err != nil {
			return err
		}
	}
	return nil
}

// unmap gives the mapping files without what the journal says was added, as far
// as a .env file has it again (readable says so); kept names what it leaves. No
// data is a file that goes.
func (m *mappings) unmap(h *history, readable func(ref) bool) (changes []mappingChange, left []string) {
	added := map[string]map[string]ref{}
	created := map[string]bool{}
	for _, e := range h.maps {
		if added[e.File] == nil {
			added[e.File] = map[string]ref{}
		}
		created[e.File] = created[e.File] || e.Created
		for _, r := range e.Variables {
			added[e.File][r.Name] = r
		}
	}
	for _, file := range sortedKeys(added) {
		one := m.files[file]
		if one == nil {
			continue // gone already
		}
		next := &mapping{app: one.app, environment: one.environment, variables: maps.Clone(one.variables)}
		for _, name := range sortedKeys(added[file]) {
			if _, there := next.variables[name]; !there {
				continue
			}
			if !readable(added[file][name]) {
				left = append(left, fmt.Sprintf("%s keeps %s: no .env file has it, and without this line no program would", file, name))
				continue
			}
			delete(next.variables, name)
		}
		c := mappingChange{name: file}
		if len(next.variables) > 0 || !created[file] {
			c.data = next.encode()
		}
		if c.data == nil || len(next.variables) != len(one.variables) {
			changes = append(changes, c)
		}
	}
	return changes, left
}

// unwrite makes the changes of unmap.
func (m *mappings) unwrite(st *state, root *os.Root, changes []mappingChange) error {
	for _, c := range changes {
		if c.data != nil {
			if err := st.put(c.name, c.data, kept{mode: 0o644}); err != nil {
				return err
			}
			continue
		}
		if err := st.step("remove " + c.name); err != nil {
			return err
		}
		if err := root.Remove(filepath.FromSlash(c.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rollback: %w", err)
		}
	}
	return nil
}
