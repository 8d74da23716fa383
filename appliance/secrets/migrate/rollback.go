package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/dotenv"
)

// RollbackOptions say how far back.
type RollbackOptions struct {
	Root       string
	Identities []age.Identity
	// Force restores files that were edited since the last cutover where the edits
	// contradict it; those edits are lost.
	Force bool
	// DryRun changes nothing.
	DryRun bool
	// Store and Plan, if given, also take back what was written to Vault, as
	// far as it is still the newest version and a .env file has its value.
	Store Store
	Plan  *Plan

	fault func(step string) error // for tests: called before each write
}

// RollbackReport is what was, or would be, done. After an error it is what was
// done before.
type RollbackReport struct {
	Restored []string `json:"restored"`          // files whose bytes came back
	Same     []string `json:"same,omitempty"`    // files that were as before already
	Removed  []string `json:"removed,omitempty"` // mapping files
	Changed  []string `json:"changed,omitempty"` // mapping files that keep what others have put there
	Deleted  []string `json:"deleted,omitempty"` // secrets, taken back in Vault
	// Returned are secrets of others that --force had replaced and that are current
	// again.
	Returned []string `json:"returned,omitempty"`
	Left     []string `json:"left,omitempty"` // what stays, and why
}

// Rollback takes every cutover back, the newest first, so that what was added
// between two of them stays: byte for byte where nothing was. It looks at
// everything before it changes anything, and then goes in an order in which each
// value is in the tree before it leaves Vault. A run that was interrupted is
// finished by another one.
func Rollback(ctx context.Context, o RollbackOptions) (r RollbackReport, err error) {
	plan := o.Plan
	if plan == nil {
		plan = &Plan{Dialect: dotenv.Python.String()}
	}
	j, err := newJob(o.Root, plan, o.Store)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	st, err := openState(j.dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	st.fault = o.fault
	b := &back{job: j, o: o, st: st}
	if err := b.look(ctx); err != nil {
		return r, err
	}
	if o.DryRun {
		return b.would, nil
	}
	err = b.do(ctx, &r)
	return r, err
}

// back is one rollback.
type back struct {
	*job
	o       RollbackOptions
	st      *state
	history *history
	would   RollbackReport
	files   []restore
	maps    []mappingChange
	vault   []takeBack
}

// restore is a file that gets other bytes.
type restore struct {
	kept
	now []byte // as it was looked at; nil where it is not there
}

// takeBack is what is to be done to a secret.
type takeBack struct {
	*write
	versions []int          // to be deleted, oldest first
	data     map[string]any // or to be written again, over version current
	current  int
}

// look finds out all that is to be done, and whether it can be.
func (b *back) look(ctx context.Context) (err error) {
	if b.history, err = b.st.history(); err != nil {
		return err
	}
	if err := b.lookAtFiles(); err != nil {
		return err
	}
	for _, name := range sortedKeys(b.history.made) {
		if b.history.made[name] && b.job.maps.files[name] != nil && b.history.left(name, b.job.maps.text[name]) {
			b.maps = append(b.maps, mappingChange{name: name})
		}
	}
	changes, left := b.job.maps.unmap(b.history, func(v ref) bool { return b.value(v) != "" })
	b.maps = append(b.maps, changes...)
	for _, c := range b.maps {
		if c.data == nil {
			b.would.Removed = append(b.would.Removed, c.name)
		} else {
			b.would.Changed = append(b.would.Changed, c.name)
		}
	}
	if b.o.Store != nil {
		for _, w := range b.history.writes {
			if err := b.lookAtSecret(ctx, w); err != nil {
				return err
			}
		}
	}
	b.would.Left = append(b.would.Left, left...)
	return nil
}

// value of a variable in its file as that will be; empty if it has none.
func (b *back) value(v ref) string {
	vars, _ := b.job.files.get(v.File)
	return vars[v.Name].Value
}

// lookAtFiles takes one backup after the other back, in memory.
func (b *back) lookAtFiles() error {
	at := map[string]*restore{}
	var bad []Problem
	failed := map[string]bool{}
	done := map[string]bool{}
	for n, name := range slices.Backward(b.history.backups) {
		files, err := b.st.readBackup(name, b.o.Identities)
		if err != nil {
			return err
		}
		for _, k := range files {
			if n < b.history.restored[k.name] {
				done[k.name] = true // by a run that was killed
			}
			if failed[k.name] || done[k.name] {
				continue
			}
			r, newest := at[k.name], false
			if r == nil {
				newest = true
				r = &restore{kept: k}
				at[k.name] = r
				if r.now, err = b.read(k.name); err != nil {
					failed[k.name] = true
					bad = append(bad, Problem{File: k.name, Why: reason(err)})
					continue
				}
				r.data = r.now
			}
			if err := b.takeFile(r, k, name, newest); err != nil {
				failed[k.name] = true
				bad = append(bad, Problem{File: k.name, Why: reason(err) + "; --force restores it all the same, without what was edited since the last cutover"})
			}
		}
	}
	if len(bad) > 0 {
		sortProblems(bad)
		return &Refused{bad}
	}
	for _, name := range sortedKeys(done) {
		if at[name] == nil {
			b.would.Same = append(b.would.Same, name)
		}
	}
	for _, name := range sortedKeys(at) {
		r := at[name]
		if r.dialect != 0 {
			b.job.files.put(r.kept)
		}
		if r.now != nil && bytes.Equal(r.now, r.data) {
			b.would.Same = append(b.would.Same, name)
			continue
		}
		b.files = append(b.files, *r)
		b.would.Restored = append(b.would.Restored, name)
	}
	return nil
}

// takeFile takes one cutover of one file back. Only what was edited since the last
// one is nowhere else: what force gives up there.
func (b *back) takeFile(r *restore, k kept, backup string, newest bool) error {
	r.dialect = k.dialect
	if r.data == nil {
		r.data = k.data
		b.would.Left = append(b.would.Left, fmt.Sprintf("%s had gone and is there again: if it was moved, move what came back", k.name))
		return nil
	}
	if k.after == nil && b.history.left(k.name, r.data) {
		k.after = r.data
	}
	data, superseded, err := undo(r.data, k)
	if err != nil && b.o.Force {
		data, superseded, err = k.data, nil, nil
		if !newest && k.dialect != 0 {
			return fmt.Errorf("what %s has of it and what came later do not go together: %w", backup, errMerge)
		}
	}
	if err != nil {
		return err
	}
	r.data = data
	for _, name := range superseded {
		b.would.Left = append(b.would.Left, fmt.Sprintf("%s: %s was set again since and stays so; its value of before is in %s", k.name, name, filepath.Join(StateDir, backup)))
	}
	return nil
}

func (b *back) read(name string) ([]byte, error) {
	data, err := readRegular(b.root, name, 1<<30)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return append([]byte{}, data...), err
}

// lookAtSecret decides what becomes of a secret: it goes if it is ours, nobody has
// written since, and a file has its values.
func (b *back) lookAtSecret(ctx context.Context, w *write) error {
	stored, err := b.o.Store.Read(ctx, w.mount, w.path)
	if err != nil {
		return err
	}
	left := func(why string) error {
		b.would.Left = append(b.would.Left, fmt.Sprintf("%s %s and stays", w, why))
		return nil
	}
	var ours []int
	for _, v := range w.versions {
		if v <= stored.Version {
			ours = append(ours, v)
		}
	}
	switch {
	case stored.Version <= w.base:
		return nil // it was never written
	case w.returned != 0 && stored.Version == w.returned && stored.Data != nil:
		b.would.Returned = append(b.would.Returned, w.String()) // by a run before
		return nil
	case !slices.Contains(w.versions, stored.Version):
		return left("was written since by somebody else")
	case stored.Data == nil:
		b.would.Deleted = append(b.would.Deleted, w.String()) // by a run before
		return nil
	}
	for _, v := range w.variables {
		switch value := b.value(v); {
		case value == "":
			return left(fmt.Sprintf("has the only value of %s, which %s has no more,", v.Name, v.File))
		case !b.equal(value, stored.Data[v.Field]):
			return left(fmt.Sprintf("has another value of %s than %s has now", v.Name, v.File))
		}
	}
	t := takeBack{write: w, versions: ours, current: stored.Version}
	if w.had {
		before, err := b.o.Store.ReadVersion(ctx, w.mount, w.path, w.base)
		if err != nil {
			return err
		}
		if before.Data == nil {
			return left(fmt.Sprintf("had version %d before, which is gone,", w.base))
		}
		t.data = before.Data
		b.would.Returned = append(b.would.Returned, w.String())
	} else {
		b.would.Deleted = append(b.would.Deleted, w.String())
	}
	b.vault = append(b.vault, t)
	return nil
}

// do does what look has found, and reports each thing when it is done.
func (b *back) do(ctx context.Context, r *RollbackReport) error {
	r.Same, r.Left = b.would.Same, b.would.Left
	for _, f := range b.files {
		if err := makeFolders(filepath.Dir(filepath.Join(b.dir, filepath.FromSlash(f.name)))); err != nil {
			return fmt.Errorf("restore %q: %w", f.name, err)
		}
		staged, err := b.st.stage(f.name, f.data, f.kept)
		if err != nil {
			return err
		}
		if now, err := b.read(f.name); err != nil || !bytes.Equal(now, f.now) {
			staged.Abort()
			return fmt.Errorf("%q was changed in this moment by somebody else: run it again", f.name)
		}
		if err := b.st.place(staged, f.name, f.data, f.kept); err != nil {
			return err
		}
		if err := b.st.append(event{Op: opBack, File: f.name}); err != nil {
			return err
		}
		r.Restored = append(r.Restored, f.name)
	}
	if err := b.job.maps.unwrite(b.st, b.root, b.maps); err != nil {
		return err
	}
	r.Removed, r.Changed = b.would.Removed, b.would.Changed
	for _, t := range b.vault {
		if err := b.take(ctx, t); err != nil {
			return err
		}
		if t.data != nil {
			r.Returned = append(r.Returned, t.String())
		} else {
			r.Deleted = append(r.Deleted, t.String())
		}
	}
	// Those that a run before has done are told again.
	r.Deleted, r.Returned = b.would.Deleted, b.would.Returned
	if len(b.history.backups)+len(b.history.maps)+len(b.history.writes)+len(b.history.sums) == 0 {
		return nil
	}
	return b.st.append(event{Op: opEnd, Vault: b.o.Store != nil})
}

// makeFolders is os.MkdirAll, and root leaves another's tree to the other.
func makeFolders(dir string) error {
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	above := filepath.Dir(dir)
	if err := makeFolders(above); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return atomicfile.LikeFolder(above, pathOwner(dir))
}

func (b *back) take(ctx context.Context, t takeBack) error {
	if err := b.st.step("take back " + t.path); err != nil {
		return err
	}
	if t.data != nil {
		if err := b.st.append(event{Op: opReturn, Mount: t.mount, Path: t.path, Version: t.current + 1}); err != nil {
			return err
		}
		_, err := b.o.Store.Write(ctx, t.mount, t.path, t.data, t.current)
		return err
	}
	// The newest last: as long as it is there, a next run sees that this is not done.
	for _, v := range t.versions {
		if err := b.o.Store.DeleteVersion(ctx, t.mount, t.path, v); err != nil {
			return err
		}
	}
	return nil
}
