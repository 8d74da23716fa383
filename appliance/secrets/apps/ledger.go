package apps

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"strongroom.example/appliance/base/vaultapi"
)

// ErrConcurrent says that somebody else has changed the ledger meanwhile.
var ErrConcurrent = errors.New("somebody else is applying the same manifest")

// entry is what the ledger says of one object.
type entry struct {
	owner string // the manifest
	path  string
	app   string // empty: of the manifest as a whole
	// rotated: a connection's password that only Vault knows.
	rotated bool
	// partly: made by a version that left some fields alone; such a field may hold
	// what a person has set.
	partly bool
	// old: it stands in 0.1's ledger, and rivals are other manifests whose ledgers
	// claim it, too.
	old    bool
	rivals string
}

// ledger is what all manifests own. It lies in KV beside the apps' secrets, in 256
// parts, and holds names only. An object's name says in which part its entry is,
// and there is one entry for it: so taking, handing over and giving up are each one
// check-and-set, whoever else is at work. An object is entered before it is made,
// and struck out after it is gone: a crash leaves an entry without object, never
// the reverse.
type ledger struct {
	parts   map[string]int   // KV versions, for check-and-set; absent: none yet
	entries map[string]entry // by the object's id
	// old are the ledgers of 0.1 that are not taken over yet: one for each manifest.
	old map[string]oldLedger
}

// oldLedger is 0.1's, which knew of no other manifest.
type oldLedger struct {
	version int
	entries map[string]entry
}

const ledgerFolder = "strongroom/manifests"

func ledgerPath(name string) string { return "secret/data/" + ledgerFolder + "/" + name }

// partPrefix is what no manifest's name begins with.
const partPrefix = "_"

// partOf is the part in which an object's entry is.
func partOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return partPrefix + hex.EncodeToString(sum[:1])
}

// readLedger reads all of it. A manifest's own ledger of 0.1 is looked for even by
// those who may not list the others'.
func readLedger(ctx context.Context, v Vault, manifest string) (*ledger, error) {
	l := &ledger{parts: map[string]int{}, entries: map[string]entry{}, old: map[string]oldLedger{}}
	names, err := v.List(ctx, "secret/metadata/"+ledgerFolder)
	if err != nil {
		return nil, fmt.Errorf("list the ledger: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "/") })
	var mu sync.Mutex
	err = each(ctx, len(names), func(ctx context.Context, i int) error {
		got, err := v.Read(ctx, ledgerPath(names[i]))
		if err == nil && got != nil {
			mu.Lock()
			defer mu.Unlock()
			err = l.fill(names[i], got)
		}
		if err != nil {
			return fmt.Errorf("ledger, %s: %w", names[i], err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.takeOver(manifest)
	return l, nil
}

// fill reads one part, as KV answers it. An entry of another form is an error:
// whoever took it for an empty one would own nothing, and prune nothing.
func (l *ledger) fill(name string, got vaultapi.Data) error {
	version, data, err := kvData(got)
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, partPrefix) {
		l.parts[name] = version
		if data == nil {
			return nil // deleted
		}
		objects, err := data.Map("owned")
		if err != nil {
			return err
		}
		entries, err := readEntries(objects, parseEntry)
		maps.Copy(l.entries, entries)
		return err
	}
	if data == nil || data.Has("moved") {
		return nil // taken over, or deleted
	}
	objects, err := data.Map("objects")
	if err != nil {
		return err
	}
	entries, err := readEntries(objects, func(s string) (entry, error) {
		path, app := parseOldEntry(s)
		return entry{owner: name, path: path, app: app, partly: true, old: true}, nil
	})
	if err != nil {
		return err
	}
	if data.Has("rotated") { // else none, as it is written
		rotated, err := data.Strings("rotated")
		if err != nil {
			return err
		}
		for _, connection := range rotated {
			id := kindConnection + "/" + connection
			if e, ok := entries[id]; ok {
				e.rotated = true
				entries[id] = e
			}
		}
	}
	l.old[name] = oldLedger{version, entries}
	return nil
}

func kvData(got vaultapi.Data) (version int, data vaultapi.Data, err error) {
	meta, err := got.Map("metadata")
	if err != nil {
		return 0, nil, err
	}
	n, err := meta.Number("version")
	if err != nil || !got.Has("data") {
		return int(n), nil, err
	}
	data, err = got.Map("data")
	return int(n), data, err
}

func readEntries(objects vaultapi.Data, parse func(string) (entry, error)) (map[string]entry, error) {
	out := map[string]entry{}
	for id := range objects {
		s, err := objects.Text(id)
		if err != nil {
			return nil, err
		}
		if out[id], err = parse(s); err != nil {
			return nil, fmt.Errorf("%q: %w", id, err)
		}
	}
	return out, nil
}

// takeOver lays what 0.1's ledgers say beneath what the new one does. Where two of
// them claim an object, nobody can tell whose it is: each is the other's rival. own
// is the one that this run may take over.
func (l *ledger) takeOver(own string) {
	claims := map[string][]string{}
	for _, manifest := range sortedKeys(l.old) {
		for id := range l.old[manifest].entries {
			claims[id] = append(claims[id], manifest)
		}
	}
	for id, who := range claims {
		if _, known := l.entries[id]; known {
			continue
		}
		owner := who[0]
		if slices.Contains(who, own) {
			owner = own
		}
		e := l.old[owner].entries[id]
		e.rivals = strings.Join(slices.DeleteFunc(slices.Clone(who), func(m string) bool { return m == owner }), ", ")
		l.entries[id] = e
	}
}

// of are the ids of what a manifest owns, sorted.
func (l *ledger) of(manifest string) []string {
	var out []string
	for id, e := range l.entries {
		if e.owner == manifest {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// entering is what a run wants the ledger to say; nil: no more of that object.
type entering map[string]*entry

// set wants e for an object; it is nothing where the ledger says so already.
func (c entering) set(l *ledger, id string, e entry) {
	if had, ok := l.entries[id]; !ok || had != e {
		c[id] = &e
	}
}

// change writes what is wanted, each part by check-and-set. A part that another
// manifest has changed meanwhile is read again; what is wanted of it must stand
// there as this run has seen it. The manifest's ledger of 0.1 is taken over first.
func (l *ledger) change(ctx context.Context, v Vault, manifest string, want entering) error {
	want = maps.Clone(want)
	for id, e := range l.entries {
		if _, decided := want[id]; !decided && e.old && e.owner == manifest && e.rivals == "" {
			e.old = false
			if strings.HasPrefix(id, kindSecret+"/") {
				e.partly = false // it has no settings
			}
			want[id] = &e
		}
	}
	parts := map[string]*partChange{}
	for id, e := range want {
		name := partOf(id)
		if parts[name] == nil {
			parts[name] = &partChange{want: entering{}, now: partState{l.parts[name], map[string]entry{}}}
		}
		parts[name].want[id] = e
	}
	for id, e := range l.entries {
		if c := parts[partOf(id)]; c != nil && !e.old {
			c.now.entries[id] = e
		}
	}
	names := sortedKeys(parts)
	err := each(ctx, len(names), func(ctx context.Context, i int) error {
		if err := parts[names[i]].write(ctx, v, names[i]); err != nil {
			return fmt.Errorf("ledger, %s: %w", names[i], err)
		}
		return nil
	})
	// What was written counts, whatever failed beside it.
	for name, c := range parts {
		if !c.written {
			continue
		}
		l.parts[name] = c.now.version
		for id := range c.seen {
			delete(l.entries, id)
		}
		for id, e := range c.want {
			if e == nil {
				delete(l.entries, id)
			}
		}
		maps.Copy(l.entries, c.now.entries)
	}
	if err != nil {
		return err
	}
	return l.retire(ctx, v, manifest)
}

type partState struct {
	version int
	entries map[string]entry
}

// partTries is how often a part is read again because others write it.
const partTries = 30

// partChange is what is wanted of one part.
type partChange struct {
	want    entering
	seen    map[string]entry // as this run has read it
	now     partState
	written bool
}

func (c *partChange) write(ctx context.Context, v Vault, name string) error {
	c.seen = maps.Clone(c.now.entries)
	for range partTries {
		next := maps.Clone(c.now.entries)
		for id, e := range c.want {
			if c.now.entries[id] != c.seen[id] {
				return ErrConcurrent
			}
			if e == nil {
				delete(next, id)
			} else {
				next[id] = *e
			}
		}
		objects := map[string]any{}
		for id, e := range next {
			objects[id] = formatEntry(e)
		}
		got, err := v.Write(ctx, ledgerPath(name), map[string]any{
			"data":    map[string]any{"owned": objects},
			"options": map[string]any{"cas": c.now.version},
		})
		if err == nil {
			version, err := vaultapi.Data(got).Number("version")
			c.now, c.written = partState{int(version), next}, err == nil
			return err
		}
		if !vaultapi.IsChanged(err) {
			return err
		}
		fresh, err := v.Read(ctx, ledgerPath(name))
		if err != nil {
			return err
		}
		other := &ledger{parts: map[string]int{}, entries: map[string]entry{}}
		if fresh != nil {
			if err := other.fill(name, fresh); err != nil {
				return err
			}
		}
		c.now = partState{other.parts[name], other.entries}
	}
	return ErrConcurrent
}

// retire says in 0.1's ledger that it is taken over, once all that it says stands in
// the new one. An older program refuses it then.
func (l *ledger) retire(ctx context.Context, v Vault, manifest string) error {
	old, ok := l.old[manifest]
	if !ok {
		return nil
	}
	_, err := v.Write(ctx, ledgerPath(manifest), map[string]any{
		"data":    map[string]any{"moved": ledgerFolder + "/" + partPrefix + "…"},
		"options": map[string]any{"cas": old.version},
	})
	if vaultapi.IsChanged(err) {
		err = ErrConcurrent
	}
	if err != nil {
		return fmt.Errorf("ledger of manifest %q: %w", manifest, err)
	}
	delete(l.old, manifest)
	return nil
}

const (
	nothing     = "-"
	flagRotated = "rotated"
	flagPartly  = "partly"
)

// formatEntry writes an entry as one text; its path comes last, as it may hold
// blanks: directories' groups do.
func formatEntry(e entry) string {
	var flags []string
	if e.rotated {
		flags = append(flags, flagRotated)
	}
	if e.partly {
		flags = append(flags, flagPartly)
	}
	return strings.Join([]string{e.owner, orElse(e.app, nothing), orElse(strings.Join(flags, ","), nothing), e.path}, " ")
}

// parseEntry is the reverse of formatEntry.
func parseEntry(s string) (entry, error) {
	f := strings.SplitN(s, " ", 4)
	if len(f) != 4 || f[0] == "" || f[3] == "" {
		return entry{}, errors.New("the entry has a form that this version doesn't know")
	}
	e := entry{owner: f[0], path: f[3]}
	if f[1] != nothing {
		e.app = f[1]
	}
	if f[2] == nothing {
		return e, nil
	}
	for flag := range strings.SplitSeq(f[2], ",") {
		switch flag {
		case flagRotated:
			e.rotated = true
		case flagPartly:
			e.partly = true
		default:
			return entry{}, fmt.Errorf("the entry says %q, which this version doesn't know", flag)
		}
	}
	return e, nil
}

// parseOldEntry reads 0.1's: an object's path and its app, which may be empty.
// Paths can hold blanks; names of apps can't.
func parseOldEntry(s string) (path, app string) {
	i := strings.LastIndex(s, " ")
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func mapOf(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
