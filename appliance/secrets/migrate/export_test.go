package migrate

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"filippo.io/age"
)

// SetFault makes every write of an apply ask first.
func (o *ApplyOptions) SetFault(f func(string) error) { o.fault = f }

// SetFault makes every write of a cutover ask first.
func (o *CutoverOptions) SetFault(f func(string) error) { o.fault = f }

// OnePython makes cutovers share one helper, which ends with the tests.
func (o *CutoverOptions) OnePython() { o.python = onePython() }

var onePython = sync.OnceValue(func() *pythonPatcher { return newPythonPatcher(context.Background()) })

// SetFault makes every write of a rollback ask first.
func (o *RollbackOptions) SetFault(f func(string) error) { o.fault = f }

// PatchPython patches one file after the other, as a cutover does; ctx ends the
// helper. Shown are the two texts of a diff.
func PatchPython(ctx context.Context) func(file string, src []byte, names map[string]bool) (patched []byte, byHand, shown []string) {
	p := newPythonPatcher(ctx)
	context.AfterFunc(ctx, p.close)
	return func(file string, src []byte, names map[string]bool) ([]byte, []string, []string) {
		c := p.patch(source{file, src}, names)
		if c.patched == nil {
			c.patched = src
		}
		return c.patched, c.byHand, []string{c.old, c.new}
	}
}

// WhyNotSearched is exported for tests.
var WhyNotSearched = whyNotSearched

// Finds says whether a search for value stops at data.
func Finds(value string, data []byte) bool {
	n := newNeedles()
	return n.add("k", value) == "" && len(n.keysIn(data)) == 1
}

// Look gives what is found in one file, as a scan does.
func Look(c *Classifier, name string, data []byte) []Finding {
	if isEnvFile(name) {
		return c.envElsewhere(source{name, data}, "template").found
	}
	found := c.look(source{name, data}).found
	return found
}

// BackedUp is the content of all backups of a tree, referred to or not.
func BackedUp(root string, with ...age.Identity) ([]string, error) {
	s := &state{dir: filepath.Join(root, StateDir)}
	names, err := filepath.Glob(filepath.Join(s.dir, "backup-*.tar.age"))
	var out []string
	for _, name := range names {
		files, readErr := s.readBackup(filepath.Base(name), with)
		err = errors.Join(err, readErr)
		for _, k := range files {
			out = append(out, string(k.data))
		}
	}
	return out, err
}
