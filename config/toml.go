package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Fault is one thing wrong with a configuration file.
type Fault struct {
	File  string // as given; may be empty
	Line  int    // from 1; 0: the file as a whole
	Field string // "node.peer[1].api_addr"; empty for a fault of syntax
	Msg   string
}

// String is the fault as people read it: file:line: field: message.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(cmp.Or(f.File, "configuration"))
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	b.WriteString(": ")
	if f.Field != "" {
		b.WriteString(f.Field + ": ")
	}
	b.WriteString(f.Msg)
	return b.String()
}

// Faults is everything wrong with a configuration file, in the file's order.
type Faults []Fault

// Error is all faults, one a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// Err sorts by line, then by field, so that the same file always reads the same; nil
// for no fault.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	slices.SortStableFunc(f, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field)) })
	return f
}

// Check gives what adds to f the faults that are found after decoding.
func (f *Faults) Check(file string, at Lines) func(field string, err error) {
	return func(field string, err error) {
		if err != nil {
			*f = append(*f, Fault{File: file, Line: at.of(field), Field: field, Msg: err.Error()})
		}
	}
}

// Decode fills the struct that into points to, field by field as their tags toml
// say; all configuration files go through it. It is strict: an unknown key, one
// in another case, or a value of another type is a fault, and every fault is
// reported, none with a value of the file's but durations. What is not in the file keeps its
// value. The lines are nil where the file is no TOML.
func Decode(file string, data []byte, into any) (Lines, Faults) {
	var raw map[string]any
	if _, err := toml.Decode(string(data), &raw); err != nil {
		return nil, Faults{syntaxFault(file, err)}
	}
	d := decoder{file: file, lines: indexLines(strings.TrimPrefix(string(data), "\ufeff"))}
	d.table("", raw, reflect.ValueOf(into).Elem())
	return d.lines, d.faults
}

// decodeTables fills the structs that the named top-level tables' pointers point
// to, as strictly as Decode, and passes over all other tables. found tells
// which are in the file; it is nil where the file is no TOML.
func decodeTables(file string, data []byte, into map[string]any) (at Lines, found map[string]bool, faults Faults) {
	var raw map[string]any
	if _, err := toml.Decode(string(data), &raw); err != nil {
		return nil, nil, Faults{syntaxFault(file, err)}
	}
	d := decoder{file: file, lines: indexLines(strings.TrimPrefix(string(data), "\ufeff"))}
	found = map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(into)) {
		if table, ok := raw[name]; ok {
			found[name] = true
			d.value(name, table, reflect.ValueOf(into[name]).Elem())
		}
	}
	return d.lines, found, d.faults
}

type decoder struct {
	file   string
	lines  Lines
	faults Faults
}

func (d *decoder) fault(path, format string, args ...any) {
	d.faults = append(d.faults, Fault{File: d.file, Line: d.lines.of(path), Field: path, Msg: fmt.Sprintf(format, args...)})
}

func (d *decoder) table(path string, raw map[string]any, v reflect.Value) {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("toml"), ","); name != "" {
			fields[name] = v.Field(i)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		at := join(path, key)
		f, ok := fields[key]
		if !ok {
			d.fault(at, "unknown key; known here: %s", strings.Join(nearest(key, slices.Sorted(maps.Keys(fields))), ", "))
			continue
		}
		d.value(at, raw[key], f)
	}
}

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) value(path string, raw any, v reflect.Value) {
	wrong := func(want string) { d.fault(path, "%s is wanted, this is %s", want, kindOf(raw)) }
	switch {
	case v.Type() == durationType:
		s, ok := raw.(string)
		if !ok {
			wrong(`a duration such as "90d", "12h" or "30m"`)
			return
		}
		t, err := parseDuration(s)
		if err != nil {
			d.fault(path, "%v", err)
			return
		}
		v.SetInt(int64(t))
	case v.Kind() == reflect.String:
		if s, ok := raw.(string); ok {
			v.SetString(s)
		} else {
			wrong("a text in quotes")
		}
	case v.Kind() == reflect.Bool:
		if b, ok := raw.(bool); ok {
			v.SetBool(b)
		} else {
			wrong("true or false")
		}
	case v.Kind() == reflect.Int || v.Kind() == reflect.Int64:
		if n, ok := raw.(int64); ok && !v.OverflowInt(n) {
			v.SetInt(n)
		} else {
			wrong("a whole number")
		}
	case v.Kind() == reflect.Float64:
		switch n := raw.(type) {
		case int64:
			v.SetFloat(float64(n))
		case float64:
			v.SetFloat(n)
		default:
			wrong("a number")
		}
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(path, raw, v.Elem())
	case v.Kind() == reflect.Struct:
		if t, ok := raw.(map[string]any); ok {
			d.table(path, t, v)
		} else {
			wrong("a table")
		}
	case v.Kind() == reflect.Slice:
		d.list(path, raw, v)
	case v.Type() == reflect.TypeFor[map[string]any]():
		if t, ok := raw.(map[string]any); ok {
			v.Set(reflect.ValueOf(t)) // a table whose keys others know
		} else {
			wrong("a table")
		}
	case v.Kind() == reflect.Map:
		t, ok := raw.(map[string]any)
		if !ok {
			wrong("a table")
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for _, key := range slices.Sorted(maps.Keys(t)) {
			one := reflect.New(v.Type().Elem()).Elem()
			d.value(join(path, key), t[key], one)
			v.SetMapIndex(reflect.ValueOf(key), one)
		}
	default:
		// Only a schema that this package has wrong leads here.
		panic(fmt.Sprintf("config: field %s has unsupported type %s", path, v.Type()))
	}
}

func (d *decoder) list(path string, raw any, v reflect.Value) {
	var items []any
	switch raw := raw.(type) {
	case []any:
		items = raw
	case []map[string]any:
		for _, t := range raw {
			items = append(items, t)
		}
	default:
		d.fault(path, "a list is wanted, this is %s", kindOf(raw))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		d.value(fmt.Sprintf("%s[%d]", path, i), item, list.Index(i))
	}
	v.Set(list)
}

func kindOf(raw any) string {
	switch raw.(type) {
	case string:
		return "a text"
	case bool:
		return "true or false"
	case int64, float64:
		return "a number"
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	}
	return "a date or time"
}

// Durations of a configuration have an end: a zero too many is found now, and not
// when it can't be taken back.
const (
	longestLife = 366 * 24 * time.Hour  // of a login, a lease, a password
	longestKept = 3660 * 24 * time.Hour // of backups and logs: ten years
)

// days is d as it is written in a configuration: "366d".
func days(d time.Duration) string { return fmt.Sprintf("%dd", d/(24*time.Hour)) }

// parseDuration takes Go's durations, and days: "90d".
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err == nil && n >= 0 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	t, err := time.ParseDuration(s)
	if err != nil || t < 0 {
		return 0, fmt.Errorf(`%q is not a duration such as "90d", "12h" or "30m"`, s)
	}
	return t, nil
}

func join(path, key string) string {
	if key == "" {
		key = `""`
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
