package appenv

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"strongroom.example/config/machine"
)

// mapping is the file that strongroom migrate writes.
type mapping struct {
	Format    int                     `toml:"format"`
	Variables map[string]mappingEntry `toml:"variables"`
}

// mappingEntry is where one variable lives; readMapping fills in what is left
// out. No field is the only one, or the primary one.
type mappingEntry struct {
	Engine string `toml:"engine"`
	Mount  string `toml:"mount"`
	Path   string `toml:"path"`
	Field  string `toml:"field"`
}

// readMapping names every fault of the file. What is one is the same for the
// Python client: python/tests/env_vectors.json.
func readMapping(file string) (*mapping, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("mapping: %w", err)
	}
	var m mapping
	md, err := toml.Decode(string(data), &m)
	if err != nil {
		return nil, fmt.Errorf("mapping %q: %w", file, err)
	}
	var errs []error
	for _, k := range md.Undecoded() {
		errs = append(errs, fmt.Errorf("unknown key %q", k))
	}
	if m.Format != 1 {
		errs = append(errs, fmt.Errorf("format: %d must be 1", m.Format))
	}
	// The decoder skips a value that is no table. A table that only its entries
	// name has no type.
	if kind := md.Type("variables"); kind != "" && kind != "Hash" {
		errs = append(errs, errors.New("variables: must be a table"))
	}
	for name, e := range m.Variables {
		errs = append(errs, e.check(md, name)...)
		m.Variables[name] = e
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("mapping %q: %w", file, err)
	}
	return &m, nil
}

func (e *mappingEntry) check(md toml.MetaData, name string) []error {
	var errs []error
	fault := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("variables."+name+key+": "+format, args...))
	}
	if !variable.MatchString(name) {
		fault("", "%q is no name for an environment variable", name)
	}
	for key, value := range map[string]string{"engine": e.Engine, "mount": e.Mount, "path": e.Path, "field": e.Field} {
		if value == "" && md.IsDefined("variables", name, key) {
			fault("."+key, "must not be empty")
		}
	}
	if e.Engine == "" {
		e.Engine = "kv"
	}
	if e.Mount == "" {
		e.Mount = map[string]string{"kv": machine.MountKV, "apikeys": machine.MountKeys}[e.Engine]
	}
	if e.Engine != "kv" && e.Engine != "apikeys" {
		fault(".engine", "%q must be \"kv\" or \"apikeys\"", e.Engine)
	}
	if !md.IsDefined("variables", name, "path") {
		fault(".path", "is missing")
	}
	for key, path := range map[string]string{"path": e.Path, "mount": e.Mount} {
		if path != "" && !plain(path) {
			fault("."+key, "%q has an empty, \".\" or \"..\" segment, or a control character", path)
		}
	}
	return errs
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
