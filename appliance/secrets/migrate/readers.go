package migrate

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"strongroom.example/appliance/secrets/dotenv"
)

// Reader is a program that reads a .env file, and where the tree shows it.
type Reader struct {
	Dialect string `json:"dialect"`
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1
	// Expands is true where the reader also replaces $NAME, as dotenv-expand does.
	Expands bool `json:"expands,omitempty"`
	// Own is a reader with a grammar of its own, which is not followed here: Dialect says
	// nothing of it.
	Own string `json:"own,omitempty"`
}

// mention is a place that names a .env file as what a reader reads.
type mention struct {
	dialect dotenv.Dialect
	at      string // the file that says so
	line    int
	target  string // the path as it stands there; may be a pattern
	expands bool   // $NAME is replaced, too
	own     string // the reader, if its grammar is not known
	// optional says that the reader goes on without the file.
	optional bool
}

// showsReader says whether a file may name a reader, by its own name.
func showsReader(rel string) bool {
	base := path.Base(rel)
	switch strings.ToLower(base) {
	case "makefile", "gnumakefile", "justfile", "procfile", "package.json", "taskfile.yml", "taskfile.yaml":
		return true
	}
	switch path.Ext(base) {
	case ".service", ".socket", ".timer", ".container", ".sh", ".bash", ".mk":
		return true
	}
	return strings.Contains(base, ".service.") || strings.Contains(rel, ".service.d/")
}

// mentions are all readers that a file shows.
func mentionsIn(src source) []mention {
	m := &mentionsOf{src: src}
	base := path.Base(src.path)
	switch {
	case base == "package.json":
		m.packageJSON()
	case isComposeFile(base) || isServices(src):
		m.compose()
	}
	if !mentions(src.data, "env", "Env", "decouple") {
		return m.found
	}
	switch path.Ext(base) {
	case ".py", ".ipynb":
		m.python()
	case ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx":
		m.javascript()
	}
	m.commands()
	return m.found
}

// filledIn is what something else fills in.
var filledIn = regexp.MustCompile(`\$\{[^}]*\}|\$\([^)]*\)|\$\w+|\{\{[^}]*\}\}|%\w|<[^>]*>`)

// literalEnd is the part of a path behind the last component that something
// else fills in: $DIR/.env, %h/app/.env, {{ dir }}/.env, $(dirname "$0")/.env. A
// part of the file's own name is a pattern: .env.$STAGE.
func literalEnd(target string) string {
	parts := strings.Split(target, "/")
	last := &parts[len(parts)-1]
	if name := filledIn.ReplaceAllString(*last, "*"); strings.Trim(name, "*.") != "" {
		*last = name
	}
	for i := len(parts) - 1; i >= 0; i-- {
		if strings.ContainsAny(parts[i], "$%{}()`<>") {
			return strings.Join(parts[i+1:], "/")
		}
	}
	return strings.Join(parts, "/")
}

// files are those of the tree's .env files that a mention means: the one at its
// path from the place of the mention or from the root; else those that share
// the most of the path's end.
func (m mention) files(all []string) []string {
	target := literalEnd(m.target)
	fixed := target == m.target && !path.IsAbs(target)
	target = strings.TrimPrefix(path.Clean("/"+target), "/")
	best := 1
	if base := path.Base(target); strings.Contains(base, "*") && strings.Trim(strings.TrimSuffix(base, "env"), "*.") == "" {
		best = 2 // %i.env may be any: the folder must be the same, too
	}
	if fixed {
		dirs := []string{path.Dir(m.at), "."}
		own := path.Base(m.at) == "package.json"
		if own {
			dirs = dirs[:1]
		}
		for _, dir := range dirs {
			var out []string
			for _, f := range all {
				if ok, err := path.Match(path.Join(dir, m.target), f); f == path.Join(dir, m.target) || ok && err == nil {
					out = append(out, f)
				}
			}
			if len(out) > 0 {
				return out
			}
		}
		// load_dotenv looks in the folders above.
		if m.dialect == dotenv.Python && !strings.Contains(m.target, "/") {
			for dir := path.Dir(m.at); dir != "."; dir = path.Dir(dir) {
				if f := path.Join(path.Dir(dir), m.target); slices.Contains(all, f) {
					return []string{f}
				}
			}
		}
		if own {
			return nil
		}
	}
	var out []string
	for _, f := range all {
		switch n := commonEnd(target, f); {
		case n < best:
		case n > best:
			best, out = n, []string{f}
		default:
			out = append(out, f)
		}
	}
	return out
}

// commonEnd counts the components at the end of a path that a file shares, the
// last of which may be a pattern.
func commonEnd(target, file string) int {
	a, b := strings.Split(target, "/"), strings.Split(file, "/")
	n := 0
	for n < len(a) && n < len(b) {
		x, y := a[len(a)-1-n], b[len(b)-1-n]
		if ok, err := path.Match(x, y); x != y && (!ok || err != nil) {
			break
		}
		n++
	}
	return n
}

// readersOf gives the readers of each .env file, in the order of dialects, one
// of each.
func readersOf(found []mention, files []string) map[string][]Reader {
	out := map[string][]Reader{}
	slices.SortStableFunc(found, func(a, b mention) int {
		if a.dialect != b.dialect {
			return int(a.dialect) - int(b.dialect)
		}
		if a.own != b.own {
			return strings.Compare(a.own, b.own)
		}
		if a.at != b.at {
			return strings.Compare(a.at, b.at)
		}
		return a.line - b.line
	})
	for _, m := range found {
		for _, f := range m.files(files) {
			n := len(out[f])
			r := Reader{m.dialect.String(), m.at, m.line, m.expands, m.own}
			if n == 0 || out[f][n-1].Dialect != r.Dialect || out[f][n-1].Own != r.Own {
				out[f] = append(out[f], r)
			} else if m.expands && !out[f][n-1].Expands {
				out[f][n-1] = r
			}
		}
	}
	return out
}
