package migrate

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/dotenv"
)

// MaxValue bounds a secret with all its fields, in bytes: a raft entry of Vault
// holds 1 MiB, its JSON and encryption included.
// Source: https://developer.hashicorp.com/vault/docs/internals/limits
const MaxValue = 512 << 10

// ApplyOptions say what to write where.
type ApplyOptions struct {
	Root  string
	Plan  *Plan
	Store Store
	// Force overwrites what has another value. The version before stays in
	// Vault.
	Force bool
	// Workers write at the same time; 0 for 8.
	Workers int
	// Progress is told after each batch; may be nil.
	Progress func(done, of int)
}

// Result counts targets; a target is a secret with all its fields.
type Result struct {
	Written, Unchanged, Plain, Database int
	// Ambiguous names are in no mapping file, as "environment: NAME".
	Ambiguous []string
	// Mappings are the mapping files, relative to the root.
	Mappings []string
}

// Refused is a plan that cannot be applied as things are. Nothing was written.
type Refused struct{ Problems []Problem }

// Error lists the problems, as many as a person reads.
func (e *Refused) Error() string {
	errs := make([]error, 0, maxShown+1)
	for i, p := range e.Problems {
		if i == maxShown {
			errs = append(errs, fmt.Errorf("and %d more", len(e.Problems)-i))
			break
		}
		errs = append(errs, errors.New(p.String()))
	}
	return errors.Join(errs...).Error()
}

const maxShown = 50

// target is a secret in Vault, and the entries that make it up.
type target struct {
	mount, path string
	apiKey      bool
	entries     []int // indexes in the plan
	version     int   // now in Vault
	same        bool
}

func (t *target) String() string { return t.mount + "/" + t.path }

// job is one run of Apply, Verify or Cutover.
type job struct {
	root  *os.Root
	dir   string
	plan  *Plan
	store Store
	key   [32]byte // of the HMAC by which values are compared; forgotten at the end
	files *fileCache
}

func newJob(root string, plan *Plan, store Store) (*job, error) {
	dir, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("root %q: %w", root, err)
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	dialect, err := dotenv.ParseDialect(plan.Dialect)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	j := &job{root: r, dir: dir, plan: plan, store: store, files: &fileCache{root: r, dialect: dialect}}
	if _, err := rand.Read(j.key[:]); err != nil {
		return nil, errors.Join(fmt.Errorf("random key: %w", err), r.Close())
	}
	return j, nil
}

func (j *job) close() error { return j.root.Close() }

// digest is how values are compared: in constant time, and in a form that says
// nothing if it should ever be shown.
func (j *job) digest(value string) [sha256.Size]byte {
	h := hmac.New(sha256.New, j.key[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(value)))
	h.Write(n[:])
	h.Write([]byte(value))
	return [sha256.Size]byte(h.Sum(nil))
}

func (j *job) equal(value string, stored any) bool {
	s, ok := stored.(string)
	if !ok {
		return false
	}
	a, b := j.digest(value), j.digest(s)
	return hmac.Equal(a[:], b[:])
}

// Apply writes the plan's secrets to Vault. It looks at everything first and
// writes nothing if anything stands in the way (*Refused); then it writes by
// check-and-set and reads each secret back. A run that was interrupted is
// finished by another one.
func Apply(ctx context.Context, o ApplyOptions) (r Result, err error) {
	j, err := newJob(o.Root, o.Plan, o.Store)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	st, err := openState(j.dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, st.close()) }()

	targets, bad := j.targets()
	for _, e := range o.Plan.Variable {
		switch e.Kind {
		case KindPlain:
			r.Plain++
		case KindDatabase:
			r.Database++
		}
	}
	if len(bad) > 0 {
		return r, &Refused{bad}
	}
	workers := o.Workers
	if workers <= 0 {
		workers = 8
	}
	if err := j.inspect(ctx, targets, workers, o.Force); err != nil {
		return r, err
	}
	var todo []*target
	for _, t := range targets {
		if t.same {
			r.Unchanged++
		} else {
			todo = append(todo, t)
		}
	}
	for len(todo) > 0 {
		batch := todo[:min(len(todo), 16*workers)]
		if err := j.writeBatch(ctx, st, batch, workers); err != nil {
			return r, err
		}
		r.Written += len(batch)
		todo = todo[len(batch):]
		if o.Progress != nil {
			o.Progress(r.Written, r.Written+len(todo))
		}
	}
	r.Mappings, r.Ambiguous, err = j.writeMappings(st)
	return r, err
}

// targets groups the plan by secret and checks all that can be known without
// Vault. It keeps digests, never values.
func (j *job) targets() ([]*target, []Problem) {
	var out []*target
	var bad []Problem
	by := map[string]*target{}
	sizes := map[*target]int{}
	digests := map[string][sha256.Size]byte{}
	badFile := map[string]bool{}
	for i, e := range j.plan.Variable {
		if e.Kind != KindKV && e.Kind != KindAPIKey {
			continue
		}
		if badFile[e.File] {
			continue
		}
		vars, faults := j.files.get(e.File)
		if len(faults) > 0 {
			badFile[e.File] = true
			bad = append(bad, faults...)
			continue
		}
		v, ok := vars[e.Name]
		if !ok {
			bad = append(bad, Problem{File: e.File, Why: fmt.Sprintf("%s is planned and not there", e.Name)})
			continue
		}
		if len(v.Unresolved) > 0 {
			bad = append(bad, Problem{File: e.File, Line: v.Line, Why: fmt.Sprintf("%s refers to %s, which the file does not set", e.Name, v.Unresolved[0])})
			continue
		}
		if v.Value == "" {
			bad = append(bad, Problem{File: e.File, Line: v.Line, Why: fmt.Sprintf("%s is empty: plan it as %q", e.Name, KindPlain)})
			continue
		}
		key := e.Kind + "\x00" + e.Mount + "\x00" + e.Path
		t := by[key]
		if t == nil {
			t = &target{mount: e.Mount, path: e.Path, apiKey: e.Kind == KindAPIKey}
			by[key] = t
			out = append(out, t)
		}
		t.entries = append(t.entries, i)
		digest := j.digest(v.Value)
		if old, ok := digests[key+"\x00"+e.Field]; ok && !hmac.Equal(old[:], digest[:]) {
			bad = append(bad, Problem{File: e.File, Line: v.Line, Why: fmt.Sprintf("%s is shared and has another value than elsewhere", e.Name)})
		}
		digests[key+"\x00"+e.Field] = digest
		if sizes[t] += len(v.Value); sizes[t] > MaxValue {
			bad = append(bad, Problem{File: e.File, Line: v.Line, Why: fmt.Sprintf("%s: %d bytes are more than a secret may have (%d)", e.Name, sizes[t], MaxValue)})
		}
	}
	return out, bad
}

// inspect finds out what Vault has, and gives all conflicts together.
func (j *job) inspect(ctx context.Context, targets []*target, workers int, force bool) error {
	var mu sync.Mutex
	var bad []Problem
	err := parallel(ctx, targets, workers, func(ctx context.Context, t *target) error {
		p, err := j.inspectOne(ctx, t, force)
		if p != nil {
			mu.Lock()
			bad = append(bad, *p)
			mu.Unlock()
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		sortProblems(bad)
		return &Refused{bad}
	}
	return nil
}

func (j *job) inspectOne(ctx context.Context, t *target, force bool) (*Problem, error) {
	values, err := j.values(t)
	if err != nil {
		return nil, err
	}
	first := j.plan.Variable[t.entries[0]]
	if t.apiKey {
		key, ok, err := j.store.APIKey(ctx, t.mount, t.path)
		if errors.Is(err, ErrNoDefinition) {
			return &Problem{File: first.File, Why: fmt.Sprintf("%s: API key %s: %v: declare it in [[app]] and run strongroom app apply", first.Name, t, ErrNoDefinition)}, nil
		}
		if err != nil {
			return nil, err
		}
		t.same = ok && j.equal(values[first.Field], key)
		if ok && !t.same && !force {
			return &Problem{File: first.File, Why: fmt.Sprintf("%s: API key %s has another value; %s. --force makes the file's the current version", first.Name, t, rotatedSince)}, nil
		}
		return nil, nil
	}
	stored, err := j.store.Read(ctx, t.mount, t.path)
	if err != nil {
		return nil, err
	}
	t.version, t.same = stored.Version, true
	for _, i := range t.entries {
		e := j.plan.Variable[i]
		now, there := stored.Data[e.Field]
		if there && j.equal(values[e.Field], now) {
			continue
		}
		t.same = false
		if there && !force {
			return &Problem{File: e.File, Why: fmt.Sprintf("%s: %s exists with another value (version %d); --force writes a new version", e.Name, e.place(), stored.Version)}, nil
		}
	}
	return nil, nil
}

// values of a target, by field.
func (j *job) values(t *target) (map[string]string, error) {
	out := map[string]string{}
	for _, i := range t.entries {
		e := j.plan.Variable[i]
		vars, faults := j.files.get(e.File)
		if len(faults) > 0 {
			return nil, &Refused{faults}
		}
		v, ok := vars[e.Name]
		if !ok {
			return nil, &Refused{[]Problem{{File: e.File, Why: fmt.Sprintf("%s has gone meanwhile", e.Name)}}}
		}
		out[e.Field] = v.Value
	}
	return out, nil
}

// writeBatch announces, writes, reads back.
func (j *job) writeBatch(ctx context.Context, st *state, batch []*target, workers int) error {
	var intents []event
	for _, t := range batch {
		if !t.apiKey {
			intents = append(intents, event{Op: "intent", Mount: t.mount, Path: t.path, Version: t.version + 1})
		}
	}
	if err := st.append(intents...); err != nil {
		return err
	}
	return parallel(ctx, batch, workers, j.writeOne)
}

func (j *job) writeOne(ctx context.Context, t *target) error {
	values, err := j.values(t)
	if err != nil {
		return err
	}
	if t.apiKey {
		return j.importKey(ctx, t, values)
	}
	// Fields that are not ours stay.
	stored, err := j.store.Read(ctx, t.mount, t.path)
	if err != nil {
		return err
	}
	if stored.Version != t.version {
		return fmt.Errorf("write %s: %w", t, kv.ErrChanged)
	}
	data := map[string]any{}
	for k, v := range stored.Data {
		data[k] = v
	}
	notes := map[string]string{"origin": "strongroom migrate"}
	for _, i := range t.entries {
		e := j.plan.Variable[i]
		data[e.Field] = values[e.Field]
		if len(e.Field) < 100 && len(e.Name) <= 512 {
			notes[variableNote+e.Field] = e.Name
		}
	}
	// Before the secret, so that no run that is taken up again misses it.
	if err := j.store.Annotate(ctx, t.mount, t.path, notes); err != nil {
		return err
	}
	// Commit point of this secret.
	version, err := j.store.Write(ctx, t.mount, t.path, data, t.version)
	if err != nil {
		return err
	}
	back, err := j.store.Read(ctx, t.mount, t.path)
	if err != nil {
		return err
	}
	for field, value := range values {
		if back.Version != version || !j.equal(value, back.Data[field]) {
			return fmt.Errorf("%s: what is read back is not what was written as version %d", t, version)
		}
	}
	return nil
}

// variableNote and a field's name is the custom metadata that names the field's
// variable, for strongroom env.
const variableNote = "variable."

func (j *job) importKey(ctx context.Context, t *target, values map[string]string) error {
	value := values[""]
	if err := j.store.ImportAPIKey(ctx, t.mount, t.path, value); err != nil {
		return err
	}
	key, ok, err := j.store.APIKey(ctx, t.mount, t.path)
	if err != nil {
		return err
	}
	if !ok || !j.equal(value, key) {
		return fmt.Errorf("API key %s: what is read back is not what was imported", t)
	}
	return nil
}

func (j *job) writeMappings(st *state) (names, ambiguous []string, err error) {
	files, ambiguous := j.plan.mappingFiles()
	for _, name := range sortedKeys(files) {
		full := filepath.Join(j.dir, name)
		_, statErr := os.Lstat(full)
		sum := sha256.Sum256(files[name])
		if err := st.append(event{Op: "file", File: name, SHA256: fmt.Sprintf("%x", sum), Created: errors.Is(statErr, os.ErrNotExist)}); err != nil {
			return nil, nil, err
		}
		if err := atomicfile.Write(full, files[name], 0o644); err != nil {
			return nil, nil, err
		}
		names = append(names, name)
	}
	return names, ambiguous, nil
}
