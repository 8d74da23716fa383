package migrate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

	fault func(step string) error // for tests: called before each step
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
	env      bool
}

// CutoverReport is what was, or would be, done.
type CutoverReport struct {
	Changes []Change `json:"changes"`
	Backup  string   `json:"backup,omitempty"` // relative to the root
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
	if r.Changes, err = j.changes(ctx); err != nil || o.DryRun {
		return r, err
	}
	todo := slices.DeleteFunc(slices.Clone(r.Changes), func(c Change) bool {
		return bytes.Equal(c.old, c.new) || (!c.env && !o.PatchCode)
	})
	if len(todo) == 0 {
		return r, nil
	}
	st, err := openState(j.dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	fault := o.fault
	if fault == nil {
		fault = func(string) error { return nil }
	}
	backup, err := st.backUp(todo, o.Recipients, fault)
	if err != nil {
		return r, err
	}
	r.Backup = filepath.Join(StateDir, backup)
	for _, c := range todo {
		if err := j.rewrite(st, c, fault); err != nil {
			return r, err
		}
		i := slices.IndexFunc(r.Changes, func(x Change) bool { return x.File == c.File })
		r.Changes[i].Applied = true
	}
	return r, nil
}

func (s *state) backUp(todo []Change, to []age.Recipient, fault func(string) error) (string, error) {
	var files []kept
	for _, c := range todo {
		files = append(files, kept{c.File, c.old, c.mode})
	}
	if err := fault("backup"); err != nil {
		return "", err
	}
	name, err := s.writeBackup(files, to)
	if err != nil {
		return "", err
	}
	if err := fault("journal backup"); err != nil {
		return "", err
	}
	return name, s.append(event{Op: "backup", Backup: name})
}

// rotatedSince is what to do about an API key that is another one in Vault: to
// import the file's again would put an old key in the place of the new one.
const rotatedSince = "if it was rotated there since, take its line out of the file"

// allMoved refuses while anything that would be removed is not in Vault.
func (j *job) allMoved(ctx context.Context) error {
	all, err := j.verify(ctx, 0)
	if err != nil {
		return err
	}
	var bad []Problem
	for _, v := range all {
		switch v.State {
		case StateMissing:
			bad = append(bad, Problem{File: v.File, Why: fmt.Sprintf("%s is not at %s: run strongroom migrate apply", v.Name, v.Place)})
		case StateDiffers:
			do := "run strongroom migrate apply"
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

// changes are all files that would be rewritten, .env files first.
func (j *job) changes(ctx context.Context) ([]Change, error) {
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
	var out []Change
	var bad []Problem
	for _, file := range sortedKeys(moved) {
		c, problems, err := j.cutEnv(file, moved[file], values)
		if err != nil {
			return nil, err
		}
		if bad = append(bad, problems...); len(problems) == 0 && len(c.Removed) > 0 {
			out = append(out, c)
		}
	}
	if len(bad) > 0 {
		return nil, &Refused{bad}
	}
	code, err := j.codeChanges(ctx, names, values)
	return append(out, code...), err
}

// cutEnv is a .env file without the moved variables, and proof that the rest
// reads as before. It notes the values that it takes out.
func (j *job) cutEnv(file string, moved, values map[string]bool) (Change, []Problem, error) {
	c := Change{File: file, env: true}
	var err error
	if c.old, err = readRegular(j.root, file, dotenv.MaxSize); err != nil {
		return c, []Problem{{File: file, Why: reason(err), Fatal: true}}, nil
	}
	st, err := j.root.Lstat(filepath.FromSlash(file))
	if err != nil {
		return c, nil, fmt.Errorf("cutover: %w", err)
	}
	c.mode = st.Mode().Perm()
	before, faults := readEnv(source{file, c.old}, j.files.dialect)
	if len(faults) > 0 {
		return c, faults, nil
	}
	c.new, err = dotenv.Remove(c.old, j.files.dialect, func(s dotenv.Statement) bool { return moved[s.Name] })
	if err != nil {
		return c, problemsOf(file, err), nil
	}
	after, faults := readEnv(source{file, c.new}, j.files.dialect)
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
func (j *job) codeChanges(ctx context.Context, names, values map[string]bool) ([]Change, error) {
	files := make(chan source, 16)
	var out []Change
	done := make(chan struct{})
	go func() {
		defer close(done)
		for src := range files {
			patched, byHand := patchPython(src.data, names)
			if bytes.Equal(patched, src.data) && len(byHand) == 0 {
				continue
			}
			c := Change{File: src.path, old: src.data, new: patched, ByHand: byHand}
			if !bytes.Equal(patched, src.data) {
				if n := j.whichMapping(); n != "" {
					c.ByHand = append(c.ByHand, n)
				}
				c.Diff = mask(string(diff.Diff("a/"+src.path, src.data, "b/"+src.path, patched)), values)
			}
			out = append(out, c)
		}
	}()
	w := &walker{root: j.root, dir: j.dir, each: func(src source) {
		if strings.HasSuffix(src.path, ".py") && mentions(src.data, "environ", "getenv", "EnvVar") {
			files <- src
		}
	}}
	err := w.run(ctx)
	close(files)
	<-done
	if err != nil {
		return nil, fmt.Errorf("look for code: %w", err)
	}
	for i := range out {
		st, err := j.root.Lstat(filepath.FromSlash(out[i].File))
		if err != nil {
			return nil, fmt.Errorf("look for code: %w", err)
		}
		out[i].mode = st.Mode().Perm()
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.File, b.File) })
	return out, nil
}

// whichMapping says what patched code needs to know where there are several
// mapping files, since it reads MappingFile unless told otherwise.
func (j *job) whichMapping() string {
	envs := j.plan.Environments()
	if len(envs) < 2 {
		return ""
	}
	return fmt.Sprintf("as patched it reads %s: with %d environments, set STRONGROOM_ENV_FILE to the file of each, such as %s", MappingFile, len(envs), MappingName(envs[0]))
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

// rewrite replaces one file, if it is still what is in the backup.
func (j *job) rewrite(st *state, c Change, fault func(string) error) error {
	if err := fault("journal " + c.File); err != nil {
		return err
	}
	// Announced before it happens: the sum says nothing of a secret, as none is
	// left in there.
	if err := st.append(event{Op: "file", File: c.File, SHA256: sum(c.new)}); err != nil {
		return err
	}
	now, err := readRegular(j.root, c.File, max(int64(len(c.old)), 1))
	if err != nil || !bytes.Equal(now, c.old) {
		return fmt.Errorf("%q was changed while it was being backed up: run the cutover again", c.File)
	}
	if err := fault("write " + c.File); err != nil {
		return err
	}
	return replace(filepath.Join(j.dir, filepath.FromSlash(c.File)), c.new, c.mode)
}

// replace writes a file with the owner of the one that it takes the place of.
func replace(full string, data []byte, mode fs.FileMode) error {
	f, err := atomicfile.Create(full, mode)
	if err != nil {
		return err
	}
	defer f.Abort()
	if st, err := os.Lstat(full); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
			if err := f.Chown(int(sys.Uid), int(sys.Gid)); err != nil {
				return err
			}
		}
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

func sum(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }
