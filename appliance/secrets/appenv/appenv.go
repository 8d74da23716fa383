// Package appenv turns the secrets of one app and environment into environment
// variables, for programs that cannot ask Vault themselves yet.
//
// It starts nothing and writes no file; that is the command line's.
package appenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
)

// Pair is one variable. Value is secret.
type Pair struct{ Name, Value string }

// String hides the value.
func (p Pair) String() string { return p.Name + "=•••" }

// GoString hides the value from %#v.
func (p Pair) GoString() string { return p.String() }

// Load reads every KV secret below mount/app/environment/. A field is the
// variable that its custom metadata names (variable.FIELD, as strongroom
// migrate writes it); else its path in capitals, with the field behind it if
// that is not "value". Two secrets of one name are an error,
// and so is an environment of nothing.
func Load(ctx context.Context, s kv.Store, mount, app, environment string) ([]Pair, error) {
	l := &loader{kv: s, mount: mount, from: map[string]string{}}
	root := app + "/" + environment + "/"
	paths, err := kv.Walk(ctx, s, mount, root)
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no secret is below %s/%s", mount, root)
	}
	for _, p := range paths {
		if err := l.add(ctx, p, strings.TrimPrefix(p, root)); err != nil {
			return nil, err
		}
	}
	if len(l.pairs) == 0 {
		// As a rollback leaves them: a program would start with nothing.
		return nil, fmt.Errorf("no secret below %s/%s has a value: they are deleted, or were never written", mount, root)
	}
	return l.sorted(), nil
}

// loader collects variables and where each comes from.
type loader struct {
	kv    kv.Store
	c     *vaultapi.Client // of API keys; nil for none
	mount string
	pairs []Pair
	from  map[string]string
}

func (l *loader) add(ctx context.Context, path, leaf string) error {
	s, err := l.kv.Read(ctx, l.mount, path)
	if err != nil {
		return err
	}
	for field, v := range s.Data { // none where it is deleted
		value, err := text(v)
		if err != nil {
			return fmt.Errorf("%s/%s: field %q %w", l.mount, path, field, err)
		}
		name, ok := s.Notes["variable."+field]
		if !ok {
			name = Derive(leaf, field)
		}
		if err := l.put(name, value, path+":"+field); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) put(name, value, from string) error {
	if !variable.MatchString(name) {
		return fmt.Errorf("%s: %q is no name for an environment variable", from, name)
	}
	if strings.ContainsRune(value, 0) {
		return fmt.Errorf("%s: holds a NUL byte, which no environment variable can", from)
	}
	if other, twice := l.from[name]; twice {
		return fmt.Errorf("%s and %s are both %s", other, from, name)
	}
	l.from[name] = from
	l.pairs = append(l.pairs, Pair{name, value})
	return nil
}

func (l *loader) sorted() []Pair {
	slices.SortFunc(l.pairs, func(a, b Pair) int { return strings.Compare(a.Name, b.Name) })
	return l.pairs
}

// variable is what env(1) and shells take, POSIX with the dots that exist in
// the wild.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// text makes a value of what JSON gave: a text as it is, null as no value, a
// tree as its JSON, compact and with its names in order. The Python client
// does the same; python/tests/env_vectors.json holds the two equal.
func text(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return fmt.Sprint(v), nil
	case nil:
		return "", nil
	}
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", errors.New("cannot be written as text")
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// Derive is the variable of a field where nothing names it: api-keys/provider-a
// is API_KEYS_PROVIDER_A, its field id API_KEYS_PROVIDER_A_ID.
func Derive(leaf, field string) string {
	s := leaf
	if field != "value" {
		s += "_" + field
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return '_'
	}, s)
}

// ErrNotThere is what a mapping file names and Vault does not have.
var ErrNotThere = errors.New("is not in Vault as the mapping file has it")

// Load reads what the mapping file names, of both engines. All that is missing is
// reported together.
func (m *Mapping) Load(ctx context.Context, c *vaultapi.Client) ([]Pair, error) {
	l := &loader{kv: kv.New(c), c: c, from: map[string]string{}}
	names := make([]string, 0, len(m.Variables))
	for name := range m.Variables {
		names = append(names, name)
	}
	sort.Strings(names)
	var errs []error
	for _, name := range names {
		value, err := l.mapped(ctx, m.Variables[name])
		if err == nil {
			err = l.put(name, value, m.Variables[name].Path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return l.sorted(), nil
}

// mapped reads what a mapping file's entry names. Of an API key it is one of
// its values, not what else Vault says of it.
func (l *loader) mapped(ctx context.Context, e mappingEntry) (string, error) {
	data, primary, err := l.values(ctx, e)
	if err != nil {
		return "", err
	}
	if data == nil {
		return "", notThere(fmt.Sprintf("nothing is at %s/%s", e.Mount, e.Path))
	}
	field := e.Field
	if field == "" {
		field = primary
		if len(data) == 1 {
			for field = range data {
			}
		}
	}
	v, ok := data[field]
	if !ok {
		return "", notThere(fmt.Sprintf("%s/%s has no field %q", e.Mount, e.Path, field))
	}
	return text(v)
}

// notThere is an ErrNotThere that says where.
type notThere string

func (e notThere) Error() string { return string(e) }

func (e notThere) Is(target error) bool { return target == ErrNotThere }

// values are the fields of an entry, nil where there is nothing, and the one
// that is meant where none is named.
func (l *loader) values(ctx context.Context, e mappingEntry) (data map[string]any, primary string, err error) {
	if e.Engine == "kv" {
		s, err := l.kv.Read(ctx, e.Mount, e.Path)
		return s.Data, "value", err
	}
	got, err := l.c.Read(ctx, e.Mount+"/creds/"+e.Path)
	switch {
	case vaultapi.IsNotFound(err):
		return nil, "key", nil
	case err != nil:
		return nil, "key", fmt.Errorf("read %s/%s: %w", e.Mount, e.Path, err)
	case got.Has("values"):
		data, err := got.Map("values")
		return data, "key", err
	}
	return map[string]any{"key": got["key"]}, "key", nil
}
