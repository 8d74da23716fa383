package appenv

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// MaxMapping bounds a mapping file, in bytes: that of a hundred thousand variables.
const MaxMapping = 16 << 20

// Mapping is the file that strongroom migrate writes.
type Mapping struct {
	Variables map[string]mappingEntry
}

// mappingEntry is where one variable lives; ReadMapping fills in what is left
// out. No field is the only one, or the primary one.
type mappingEntry struct {
	Engine, Mount, Path, Field string
}

// writtenEntry tells what is left out from what is empty.
type writtenEntry struct {
	Engine *string `toml:"engine"`
	Mount  *string `toml:"mount"`
	Path   *string `toml:"path"`
	Field  *string `toml:"field"`
}

// ReadMapping names every fault of the file. What is one is the same for the
// Python client: both are held to one table.
func ReadMapping(file string) (*Mapping, error) {
	data, err := atomicfile.ReadSmall(file, MaxMapping)
	if err != nil {
		return nil, fmt.Errorf("mapping: %w", err)
	}
	var raw struct {
		Format    int                     `toml:"format"`
		Variables map[string]writtenEntry `toml:"variables"`
	}
	at, faults := config.Decode(file, data, &raw)
	if at == nil {
		return nil, faults.Err()
	}
	check := faults.Check(file, at)
	if raw.Format != 1 {
		check("format", fmt.Errorf("%d must be 1", raw.Format))
	}
	m := &Mapping{Variables: map[string]mappingEntry{}}
	for name, e := range raw.Variables {
		m.Variables[name] = e.entry("variables."+name, check)
		if !variable.MatchString(name) {
			check("variables."+name, fmt.Errorf("%q is no name for an environment variable", name))
		}
	}
	return m, faults.Err()
}

// entry fills in what is left out, and checks the rest.
func (w writtenEntry) entry(at string, check func(field string, err error)) mappingEntry {
	e := mappingEntry{Engine: "kv"}
	for _, f := range []struct {
		key  string
		from *string
		to   *string
	}{{"engine", w.Engine, &e.Engine}, {"mount", w.Mount, &e.Mount}, {"path", w.Path, &e.Path}, {"field", w.Field, &e.Field}} {
		if f.from == nil {
			continue
		}
		if *f.to = *f.from; *f.to == "" {
			check(at+"."+f.key, errors.New("must not be empty"))
		}
	}
	if w.Mount == nil {
		e.Mount = map[string]string{"kv": machine.MountKV, "apikeys": machine.MountKeys}[e.Engine]
	}
	if e.Engine != "" && e.Engine != "kv" && e.Engine != "apikeys" {
		check(at+".engine", fmt.Errorf("%q must be \"kv\" or \"apikeys\"", e.Engine))
	}
	if w.Path == nil {
		check(at+".path", errors.New("is missing"))
	}
	for key, path := range map[string]string{"path": e.Path, "mount": e.Mount} {
		if path != "" && !plain(path) {
			check(at+"."+key, fmt.Errorf("%q has an empty, \".\" or \"..\" segment, or a control character", path))
		}
	}
	return e
}

// plain is a path that means what it says in a URL.
func plain(path string) bool {
	if strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return false
	}
	return !slices.ContainsFunc(strings.Split(path, "/"), func(segment string) bool {
		return segment == "" || segment == "." || segment == ".."
	})
}
