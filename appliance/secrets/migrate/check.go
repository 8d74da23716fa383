package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/dotenv"
)

// Setter is a place that still gives a moved variable a value. In a moved
// program it wins over Vault, also after a rotation.
type Setter struct {
	Name string `json:"name"`
	File string `json:"file"` // relative to the folder that was looked through; else absolute
	Line int    `json:"line"` // from 1
	How  string `json:"how"`  // what does it
	Do   string `json:"do"`
}

// String is the place, what it sets, and what to do.
func (s Setter) String() string {
	return fmt.Sprintf("%s:%d: sets %s (%s): %s", s.File, s.Line, s.Name, s.How, s.Do)
}

// Checked is what Check has found.
type Checked struct {
	Names   int      `json:"names"` // moved variables that were looked for
	Files   int      `json:"files"` // that were looked through
	Setters []Setter `json:"setters,omitempty"`
	// NotLookedAt are files, folders, and files that a unit names.
	NotLookedAt []Problem `json:"not_looked_at,omitempty"`
}

// ErrNothingMoved is a tree in which neither a plan nor a mapping file names a
// moved variable.
var ErrNothingMoved = errors.New("no plan and no mapping file names a variable that was moved")

// MovedNames are the variables that a plan moves, and those of the mapping files
// in root. plan may be nil.
func MovedNames(root string, plan *Plan) (map[string]bool, error) {
	names := map[string]bool{}
	if plan != nil {
		for _, e := range plan.Variable {
			if e.Kind != KindPlain {
				names[e.Name] = true
			}
		}
	}
	dir, err := atomicfile.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	defer dir.Close()
	m, err := readMappings(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range m.files {
		for name := range f.variables {
			names[name] = true
		}
	}
	if len(names) == 0 {
		return nil, ErrNothingMoved
	}
	return names, nil
}

// Check looks through a folder for what still sets one of the names: units,
// compose files, Kubernetes, Dockerfiles, crontabs, .env files and other
// configuration. It changes nothing and reads no Vault.
func Check(ctx context.Context, dir string, names map[string]bool) (r Checked, err error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return r, fmt.Errorf("check %q: %w", dir, err)
	}
	root, err := atomicfile.OpenRoot(full)
	if err != nil {
		return r, fmt.Errorf("check: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	r.Names = len(names)
	c := &checker{dir: full, names: names, r: &r}
	err = walkAll(ctx, full, func(rel string) {
		if strings.HasPrefix(rel, ".git/") || strings.Contains(rel, "/.git/") {
			return
		}
		c.mu.Lock()
		r.Files++
		c.files = append(c.files, rel)
		c.mu.Unlock()
		data, err := readRegular(root, rel, maxSource)
		var large *tooLarge
		switch {
		case errors.As(err, &large):
			return // no configuration
		case err != nil:
			c.notLookedAt(rel, reason(err))
			return
		}
		c.file(rel, rel, data)
	}, func(rel, why string) {
		// Units are linked to where packages put them.
		if isUnit(rel) && why == linkOut {
			c.linked(rel)
			return
		}
		c.notLookedAt(rel, why)
	})
	if err != nil {
		return r, fmt.Errorf("check %q: %w", dir, err)
	}
	c.elsewhere()
	slices.SortFunc(r.Setters, func(a, b Setter) int {
		if n := strings.Compare(a.File, b.File); n != 0 {
			return n
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Name, b.Name)
	})
	r.Setters = slices.CompactFunc(r.Setters, func(a, b Setter) bool { return a.File == b.File && a.Line == b.Line && a.Name == b.Name })
	sortProblems(r.NotLookedAt)
	return r, nil
}

// checker is one run.
type checker struct {
	dir   string
	names map[string]bool
	mu    sync.Mutex
	r     *Checked
	files []string // that were walked over
	away  []away
}

// away is a file that something names, and that is not where it says.
type away struct{ file, why string }

func (c *checker) notLookedAt(file, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.r.NotLookedAt = append(c.r.NotLookedAt, Problem{File: file, Why: why})
}

// linked looks at a unit outside of the folder.
func (c *checker) linked(rel string) {
	full := filepath.Join(c.dir, filepath.FromSlash(rel))
	st, err := os.Stat(full)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxSource {
		return // masked: linked to /dev/null
	}
	data, err := atomicfile.ReadSmall(full, maxSource)
	if err != nil {
		c.notLookedAt(rel, reason(err))
		return
	}
	c.file(rel, rel, data)
}

// set notes that a place sets name, unless to nothing: an empty variable does
// not win.
func (c *checker) set(file, name, value string, line int, how, do string) {
	if !c.names[name] || strings.Trim(strings.TrimSpace(value), `"'`) == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.r.Setters = append(c.r.Setters, Setter{name, file, line, how, do})
}

// file goes by what the file is; shown is its name in the report.
func (c *checker) file(rel, shown string, data []byte) {
	if bytes.IndexByte(data[:min(len(data), sniff)], 0) >= 0 || isProse(rel) || isOurs(rel) || isCopy(strings.ToLower(path.Base(rel))) {
		return
	}
	base, ext := strings.ToLower(path.Base(rel)), strings.ToLower(path.Ext(rel))
	switch {
	case isEnvFile(rel):
		if !isTemplate(rel) {
			c.envFile(shown, data, "a .env file", "move it with strongroom migrate plan, apply and cutover; by hand only if strongroom migrate verify finds it in Vault")
		}
	case isUnit(rel):
		c.unit(rel, shown, data)
	case ext == ".yml" || ext == ".yaml" || ext == ".json" || ext == ".jsonc":
		c.tree(rel, shown, data)
	case fileKind(rel) == "dockerfile":
		k := &sink{src: source{rel, data}, uses: map[string][]Use{}}
		extractDockerfile(k)
		for _, d := range k.defs {
			c.set(shown, d.name, d.value, d.line, "a Dockerfile", "take it out: every container of the image has it")
		}
	case isCode[ext] || isProgram[ext] || isPython(source{rel, data}):
		c.code(shown, data)
	default:
		c.lines(shown, data, kindOfLines(rel, base))
	}
}

// isProgram are the ends of names of code that has an extractor, but for shells.
var isProgram = map[string]bool{
	".py": true, ".pyi": true, ".js": true, ".jsx": true, ".mjs": true, ".cjs": true, ".ts": true, ".tsx": true, ".mts": true, ".cts": true, ".vue": true, ".svelte": true, ".go": true, ".ipynb": true,
}

// envFile takes a file of assignments, in any reading: what it names is the
// same in all of them.
func (c *checker) envFile(shown string, data []byte, how, do string) {
	vars, faults := readEnv(source{shown, data}, dotenv.Python)
	if len(faults) > 0 {
		c.lines(shown, data, lineKind{how, do})
		return
	}
	for _, v := range vars {
		value := v.Value
		if len(v.Unresolved) > 0 {
			value = "from outside"
		}
		c.set(shown, v.Name, value, v.Line, how, do)
	}
}
