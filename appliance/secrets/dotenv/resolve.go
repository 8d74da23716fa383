package dotenv

import (
	"errors"
	"fmt"
)

// Variable is what a program finds in its environment.
type Variable struct {
	Name  string
	Value string
	// Set is false for a name alone that lookup does not know: it reaches no
	// environment.
	Set bool
	// Line of the statement that decides, from 1.
	Line int
	// Refs are the other variables whose values may be part of this one, in
	// the order in which they stand.
	Refs []string
	// Unresolved are those of Refs that neither the file nor lookup knows.
	Unresolved []string
}

// Lookup is an environment outside of the file. nil knows nothing.
type Lookup func(name string) (string, bool)

func (l Lookup) get(name string) (string, bool) {
	if l == nil {
		return "", false
	}
	return l(name)
}

// Resolve interpolates, in the order of the file; the last statement of a name
// wins, and the order is that of first statements. Compose lets lookup win over
// the file; the others the other way round, Python as dotenv_values does.
func (f *File) Resolve(lookup Lookup) ([]Variable, error) {
	r := &resolver{dialect: f.Dialect, lookup: lookup, index: map[string]int{}}
	var errs []error
	for _, s := range f.Statements {
		if err := r.add(s); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return r.vars, nil
}

type resolver struct {
	dialect Dialect
	lookup  Lookup
	vars    []Variable
	index   map[string]int
	current *Variable
}

func (r *resolver) add(s Statement) error {
	v := Variable{Name: s.Name, Line: s.Line}
	r.current = &v
	var err error
	switch {
	case !s.HasValue && r.dialect == Python:
	case !s.HasValue:
		v.Value, v.Set = r.lookup.get(s.Name)
		if _, known := r.index[s.Name]; known && (!v.Set || r.dialect == Bash) {
			return nil // as if it were not there
		}
	case s.Literal:
		v.Value, v.Set = s.Value, true
	case r.dialect != Python:
		v.Value, err = r.compose(s.Value, 0)
		v.Set = true
	default:
		v.Value, v.Set = r.python(s.Value), true
	}
	if err != nil {
		return &LineError{Line: s.Line, Reason: fmt.Sprintf("%s: %v", s.Name, err)}
	}
	if i, known := r.index[s.Name]; known {
		r.vars[i] = v
		return nil
	}
	r.index[s.Name] = len(r.vars)
	r.vars = append(r.vars, v)
	return nil
}

// get is a variable's value for interpolation, with a note that it was used.
// known is true for a name alone in Python's reading: it is known to be
// nothing.
func (r *resolver) get(name string) (value string, known bool) {
	r.current.Refs = append(r.current.Refs, name)
	if r.dialect == Compose {
		if value, known = r.lookup.get(name); known {
			return value, true
		}
	}
	if i, ok := r.index[name]; ok && (r.vars[i].Set || r.dialect == Python) {
		return r.vars[i].Value, true
	}
	if r.dialect != Compose {
		value, known = r.lookup.get(name)
	}
	if !known {
		r.current.Unresolved = append(r.current.Unresolved, name)
	}
	return value, known
}
