package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
)

// RollbackOptions say how far back.
type RollbackOptions struct {
	Root       string
	Identities []age.Identity
	// Force restores files that were edited after the cutover.
	Force bool
	// DryRun changes nothing.
	DryRun bool
	// Store and Plan, if given, also take back what was written to Vault, as
	// far as it is still the newest version and has the file's value.
	Store Store
	Plan  *Plan

	fault func(step string) error // for tests: called before each step
}

// RollbackReport is what was, or would be, done.
type RollbackReport struct {
	Restored []string `json:"restored"`          // files whose bytes came back
	Same     []string `json:"same,omitempty"`    // files that were as before already
	Removed  []string `json:"removed,omitempty"` // mapping files
	Deleted  []string `json:"deleted,omitempty"` // secrets, taken back in Vault
	Left     []string `json:"left,omitempty"`    // secrets that somebody has written since
}

// Rollback restores every file that a cutover has changed, byte for byte, from
// the encrypted backups. It opens all of them and looks at all files first.
func Rollback(ctx context.Context, o RollbackOptions) (r RollbackReport, err error) {
	dir, err := filepath.Abs(o.Root)
	if err != nil {
		return r, fmt.Errorf("root %q: %w", o.Root, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return r, fmt.Errorf("root: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	st, err := openState(dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	b := &back{o: o, dir: dir, root: root, st: st, sums: map[string][]string{}, created: map[string]bool{}, intents: map[string]int{}}
	if err := b.read(); err != nil {
		return r, err
	}
	if err := b.restore(&r); err != nil {
		return r, err
	}
	if o.Store != nil && o.Plan != nil {
		if err := b.vault(ctx, &r); err != nil {
			return r, err
		}
	}
	if o.DryRun {
		return r, nil
	}
	return r, b.end(&r)
}

// back is one rollback.
type back struct {
	o       RollbackOptions
	dir     string
	root    *os.Root
	st      *state
	backups []string
	sums    map[string][]string // what was put into each file
	created map[string]bool     // files that were not there before
	intents map[string]int      // secrets: the version that was to be written
	old     map[string]kept
}

func (b *back) step(name string) error {
	if b.o.fault == nil {
		return nil
	}
	return b.o.fault(name)
}

func (b *back) read() error {
	err := b.st.events(func(e event) error {
		switch e.Op {
		case "backup":
			b.backups = append(b.backups, e.Backup)
		case "file":
			b.sums[e.File] = append(b.sums[e.File], e.SHA256)
			b.created[e.File] = b.created[e.File] || e.Created
		case "intent":
			b.intents[e.Mount+"\x00"+e.Path] = e.Version
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.old = map[string]kept{}
	// The oldest backup of a file is what it was before any cutover.
	for _, name := range slices.Backward(b.backups) {
		files, err := b.st.readBackup(name, b.o.Identities)
		if err != nil {
			return err
		}
		for _, k := range files {
			if !filepath.IsLocal(filepath.FromSlash(k.name)) {
				return fmt.Errorf("backup %q: %q is outside of the tree", name, k.name)
			}
			b.old[k.name] = k
		}
	}
	return nil
}

func (b *back) restore(r *RollbackReport) error {
	var bad []Problem
	var todo []kept
	for _, name := range sortedKeys(b.old) {
		k := b.old[name]
		now, err := readRegular(b.root, name, 1<<30)
		var large *tooLarge
		switch {
		case errors.Is(err, os.ErrNotExist):
			todo = append(todo, k)
		case err != nil && !errors.As(err, &large):
			bad = append(bad, Problem{File: name, Why: reason(err)})
		case err == nil && string(now) == string(k.data):
			r.Same = append(r.Same, name)
		case err == nil && slices.Contains(b.sums[name], sum(now)), b.o.Force:
			todo = append(todo, k)
		default:
			bad = append(bad, Problem{File: name, Why: "was edited after the cutover; --force restores it all the same"})
		}
	}
	if len(bad) > 0 {
		return &Refused{bad}
	}
	for _, k := range todo {
		r.Restored = append(r.Restored, k.name)
		if b.o.DryRun {
			continue
		}
		if err := b.step("restore " + k.name); err != nil {
			return err
		}
		full := filepath.Join(b.dir, filepath.FromSlash(k.name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return fmt.Errorf("restore %q: %w", k.name, err)
		}
		if err := replace(full, k.data, k.mode); err != nil {
			return err
		}
	}
	return nil
}

// vault takes back the secrets that this migration has written. The files are
// restored by now: their values tell what was written here from what others
// wrote.
func (b *back) vault(ctx context.Context, r *RollbackReport) (err error) {
	j, err := newJob(b.dir, b.o.Plan, b.o.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	// In a dry run the files still lack the values.
	for _, k := range b.old {
		if b.o.DryRun {
			j.files.put(k)
		}
	}
	targets, bad := j.targets()
	if len(bad) > 0 {
		return &Refused{bad}
	}
	for _, t := range targets {
		version, ours := b.intents[t.mount+"\x00"+t.path]
		if t.apiKey || !ours {
			continue
		}
		if err := b.step("delete " + t.path); err != nil {
			return err
		}
		done, err := b.takeBack(ctx, j, t, version)
		if err != nil {
			return err
		}
		if done {
			r.Deleted = append(r.Deleted, t.String())
		} else {
			r.Left = append(r.Left, t.String())
		}
	}
	return nil
}

func (b *back) takeBack(ctx context.Context, j *job, t *target, version int) (bool, error) {
	values, err := j.values(t)
	if err != nil {
		return false, err
	}
	stored, err := b.o.Store.Read(ctx, t.mount, t.path)
	if err != nil {
		return false, err
	}
	if stored.Version == version && stored.Data == nil {
		return true, nil // by a run before
	}
	if stored.Version != version {
		return false, nil
	}
	for field, value := range values {
		if !j.equal(value, stored.Data[field]) {
			return false, nil
		}
	}
	if b.o.DryRun {
		return true, nil
	}
	if version > 1 {
		before, err := b.o.Store.ReadVersion(ctx, t.mount, t.path, version-1)
		if err != nil {
			return false, err
		}
		if before.Data != nil {
			// Somebody's secret was overwritten by --force: it is made current again.
			_, err := b.o.Store.Write(ctx, t.mount, t.path, before.Data, version)
			return err == nil, err
		}
	}
	return true, b.o.Store.DeleteVersion(ctx, t.mount, t.path, version)
}

// end removes what apply has made, and forgets the migration. The backups stay
// until somebody deletes them.
func (b *back) end(r *RollbackReport) error {
	for _, name := range sortedKeys(b.created) {
		if !b.created[name] {
			continue
		}
		now, err := readRegular(b.root, name, 1<<24)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil || !slices.Contains(b.sums[name], sum(now)) {
			continue // somebody's own by now
		}
		if err := b.step("remove " + name); err != nil {
			return err
		}
		if err := b.root.Remove(filepath.FromSlash(name)); err != nil {
			return fmt.Errorf("rollback: %w", err)
		}
		r.Removed = append(r.Removed, name)
	}
	if err := b.step("forget"); err != nil {
		return err
	}
	if err := b.st.reset(); err != nil || b.o.Store != nil {
		return err
	}
	// What is in Vault can still be taken back later.
	var intents []event
	for _, key := range sortedKeys(b.intents) {
		mount, path, _ := strings.Cut(key, "\x00")
		intents = append(intents, event{Op: "intent", Mount: mount, Path: path, Version: b.intents[key]})
	}
	return b.st.append(intents...)
}
