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
	"slices"
	"sync"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/appenv"
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
	// OtherStore is what another store has printed, for a plan made with it.
	OtherStore []byte
	// Progress is told after each batch; may be nil.
	Progress func(done, of int)

	fault func(step string) error // for tests: called before each write
}

// Result counts targets; a target is a secret with all its fields.
type Result struct {
	Written, Unchanged, Plain, Database int
	// Moved counts variables that are in Vault and no longer in their files.
	Moved int
	// Warnings are variables, with their files, that no program is given in its
	// environment: for their size, or for what they steer.
	Warnings []Problem
	// Mappings are the mapping files that were written, relative to the root.
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
	entries     []int // indexes in the plan, of variables that their files have
	moved       []int // and of those that have gone from there
	version     int   // now in Vault
	had         bool  // and it holds something
	same        bool
}

func (t *target) String() string { return t.mount + "/" + t.path }

// job is one run of Apply, Verify or Cutover.
type job struct {
	root     *os.Root
	dir      string
	plan     *Plan
	store    Store
	key      [32]byte // of the HMAC by which values are compared; forgotten at the end
	files    *fileCache
	maps     *mappings
	warnings []Problem // of what no program gets in its environment

	mu   sync.Mutex
	done []event // written in the batch under way
}

func newJob(root string, plan *Plan, store Store) (*job, error) {
	dir, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("root %q: %w", root, err)
	}
	r, err := atomicfile.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	for _, file := range append([]string{"."}, slices.Concat(sortedKeys(plan.Dialects), sortedKeys(plan.Chosen))...) {
		if _, err := plan.DialectOf(file); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	j := &job{root: r, dir: dir, plan: plan, store: store, files: &fileCache{root: r, plan: plan}}
	if j.maps, err = readMappings(r); err != nil {
		return nil, errors.Join(err, r.Close())
	}
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
	j.files.other = o.OtherStore
	st, err := openState(j.dir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	st.fault = o.fault

	targets, bad := j.targets()
	bad = append(bad, j.nowhere()...)
	r.Warnings = append(j.warnings, j.tooMuch()...)
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
		r.Moved += len(t.moved)
		switch {
		case len(t.entries) == 0:
		case t.same:
			r.Unchanged++
		default:
			todo = append(todo, t)
		}
	}
	for len(todo) > 0 {
		batch := todo[:min(len(todo), 16*workers)]
		n, err := j.writeBatch(ctx, st, batch, workers)
		r.Written += n
		if err != nil {
			return r, err
		}
		todo = todo[len(batch):]
		if o.Progress != nil {
			o.Progress(r.Written, r.Written+len(todo))
		}
	}
	if err := j.own(st, targets); err != nil {
		return r, err
	}
	// Behind the secrets: a mapping never names what is not there.
	changes := j.maps.merge(j.plan)
	if err := j.maps.write(st, changes); err != nil {
		return r, err
	}
	for _, c := range changes {
		r.Mappings = append(r.Mappings, c.name)
	}
	return r, nil
}

// own notes those secrets as ours that a run which was killed has written.
func (j *job) own(st *state, targets []*target) error {
	h, err := st.history()
	if err != nil {
		return err
	}
	ours := map[string]*write{}
	for _, w := range h.writes {
		ours[w.String()] = w
	}
	var done []event
	for _, t := range targets {
		w := ours[t.String()]
		if w != nil && t.same && !t.apiKey && len(t.entries) > 0 && slices.Contains(w.versions, t.version) && !w.done[t.version] {
			done = append(done, event{Op: opDone, Mount: t.mount, Path: t.path, Version: t.version})
		}
	}
	return st.append(done...)
}

// nowhere are variables that were moved, are plain by the plan, and are not in
// their files: programs would find them nowhere.
func (j *job) nowhere() (bad []Problem) {
	for _, e := range j.plan.Variable {
		if e.Kind != KindPlain {
			continue
		}
		l, mapped := j.maps.at(e.Environment, e.Name)
		if !mapped || slices.ContainsFunc(j.plan.Variable, func(o Entry) bool {
			return o.inMapping() && o.Name == e.Name && o.Environment == e.Environment
		}) {
			continue
		}
		if vars, faults := j.files.get(e.File); len(faults) == 0 {
			if vars[e.Name].Value == "" {
				bad = append(bad, Problem{File: e.File, Why: fmt.Sprintf("%s is planned %q and not there, and was moved to %s/%s: write it into the file, or plan it as it was", e.Name, KindPlain, l.Mount, l.Path)})
			}
		}
	}
	return bad
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
		key := e.Kind + "\x00" + e.Mount + "\x00" + e.Path
		t := by[key]
		if t == nil {
			t = &target{mount: e.Mount, path: e.Path, apiKey: e.Kind == KindAPIKey}
			by[key] = t
			out = append(out, t)
		}
		v, ok := vars[e.Name]
		if _, mapped := j.maps.at(e.Environment, e.Name); !ok || mapped && v.Value == "" {
			t.moved = append(t.moved, i)
			continue
		}
		if len(v.Unresolved) > 0 {
			bad = append(bad, Problem{File: e.File, Line: v.Line, Why: fromOutside(e.Name)})
			continue
		}
		if v.Value == "" {
			bad = append(bad, Problem{File: e.File, Line: v.Line, Why: fmt.Sprintf("%s is empty: plan it as %q", e.Name, KindPlain)})
			continue
		}
		t.entries = append(t.entries, i)
		if n := len(e.Name) + len("=") + len(v.Value) + 1; n > appenv.MaxVariable {
			j.warnings = append(j.warnings, Problem{File: e.File, Line: v.Line, Why: fmt.Sprintf("%s has %d bytes: programs can read it from Vault, but an environment holds at most %d in one variable", e.Name, len(v.Value), appenv.MaxVariable)})
		}
		if len(appenv.Steering([]appenv.Pair{{Name: e.Name}}, nil)) > 0 {
			j.warnings = append(j.warnings, Problem{File: e.File, Line: v.Line, Why: fmt.Sprintf("%s steers which code a program runs: programs can read it from Vault, but strongroom env hands it on only with --allow-name %s", e.Name, e.Name)})
		}
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

// tooMuch are the environments that are too large as a whole.
func (j *job) tooMuch() (out []Problem) {
	pairs := map[string][]appenv.Pair{}
	for _, e := range j.plan.Variable {
		if e.inMapping() {
			vars, _ := j.files.get(e.File)
			pairs[e.Environment] = append(pairs[e.Environment], appenv.Pair{Name: e.Name, Value: vars[e.Name].Value})
		}
	}
	for _, environment := range sortedKeys(pairs) {
		if n := appenv.TooMuch(pairs[environment]); n > 0 {
			out = append(out, Problem{File: PlanFile, Why: fmt.Sprintf("%s has %d bytes together: programs can read them from Vault, but to start one with more than 2 MiB in its environment the stack's limit must be raised", environment, n)})
		}
	}
	return out
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
	first := j.plan.Variable[append(t.entries[:len(t.entries):len(t.entries)], t.moved...)[0]]
	if t.apiKey {
		key, ok, err := j.store.APIKey(ctx, t.mount, t.path)
		if errors.Is(err, ErrNoDefinition) {
			return &Problem{File: first.File, Why: fmt.Sprintf("%s: API key %s: %v: declare it in [[app]] and run strongroom app apply", first.Name, t, ErrNoDefinition)}, nil
		}
		if err != nil {
			return nil, err
		}
		if len(t.entries) == 0 {
			if !ok {
				return j.gone(first), nil
			}
			return nil, nil
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
	t.version, t.had, t.same = stored.Version, stored.Data != nil, true
	for _, i := range t.moved {
		if e := j.plan.Variable[i]; stored.Data[e.Field] == nil {
			return j.gone(e), nil
		}
	}
	for _, i := range t.entries {
		e := j.plan.Variable[i]
		now, there := stored.Data[e.Field]
		if there && j.equal(values[e.Field], now) {
			continue
		}
		t.same = false
		if there && !force {
			return &Problem{File: e.File, Why: fmt.Sprintf("%s: %s exists with another value (version %d): %s", e.Name, e.place(), stored.Version, eitherIsRight)}, nil
		}
	}
	return nil, nil
}

// gone is a variable that is neither in its file nor where the plan has it in
// Vault.
func (j *job) gone(e Entry) *Problem {
	why := fmt.Sprintf("%s is planned and not there, nor at %s in Vault", e.Name, e.place())
	if j.files.missing(e.File) {
		why = fmt.Sprintf("no such file, and %s is not at %s in Vault", e.Name, e.place())
	}
	if e.File == OtherStore {
		return &Problem{File: e.File, Why: fmt.Sprintf("%s was planned from another store and is not at %s in Vault: give what that prints with --from", e.Name, e.place())}
	}
	do := "write the line again, or run strongroom migrate plan, which takes it out of the plan"
	if l, mapped := j.maps.at(e.Environment, e.Name); mapped && l != e.mapped() {
		do = fmt.Sprintf("it was moved to %s/%s: plan it there, or write the line again", l.Mount, l.Path)
	} else if mapped {
		do = "it was moved there and deleted since: vault kv undelete brings it again, or write the line again"
	}
	return &Problem{File: e.File, Why: why + ": " + do}
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

// writeBatch announces, writes, reads back; it says how many were written.
func (j *job) writeBatch(ctx context.Context, st *state, batch []*target, workers int) (int, error) {
	var intents []event
	for _, t := range batch {
		if t.apiKey {
			continue
		}
		e := event{Op: opIntent, Mount: t.mount, Path: t.path, Version: t.version + 1, Had: t.had}
		for _, i := range t.entries {
			v := j.plan.Variable[i]
			e.Variables = append(e.Variables, ref{v.Name, v.File, v.Field})
		}
		intents = append(intents, e)
	}
	if err := st.append(intents...); err != nil {
		return 0, err
	}
	err := parallel(ctx, batch, workers, j.writeOne)
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(j.done)
	done := slices.DeleteFunc(j.done, func(e event) bool { return e.Path == "" })
	j.done = nil
	return n, errors.Join(err, st.append(done...))
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
	j.mu.Lock()
	j.done = append(j.done, event{Op: opDone, Mount: t.mount, Path: t.path, Version: version})
	j.mu.Unlock()
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
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done = append(j.done, event{}) // nothing that could be taken back
	return nil
}
