package migrate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/diff"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/dotenv"
)

// CutoverOptions say what to take out of the files.
type CutoverOptions struct {
	Root  string
	Plan  *Plan
	Store Store
	// Recipients of the backup. Whoever holds one of their private keys can
	// roll back.
	Recipients []age.Recipient
	// PatchCode also changes Python code to read from Vault.
	PatchCode bool
	// DryRun changes nothing.
	DryRun bool

	fault  func(step string) error // for tests: called before each step
	python *pythonPatcher          // for tests: in place of one of its own, which takes longer than all the rest
}

// Change is a file that the cutover rewrites.
type Change struct {
	File string `json:"file"`
	// Removed variables of a .env file.
	Removed []string `json:"removed,omitempty"`
	// Diff of a file of code, unified. Values are masked.
	Diff string `json:"diff,omitempty"`
	// ByHand are places, as "line N: why", that no patch covers.
	ByHand []string `json:"by_hand,omitempty"`
	// Applied is false for a dry run and for code that was only to be shown.
	Applied bool `json:"applied"`

	old, new []byte
	mode     fs.FileMode
	uid, gid int
	extended map[string]string // attributes
	dialect  dotenv.Dialect    // of a .env file; 0 for code
}

func (c *Change) env() bool { return c.dialect != 0 }

// CutoverReport is what was, or would be, done.
type CutoverReport struct {
	Changes []Change `json:"changes"`
	Backup  string   `json:"backup,omitempty"` // relative to the root
	// Unplanned are variables of .env files that look like secrets, and that the
	// plan does not move: they stay in clear.
	Unplanned []Problem `json:"unplanned,omitempty"`
}

// Cutover takes the moved variables out of the .env files. It verifies first
// that Vault has every one of them, and encrypts a backup before it changes
// anything; Rollback restores every byte from that. It can be run again after
// an interruption: what is done is done, and each run's backup holds what that
// run changed.
func Cutover(ctx context.Context, o CutoverOptions) (r CutoverReport, err error) {
	j, err := newJob(o.Root, o.Plan, o.Store)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	if len(o.Recipients) == 0 && !o.DryRun {
		return r, errors.New("cutover: no recipient for the backup")
	}
	if err := j.allMoved(ctx); err != nil {
		return r, err
	}
	if err := j.allMapped(); err != nil {
		return r, err
	}
	if r.Unplanned, err = j.unplanned(ctx); err != nil {
		return r, err
	}
	python := o.python
	if python == nil {
		python = newPythonPatcher(ctx)
		defer python.close()
	}
	if err := j.changes(ctx, python, &r); err != nil || o.DryRun {
		return r, err
	}
	todo := slices.DeleteFunc(slices.Clone(r.Changes), func(c Change) bool {
		return bytes.Equal(c.old, c.new) || (!c.env() && !o.PatchCode)
	})
	if len(todo) == 0 {
		return r, nil
	}
	st, err := openState(j.dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	st.fault = o.fault
	// Everything that can fail for a reason that lasts fails before the backup.
	staged, err := st.stageAll(todo)
	if err != nil {
		return r, err
	}
	defer func() {
		for _, f := range staged {
			f.Abort()
		}
	}()
	backup, err := st.backUp(todo, o.Recipients)
	if err != nil {
		return r, err
	}
	r.Backup = filepath.Join(StateDir, backup)
	for i, c := range todo {
		if err := j.unchanged(c.File, c.old); err != nil {
			return r, err
		}
		if err := st.place(staged[i], c.File, c.new, c.kept()); err != nil {
			return r, err
		}
		i := slices.IndexFunc(r.Changes, func(x Change) bool { return x.File == c.File })
		r.Changes[i].Applied = true
	}
	return r, nil
}

func (c *Change) kept() kept {
	return kept{name: c.File, data: c.old, after: append([]byte{}, c.new...), mode: c.mode, owned: true, uid: c.uid, gid: c.gid, attributes: c.extended, dialect: c.dialect}
}

func (s *state) stageAll(todo []Change) (staged []*atomicfile.File, err error) {
	for _, c := range todo {
		f, err := s.stage(c.File, c.new, c.kept())
		if err != nil {
			for _, f := range staged {
				f.Abort()
			}
			return nil, err
		}
		staged = append(staged, f)
	}
	return staged, nil
}

// unchanged says whether a file is still what was looked at.
func (j *job) unchanged(file string, old []byte) error {
	now, err := readRegular(j.root, file, max(int64(len(old)), 1))
	if err != nil || !bytes.Equal(now, old) {
		return fmt.Errorf("%q was changed in this moment by somebody else: run it again", file)
	}
	return nil
}

func (s *state) backUp(todo []Change, to []age.Recipient) (string, error) {
	var files []kept
	for _, c := range todo {
		files = append(files, c.kept())
	}
	if err := s.step("backup"); err != nil {
		return "", err
	}
	name, err := s.writeBackup(files, to)
	if err != nil {
		return "", err
	}
	return name, s.append(event{Op: opBackup, Backup: name})
}

// rotatedSince is what to do about an API key that is another one in Vault: to
// import the file's again would put an old key in the place of the new one.
const rotatedSince = "if it was rotated there since, take its line out of the file"

// eitherIsRight is what to do about a secret of which file and Vault have two
// values: nobody but a person knows which is the newer one.
const eitherIsRight = "if the file's is the right one, strongroom migrate apply --force writes it as a new version; if Vault's is, take its line out of the file"

// allMoved refuses while anything that would be removed is not in Vault.
func (j *job) allMoved(ctx context.Context) error {
	all, err := j.verify(ctx)
	if err != nil {
		return err
	}
	var bad []Problem
	for _, v := range all {
		switch v.State {
		case StateMissing:
			bad = append(bad, Problem{File: v.File, Why: fmt.Sprintf("%s is not at %s: run strongroom migrate apply", v.Name, v.Place)})
		case StateDiffers:
			do := eitherIsRight
			if v.apiKey {
				do = rotatedSince
			}
			bad = append(bad, Problem{File: v.File, Why: fmt.Sprintf("%s has another value at %s: %s", v.Name, v.Place, do)})
		case StateUnchecked:
			_, faults := j.files.get(v.File)
			for _, f := range faults {
				if !slices.Contains(bad, f) {
					bad = append(bad, f)
				}
			}
		}
	}
	if len(bad) > 0 {
		return &Refused{bad}
	}
	return nil
}

// allMapped refuses while programs would not find a variable that is to go.
func (j *job) allMapped() error {
	var bad []Problem
	for _, e := range j.plan.Variable {
		if !e.inMapping() {
			continue
		}
		if vars, _ := j.files.get(e.File); vars[e.Name].Value == "" {
			continue
		}
		if l, mapped := j.maps.at(e.Environment, e.Name); !mapped || l != e.mapped() {
			bad = append(bad, Problem{File: e.File, Why: fmt.Sprintf("no mapping file of %s says that %s is at %s: run strongroom migrate apply", e.Environment, e.Name, e.place())})
		}
	}
	if len(bad) > 0 {
		return &Refused{bad}
	}
	return nil
}

// changes are all files that would be rewritten, .env files first.
func (j *job) changes(ctx context.Context, python *pythonPatcher, r *CutoverReport) error {
	moved := map[string]map[string]bool{}
	names := map[string]bool{}
	values := map[string]bool{}
	for _, e := range j.plan.Variable {
		if e.Kind == KindPlain {
			continue
		}
		if moved[e.File] == nil {
			moved[e.File] = map[string]bool{}
		}
		moved[e.File][e.Name] = true
		if e.Kind != KindDatabase {
			names[e.Name] = true
		}
	}
	var bad []Problem
	for _, file := range sortedKeys(moved) {
		c, problems, err := j.cutEnv(file, moved[file], values)
		if err != nil {
			return err
		}
		if bad = append(bad, problems...); len(problems) == 0 && len(c.Removed) > 0 {
			r.Changes = append(r.Changes, c)
		}
	}
	if len(bad) > 0 {
		return &Refused{bad}
	}
	return j.codeChanges(ctx, python, names, values, r)
}

// look notes whose the file is, and says how many names it has.
func (c *Change) look(root *os.Root) (links int, err error) {
	st, err := root.Lstat(filepath.FromSlash(c.File))
	if err != nil {
		return 0, fmt.Errorf("cutover: %w", err)
	}
	if c.extended, err = atomicfile.Attributes(filepath.Join(root.Name(), filepath.FromSlash(c.File))); err != nil {
		return 0, fmt.Errorf("cutover: %w", err)
	}
	c.mode, links = st.Mode().Perm(), 1
	if group, listed := groupInList(c.extended[accessList]); listed {
		c.mode = c.mode&^0o070 | group<<3 // where it is made again without its list, it is not open to more
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		c.uid, c.gid, links = int(sys.Uid), int(sys.Gid), int(sys.Nlink)
	}
	return links, nil
}

// accessList is the attribute in which a file's access control list stands.
const accessList = "system.posix_acl_access"

// groupInList is what a file's access control list gives its group. Where there is
// a list, the mode has in that place what the list gives anybody at most.
// Source: https://man7.org/linux/man-pages/man5/acl.5.html, and the form of
// include/uapi/linux/posix_acl_xattr.h.
func groupInList(list string) (may fs.FileMode, listed bool) {
	const ofGroup, mask, head, entry = 0x04, 0x10, 4, 8
	if len(list) < head {
		return 0, false
	}
	most := fs.FileMode(0o7)
	for e := []byte(list[head:]); len(e) >= entry; e = e[entry:] {
		switch perm := fs.FileMode(binary.LittleEndian.Uint16(e[2:])); binary.LittleEndian.Uint16(e) {
		case ofGroup:
			may, listed = perm, true
		case mask:
			most = perm
		}
	}
	return may & most, listed
}

// cutEnv is a .env file without the moved variables, and proof that the rest
// reads as before. It notes the values that it takes out.
func (j *job) cutEnv(file string, moved, values map[string]bool) (Change, []Problem, error) {
	c := Change{File: file, dialect: j.files.dialect(file)}
	if j.files.missing(file) {
		return c, nil, nil
	}
	var err error
	if c.old, err = readRegular(j.root, file, dotenv.MaxSize); err != nil {
		return c, []Problem{{File: file, Why: reason(err), Fatal: true}}, nil
	}
	if links, err := c.look(j.root); err != nil {
		return c, nil, err
	} else if links > 1 {
		return c, []Problem{{File: file, Why: fmt.Sprintf("has %d names (hard links), and under the others its secrets would stay: make it a file of its own", links), Fatal: true}}, nil
	}
	before, faults := readEnv(source{file, c.old}, c.dialect)
	if len(faults) > 0 {
		return c, faults, nil
	}
	c.new, err = dotenv.Remove(c.old, c.dialect, func(s dotenv.Statement) bool { return moved[s.Name] })
	if err != nil {
		return c, problemsOf(file, err), nil
	}
	after, faults := readEnv(source{file, c.new}, c.dialect)
	if len(faults) > 0 {
		return c, faults, nil
	}
	left := map[string]dotenv.Variable{}
	for _, v := range after {
		left[v.Name] = v
	}
	var bad []Problem
	for _, v := range before {
		if moved[v.Name] {
			c.Removed = append(c.Removed, v.Name)
			values[v.Value] = true
			continue
		}
		if now := left[v.Name]; now.Value != v.Value || now.Set != v.Set {
			bad = append(bad, Problem{File: file, Line: v.Line, Why: fmt.Sprintf("%s takes %s, which would be gone: plan it as well", v.Name, strings.Join(v.Refs, ", "))})
		}
	}
	return c, bad, nil
}

// codeChanges are patches for the Python files of the tree.
func (j *job) codeChanges(ctx context.Context, python *pythonPatcher, names, values map[string]bool, r *CutoverReport) error {
	var mu sync.Mutex
	var code []Change
	w := &walker{root: j.root, dir: j.dir, each: func(src source) {
		if !isPython(src) {
			return
		}
		c := j.patch(python, src, names, values)
		mu.Lock()
		defer mu.Unlock()
		if c.File != "" {
			code = append(code, c)
		}
	}}
	if err := w.run(ctx); err != nil {
		return fmt.Errorf("look for code: %w", err)
	}
	for i := range code {
		links, err := code[i].look(j.root)
		if err != nil {
			return err
		}
		if links > 1 && !bytes.Equal(code[i].old, code[i].new) {
			code[i].new, code[i].Diff = code[i].old, ""
			code[i].ByHand = append(code[i].ByHand, fmt.Sprintf("has %d names (hard links), and is not patched", links))
		}
	}
	slices.SortFunc(code, func(a, b Change) int { return strings.Compare(a.File, b.File) })
	r.Changes = append(r.Changes, code...)
	return nil
}

// patch is a Python file with its reads of the named variables changed; none if
// there is nothing to say of it.
func (j *job) patch(python *pythonPatcher, src source, names, values map[string]bool) Change {
	p := python.patch(src, names)
	if p.patched == nil && len(p.byHand) == 0 {
		return Change{}
	}
	out := Change{File: src.path, old: src.data, new: src.data, ByHand: p.byHand}
	if p.patched != nil {
		out.new = p.patched
		if n := j.whichMapping(src, names); n != "" {
			out.ByHand = append(out.ByHand, n)
		}
		out.Diff = mask(string(diff.Diff("a/"+src.path, []byte(p.old), "b/"+src.path, []byte(p.new))), values)
	}
	return out
}

// unplanned are the variables of .env files that look like secrets and that the
// plan does not know, or has as plain from a time when they did not. A scan finds
// them as it does for a plan.
func (j *job) unplanned(ctx context.Context) (out []Problem, err error) {
	o := ScanOptions{Root: j.dir, Exclude: j.plan.Exclude, Dialects: map[string]dotenv.Dialect{}}
	if o.Dialect, err = dotenv.ParseDialect(j.plan.Dialect); err != nil {
		return nil, err
	}
	for _, chosen := range []map[string]string{j.plan.Dialects, j.plan.Chosen} {
		for file := range chosen {
			o.Dialects[file] = j.files.dialect(file)
		}
	}
	report, err := Scan(ctx, o)
	if err != nil {
		return nil, err
	}
	for _, v := range report.Variables {
		for _, d := range v.Definitions {
			i := j.plan.index(d.File, v.Name)
			if d.Kind != "dotenv" || len(d.Secret) == 0 || i >= 0 && (j.plan.Variable[i].Kind != KindPlain || j.plan.Variable[i].Path != "") {
				continue
			}
			why := "looks like a secret and is not in the plan: run strongroom migrate plan"
			if i >= 0 {
				why = "looks like a secret and is planned plain: if it is to stay, give its entry any path"
			}
			out = append(out, Problem{File: d.File, Line: d.Line, Why: v.Name + " " + why})
		}
	}
	sortProblems(out)
	return out, nil
}

// whichMapping says what patched code needs to know where there are several
// mapping files, since it reads MappingFile unless told otherwise: the file of an
// environment that has all of its variables, the nearest in the tree.
func (j *job) whichMapping(src source, names map[string]bool) string {
	envs := j.plan.Environments()
	if len(envs) < 2 {
		return ""
	}
	has, near := map[string]map[string]bool{}, map[string]int{}
	for _, e := range j.plan.Variable {
		if !e.inMapping() {
			continue
		}
		if has[e.Environment] == nil {
			has[e.Environment] = map[string]bool{}
		}
		has[e.Environment][e.Name] = true
		near[e.Environment] = max(near[e.Environment], commonBegin(e.File, src.path))
	}
	read := linesThatName(src.data, names)
	best := ""
	for _, env := range envs {
		all := !slices.ContainsFunc(read, func(l namedLine) bool { return !has[env][l.name] })
		if all && (best == "" || near[env] > near[best]) {
			best = env
		}
	}
	if best == "" {
		return fmt.Sprintf("as patched it reads %s: no one environment has all of its variables, so that STRONGROOM_ENV_FILE cannot name a file for it", MappingFile)
	}
	return fmt.Sprintf("as patched it reads %s: with %d environments, set STRONGROOM_ENV_FILE to the file of each, such as %s", MappingFile, len(envs), MappingName(best))
}

// commonBegin counts the folders that two paths share.
func commonBegin(a, b string) int {
	x, y := strings.Split(path.Dir(a), "/"), strings.Split(path.Dir(b), "/")
	n := 0
	for n < len(x) && n < len(y) && x[n] == y[n] {
		n++
	}
	return n
}

// masked stands for a value in a diff.
const masked = "•••"

// mask hides values that happen to stand in code. Short ones are words.
func mask(text string, values map[string]bool) string {
	for _, v := range sortedKeys(values) {
		if len(v) >= 6 {
			text = strings.ReplaceAll(text, v, masked)
		}
	}
	return text
}
