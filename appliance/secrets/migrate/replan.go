package migrate

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/config"
)

// ReadPlan reads a plan as a next one takes it over: what contradicts itself in it
// is that one's to mend. Where git has left both sides of a merge, it is both.
func ReadPlan(file string) (*Plan, error) {
	data, err := atomicfile.ReadSmall(file, maxPlan)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return readPlan(file, data)
}

func readPlan(plan string, data []byte) (*Plan, error) {
	var all *Plan
	for _, side := range sides(data) {
		var p Plan
		if _, faults := config.Decode(plan, side, &p); faults.Err() != nil {
			return nil, faults.Err()
		}
		if p.Format != planFormat {
			return nil, fmt.Errorf("%s: format %d must be %d", plan, p.Format, planFormat)
		}
		if all == nil {
			all = &p
			continue
		}
		for _, pattern := range p.Exclude {
			if !slices.Contains(all.Exclude, pattern) {
				all.Exclude = append(all.Exclude, pattern)
			}
		}
		for file, name := range p.Chosen {
			there := all.Chosen[file]
			if there != "" && there != name {
				return nil, fmt.Errorf("%s: %q is read as %s on one side of a merge and as %s on the other: take one out", plan, file, there, name)
			}
			if all.Chosen == nil {
				all.Chosen = map[string]string{}
			}
			all.Chosen[file] = name
		}
		for _, e := range p.Variable {
			i := all.index(e.File, e.Name)
			if i < 0 {
				all.Variable = append(all.Variable, e)
				continue
			}
			there := all.Variable[i]
			there.Why = e.Why // for the reader alone: two people's histories differ
			if there != e {
				return nil, fmt.Errorf("%s: %s of %q is planned in two ways, on the two sides of a merge: take one out", plan, e.Name, e.File)
			}
		}
	}
	return all, nil
}

// FileEnvironments gives the environments of those files whose variables all have one:
// a variable that comes later has it, too.
func (p *Plan) FileEnvironments() map[string]string {
	out := map[string]string{}
	for _, e := range p.Variable {
		if old, there := out[e.File]; there && old != e.Environment {
			out[e.File] = ""
		} else {
			out[e.File] = e.Environment
		}
	}
	maps.DeleteFunc(out, func(_, environment string) bool { return environment == "" })
	return out
}

func (p *Plan) index(file, name string) int {
	return slices.IndexFunc(p.Variable, func(e Entry) bool { return e.File == file && e.Name == name })
}

// WritePlan replaces a plan, wholly or not at all.
func WritePlan(root, file string, data []byte) (err error) {
	dir, err := filepath.Abs(root)
	if err != nil {
		return fmt.Errorf("root %q: %w", root, err)
	}
	full, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("plan %q: %w", file, err)
	}
	rel, err := filepath.Rel(dir, full)
	if err != nil || !filepath.IsLocal(rel) {
		return atomicfile.Rewrite(full, data, 0o644)
	}
	st, err := openState(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	return st.put(filepath.ToSlash(rel), data, kept{mode: 0o644})
}

// ReplanOptions are what a plan is made of where there is one already.
type ReplanOptions struct {
	Root  string
	Old   *Plan // may be nil
	Fresh *Plan // as NewPlan proposes it for the tree as it is
	// Named are the environments of files that were asked for now: they win over
	// what Old says.
	Named map[string]string
	// Anew forgets the edits in Old, and not what was moved.
	Anew bool
}

// Replan gives the plan for the tree as it is, with the edits of the old one, and
// with what was moved already: a program goes on reading that. The notes say what
// is not as it was.
func Replan(o ReplanOptions) (*Plan, []string, error) {
	if o.Old == nil {
		o.Old = &Plan{App: o.Fresh.App}
	}
	root, err := atomicfile.OpenRoot(o.Root)
	if err != nil {
		return nil, nil, fmt.Errorf("root: %w", err)
	}
	defer root.Close()
	moved, err := readMappings(root)
	if err != nil {
		return nil, nil, err
	}
	p := &Plan{Format: planFormat, App: o.Fresh.App, Dialect: o.Fresh.Dialect, Mount: cmp.Or(o.Old.Mount, o.Fresh.Mount), Variable: slices.Clone(o.Fresh.Variable)}
	p.Exclude = o.Fresh.Exclude
	p.Dialects, p.Chosen = o.Fresh.Dialects, map[string]string{}
	for file, name := range o.Old.Chosen {
		if !o.Anew {
			p.Chosen[file] = name // also of a file that is not there today
		}
	}
	for file, name := range o.Fresh.Chosen {
		p.Chosen[file] = name
	}
	if o.Anew {
		p.Mount = o.Fresh.Mount
	}
	notes := o.follow(root, p)
	whole := *o.Old
	whole.Variable = slices.Clone(o.Old.Variable)
	whole.complete(func(string, error) {})
	moved.adopt(&whole)
	for i, e := range p.Variable {
		if l, mapped := moved.at(e.Environment, e.Name); mapped && o.Old.index(e.File, e.Name) < 0 {
			p.Variable[i] = e.movedTo(l)
		}
	}
	for i, old := range o.Old.Variable {
		now := o.at(p, old)
		if now >= 0 {
			if !o.Anew {
				p.Variable[now] = o.edited(old, p.Variable[now])
			}
			continue
		}
		l, mapped := moved.at(old.Environment, old.Name)
		switch {
		case slices.ContainsFunc(p.Variable, func(e Entry) bool { return e.Name == old.Name && e.Environment == old.Environment && e.inMapping() }):
			// Another file has it by now.
		case mapped && l == whole.Variable[i].mapped() && old.Kind != KindPlain, old.Kind == KindDatabase:
			p.Variable = append(p.Variable, old)
		default:
			notes = append(notes, fmt.Sprintf("%s is no longer in %s and was not moved: it is out of the plan", old.Name, old.File))
		}
	}
	notes = append(notes, o.renamed(root, p)...)
	slices.SortFunc(p.Variable, func(a, b Entry) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.File, b.File)) })
	return p, notes, nil
}

// follow gives a file that was moved the environment that it had: one that is new, whose
// path tells none, by the name of one that has gone, with a variable that the other had
// too. Where two could be it, none is.
func (o ReplanOptions) follow(root *os.Root, p *Plan) (notes []string) {
	was := o.Old.FileEnvironments()
	names, now := map[string]map[string]bool{}, map[string]map[string]bool{}
	for of, all := range map[*Plan]map[string]map[string]bool{o.Old: names, p: now} {
		for _, e := range of.Variable {
			if all[e.File] == nil {
				all[e.File] = map[string]bool{}
			}
			all[e.File][e.Name] = true
		}
	}
	from, claimed := map[string]string{}, map[string]int{}
	const untold = "-"
	byPath := &scanner{o: ScanOptions{Default: untold}}
	for _, file := range sortedKeys(now) {
		if names[file] != nil || o.Named[file] != "" || byPath.environmentOf(file) != untold {
			continue
		}
		var found []string
		for _, old := range sortedKeys(was) {
			if _, err := root.Lstat(filepath.FromSlash(old)); path.Base(old) != path.Base(file) || !errors.Is(err, os.ErrNotExist) {
				continue
			}
			if slices.ContainsFunc(sortedKeys(now[file]), func(n string) bool { return names[old][n] }) {
				found = append(found, old)
				claimed[old]++
			}
		}
		if len(found) == 1 {
			from[file] = found[0]
		}
	}
	for i, e := range p.Variable {
		old := from[e.File]
		if old == "" || claimed[old] > 1 || was[old] == e.Environment {
			continue
		}
		note := fmt.Sprintf("%s was %s, and keeps its environment %s: --env-file gives it another", e.File, old, was[old])
		if !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
		p.Variable[i] = e.in(was[old], o.Fresh.App, o.Fresh.App)
	}
	return notes
}

// in is the entry in another environment: with its path, where that is the usual one.
func (e Entry) in(environment, oldApp, app string) Entry {
	leaf, _ := leafOf(e.Name)
	if e.Path == path.Join(oldApp, e.Environment, leaf) {
		e.Path = path.Join(app, environment, leaf)
	}
	e.Environment = environment
	return e
}

// renamed asks about a file that is new where one of the same name has gone, with
// an environment that the new one's path does not tell.
func (o ReplanOptions) renamed(root *os.Root, p *Plan) (notes []string) {
	asked := map[string]bool{}
	for _, e := range p.Variable {
		if asked[e.File] || o.Named[e.File] != "" || slices.ContainsFunc(o.Old.Variable, func(old Entry) bool { return old.File == e.File }) {
			continue
		}
		for _, old := range o.Old.Variable {
			if asked[e.File] || old.Environment == e.Environment || path.Base(old.File) != path.Base(e.File) {
				continue
			}
			if _, err := root.Lstat(filepath.FromSlash(old.File)); errors.Is(err, os.ErrNotExist) {
				asked[e.File] = true
				notes = append(notes, fmt.Sprintf("%s is new, of the environment %s, and %s of %s has gone: if it is that file, plan again with --env-file %s=%s",
					e.File, e.Environment, old.File, old.Environment, e.File, old.Environment))
			}
		}
	}
	return notes
}

// movedTo is an entry that no plan tells of any more, and a mapping file does.
func (e Entry) movedTo(l mapped) Entry {
	if e.Kind == KindPlain {
		e.Why = "was moved before"
	}
	e.Kind, e.Mount, e.Path, e.Field = KindKV, l.Mount, l.Path, l.Field
	if l.Engine == "apikeys" {
		e.Kind = KindAPIKey
	}
	return e
}

// at is where the new plan has an old entry: the same variable of the same file,
// or of a file of the same environment that the old plan does not know, as the
// first was renamed or was emptied by a cutover.
func (o ReplanOptions) at(p *Plan, old Entry) int {
	if i := p.index(old.File, old.Name); i >= 0 {
		return i
	}
	return slices.IndexFunc(p.Variable, func(e Entry) bool {
		return e.Name == old.Name && e.Environment == old.Environment && o.Old.index(e.File, e.Name) < 0
	})
}

// edited is the old entry for what is fresh: with its edits, unless it was no
// secret and now is one, or its environment was named.
func (o ReplanOptions) edited(old, fresh Entry) Entry {
	if old.Kind == KindPlain && old.Path == "" && fresh.Kind != KindPlain {
		return fresh
	}
	e := old
	e.File = fresh.File
	if o.Named[fresh.File] != "" && old.Environment != fresh.Environment {
		e = e.in(fresh.Environment, o.Old.App, o.Fresh.App)
	}
	return e
}

// sameName is what is wrong with two entries of one name and environment that are
// not one secret: a program asks by name alone.
func sameName(a, b Entry) error {
	var named []string
	for _, e := range []Entry{a, b} {
		own := ownEnvironment(e)
		if e == b && own == ownEnvironment(a) {
			own = kebab(b.File) // .env and .env.development of one folder
		}
		if own != e.Environment {
			named = append(named, "--env-file "+e.File+"="+own)
		}
	}
	if a.File == b.File {
		return errors.New("is there twice")
	}
	return fmt.Errorf("%s would be two secrets of the environment %q, from %q and %q, and a program asks by name alone: give each its own, by strongroom migrate plan %s; or, if it is one secret, both the same path and shared = true",
		a.Name, a.Environment, a.File, b.File, strings.Join(named, " "))
}

// ownEnvironment is one that no other file of the tree has by itself.
func ownEnvironment(e Entry) string {
	dir := path.Dir(e.File)
	if dir == "." {
		dir = strings.Trim(strings.ReplaceAll("."+path.Base(e.File)+".", ".env.", "."), ".")
	}
	if dir == "" || kebab(dir) == e.Environment {
		return e.Environment
	}
	return kebab(dir) + "-" + e.Environment
}
