package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/dotenv"
)

const (
	// maxSearchedFile bounds a file that is searched for moved values, in bytes.
	maxSearchedFile = 64 << 20
	// maxPlaces bounds how many places of one file are listed.
	maxPlaces = 50
)

// Leftover is a place that still holds a moved value.
type Leftover struct {
	Names []string `json:"names"` // of the variables with that value
	File  string   `json:"file"`
	Line  int      `json:"line,omitempty"` // from 1; 0 in a binary file
	// Form is how the value is written there; empty as it is.
	Form string `json:"form,omitempty"`
	Do   string `json:"do"`
}

// String is the place, whose value it holds, and what to do.
func (l Leftover) String() string {
	at, how := l.File, ""
	if l.Line > 0 {
		at = fmt.Sprintf("%s:%d", l.File, l.Line)
	}
	if l.Form != "" {
		how = " (" + l.Form + ")"
	}
	return fmt.Sprintf("%s: holds the value of %s%s: %s", at, strings.Join(l.Names, ", "), how, l.Do)
}

// Remains is what a search of the tree has found.
type Remains struct {
	Values int        `json:"values"` // that were looked for
	Files  int        `json:"files"`  // that were looked through
	Left   []Leftover `json:"left,omitempty"`
	// Uses name a moved variable where no patch goes.
	Uses []Problem `json:"uses,omitempty"`
	// NotSearched are values that were not looked for.
	NotSearched []NotSearched `json:"not_searched,omitempty"`
	// NotLookedAt are files and folders.
	NotLookedAt []Problem `json:"not_looked_at,omitempty"`
}

// InEnvFiles says whether a .env file still holds a moved value.
func (r *Remains) InEnvFiles() bool {
	return slices.ContainsFunc(r.Left, func(l Leftover) bool { return isEnvFile(l.File) })
}

// Search looks for moved values in the tree. It holds the values in memory.
type Search struct {
	dir     string
	plan    *Plan
	needles *needles
	names   map[string]bool // of the moved variables
	not     []NotSearched
	// envFiles of the plan, and the names of the moved variables of each.
	envFiles  []string
	movedFrom map[string][]string
}

// NewSearch takes the values of everything that the plan moves from the .env
// files, and from Vault where a file has none any more: make it before a
// cutover, and Run it afterwards.
func NewSearch(ctx context.Context, root string, plan *Plan, store Store) (s *Search, err error) {
	j, err := newJob(root, plan, store)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	s = &Search{dir: j.dir, plan: plan, needles: newNeedles(), names: map[string]bool{}, movedFrom: map[string][]string{}}
	var index []int
	for i, e := range plan.Variable {
		if !slices.Contains(s.envFiles, e.File) {
			s.envFiles = append(s.envFiles, e.File)
		}
		if e.Kind != KindPlain {
			s.movedFrom[e.File] = append(s.movedFrom[e.File], e.Name)
			index = append(index, i)
			s.names[e.Name] = true
		}
	}
	var mu sync.Mutex
	err = parallel(ctx, index, 8, func(ctx context.Context, i int) error {
		e := plan.Variable[i]
		value, why, err := j.movedValue(ctx, e)
		if err != nil {
			return fmt.Errorf("look for what is left: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		if why == "" {
			why = s.needles.add(strconv.Itoa(i), value)
		}
		if why != "" {
			s.not = append(s.not, NotSearched{Name: e.Name, File: e.File, Why: why})
		}
		return nil
	})
	slices.SortFunc(s.not, func(a, b NotSearched) int { return strings.Compare(a.File+"\x00"+a.Name, b.File+"\x00"+b.Name) })
	return s, err
}

// movedValue is the file's value, or Vault's, or why there is none.
func (j *job) movedValue(ctx context.Context, e Entry) (value, why string, err error) {
	if vars, _ := j.files.get(e.File); vars != nil {
		if v := vars[e.Name]; v.Value != "" {
			return v.Value, "", nil
		}
	}
	if e.Kind == KindDatabase {
		return "", "its value is in no file any more, and Vault never had it", nil
	}
	stored, err := j.stored(ctx, e)
	if err != nil {
		return "", "", err
	}
	if text, ok := stored.(string); ok {
		return text, "", nil
	}
	return "", "its value is neither in its file nor in Vault", nil
}

// Run looks through every file below the root, whatever its name, as it is now
// and without what a cutover of the plan would take out.
func (s *Search) Run(ctx context.Context) (r Remains, err error) {
	root, err := atomicfile.OpenRoot(s.dir)
	if err != nil {
		return r, fmt.Errorf("look for what is left: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	r.Values, r.NotSearched = s.needles.count(), s.not
	t := &treeSearch{Search: s, root: root, r: &r}
	if err := t.walk(ctx); err != nil {
		return r, fmt.Errorf("look for what is left: %w", err)
	}
	slices.SortFunc(r.Left, func(a, b Leftover) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	sortProblems(r.Uses)
	sortProblems(r.NotLookedAt)
	return r, nil
}

// Remaining is NewSearch and Run at once.
func Remaining(ctx context.Context, root string, plan *Plan, store Store) (Remains, error) {
	s, err := NewSearch(ctx, root, plan, store)
	if err != nil {
		return Remains{}, err
	}
	return s.Run(ctx)
}

// treeSearch is one run.
type treeSearch struct {
	*Search
	root *os.Root
	mu   sync.Mutex
	r    *Remains
}

func (t *treeSearch) notLookedAt(file, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.NotLookedAt = append(t.r.NotLookedAt, Problem{File: file, Why: fmt.Sprintf(format, args...)})
}

func (t *treeSearch) walk(ctx context.Context) error {
	return walkAll(ctx, t.dir, func(rel string) {
		t.mu.Lock()
		t.r.Files++
		t.mu.Unlock()
		t.file(rel)
	}, func(rel, why string) { t.notLookedAt(rel, "%s", why) })
}

// walkAll hands on every regular file below dir, whatever its name, by several
// goroutines, and says what it passes over.
func walkAll(ctx context.Context, dir string, each func(rel string), passed func(rel, why string)) error {
	paths := make(chan string, 64)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for p := range paths {
				each(p)
			}
		})
	}
	err := filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rel, relErr := filepath.Rel(dir, full)
		if relErr != nil {
			return relErr
		}
		rel = filepath.ToSlash(rel)
		switch {
		case err != nil && rel == ".":
			return err
		case err != nil:
			passed(rel, reason(err))
		case d.IsDir() && rel != ".":
			if why := othersFolder(full, rel); why != "" {
				if why != ourOwn {
					passed(rel, why)
				}
				return fs.SkipDir
			}
		case d.Type().IsRegular():
			paths <- rel
		case d.Type()&fs.ModeSymlink != 0 && leadsOut(dir, rel):
			passed(rel, linkOut)
		}
		return nil
	})
	close(paths)
	workers.Wait()
	return err
}

// leadsOut says whether a link's target is not in the tree.
func leadsOut(dir, rel string) bool {
	target, err := filepath.EvalSymlinks(filepath.Join(dir, filepath.FromSlash(rel)))
	if err != nil {
		return false // it leads nowhere
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return true
	}
	in, err := filepath.Rel(real, target)
	return err != nil || !filepath.IsLocal(in)
}

// linkOut is why a link is passed over.
const linkOut = "a symbolic link out of the tree"

// ourOwn is a folder that is passed over without a word.
const ourOwn = "our own"

// othersFolder says why a folder is not looked through: what git and its like
// keep there is history, and what a package manager installs is downloaded.
func othersFolder(full, rel string) string {
	base := path.Base(rel)
	switch base {
	case StateDir:
		return ourOwn
	case ".hg", ".svn", ".jj", ".bzr":
		return "a repository's history"
	case "node_modules":
		return "installed packages"
	case "objects", "lfs":
		if strings.Contains("/"+rel, "/.git/") {
			return ourOwn // the search in history looks there
		}
	}
	for _, marker := range vendored[""] {
		if _, err := os.Lstat(filepath.Join(full, marker)); err == nil {
			return "a virtual environment"
		}
	}
	return ""
}

func (t *treeSearch) file(rel string) {
	data, err := readRegular(t.root, rel, maxSearchedFile)
	if err != nil {
		t.notLookedAt(rel, "%s", reason(err))
		return
	}
	var packed []Leftover
	if why := unpacked(data, func(plain []byte) { packed = append(packed, t.leftovers(rel, plain, true)...) }); why != "" {
		t.notLookedAt(rel, "%s", why)
	}
	data = t.asAfterCutover(rel, data)
	binary := bytes.IndexByte(data[:min(len(data), sniff)], 0) >= 0 && !isUTF16(data)
	left := t.leftovers(rel, data, binary)
	for _, l := range packed[:min(len(packed), maxPlaces)] {
		l.Form = strings.TrimPrefix(l.Form+", compressed", ", ")
		left = append(left, l)
	}
	var uses []Problem
	if !binary && len(data) <= maxSource {
		uses = t.uses(source{rel, data})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.r.Left = append(t.r.Left, left...)
	t.r.Uses = append(t.r.Uses, uses...)
}

func isUTF16(data []byte) bool {
	return bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff"))
}

// asAfterCutover is a .env file without the variables that the plan moves.
func (t *treeSearch) asAfterCutover(rel string, data []byte) []byte {
	moved := map[string]bool{}
	for _, e := range t.plan.Variable {
		if e.File == rel && e.Kind != KindPlain {
			moved[e.Name] = true
		}
	}
	if len(moved) == 0 {
		return data
	}
	d, err := t.plan.DialectOf(rel)
	if err != nil {
		return data
	}
	// Lines keep their numbers: what goes is blanked, not cut.
	f, err := dotenv.Parse(data, d)
	if err != nil {
		return data
	}
	out := bytes.Clone(data)
	for _, st := range f.Statements {
		if moved[st.Name] {
			blank(out[st.Start:st.End])
		}
	}
	return out
}

func (t *treeSearch) leftovers(rel string, data []byte, binary bool) []Leftover {
	type place struct {
		line int
		form string
	}
	names := map[place][]string{}
	plain := map[string]bool{} // line and name: the value as it is hides its parts and forms
	var order []place
	line, at := 1, 0
	t.needles.in(data, func(m *needle, from int) {
		i, err := strconv.Atoi(m.key)
		if err != nil {
			return
		}
		p := place{form: m.form}
		if !binary {
			if from < at {
				line -= bytes.Count(data[from:at], []byte("\n"))
			} else {
				line += bytes.Count(data[at:from], []byte("\n"))
			}
			at = from
			p.line = line
		}
		name := t.plan.Variable[i].Name
		if m.form == "" {
			plain[fmt.Sprint(p.line, name)] = true
		}
		if _, known := names[p]; !known {
			if len(order) > 4*maxPlaces {
				return
			}
			order = append(order, p)
		}
		if !slices.Contains(names[p], name) {
			names[p] = append(names[p], name)
		}
	})
	var out []Leftover
	for _, p := range order {
		n := names[p]
		if p.form != "" {
			n = slices.DeleteFunc(n, func(name string) bool { return plain[fmt.Sprint(p.line, name)] })
		}
		if len(n) == 0 {
			continue
		}
		if len(out) == maxPlaces {
			out = append(out, Leftover{Names: n, File: rel, Line: p.line, Form: "and more places behind it", Do: whatToDo(rel, "")})
			break
		}
		slices.Sort(n)
		out = append(out, Leftover{n, rel, p.line, p.form, whatToDo(rel, lineOf(data, p.line))})
	}
	return out
}

// lineOf is a line by its number, from 1.
func lineOf(data []byte, n int) string {
	for l := range bytes.Lines(data) {
		if n--; n == 0 {
			return string(l)
		}
	}
	return ""
}

// whatToDo about a value in a file, by what the file is; line is for comments.
func whatToDo(rel, line string) string {
	base, ext := strings.ToLower(path.Base(rel)), strings.ToLower(path.Ext(rel))
	kind := fileKind(rel)
	switch {
	case strings.HasPrefix(rel, ".git/") || strings.Contains(rel, "/.git/"):
		return "take it out of what git keeps there, and rotate it"
	case isCopy(base) || isEnvCopy(rel):
		return "a copy of another file: delete it"
	case isEnvFile(rel) && isTemplate(rel):
		return "everybody gets this file: put a placeholder there, and rotate it"
	case isEnvFile(rel) && strings.HasPrefix(strings.TrimSpace(line), "#"):
		return "take it out of the comment"
	case isEnvFile(rel):
		return "plan this variable as well, or take it out by hand"
	case kind == "compose":
		return "name the variable there without a value, and start it under strongroom env exec"
	case kind == "systemd":
		return "take it out, and start the program under strongroom env exec"
	case kind == "dockerfile":
		return "it is in a layer of every image: take it out, build again, and rotate it"
	case kind == "actions":
		return "put it into the secrets of the repository at GitHub, or read it from Vault"
	case ext == ".ipynb":
		return "clear the cell's output, and read it by strongroom_dagster.env"
	case ext == ".tf" || ext == ".tfvars" || strings.HasSuffix(base, ".tfvars.json"):
		return "read it with Terraform's provider for Vault"
	case strings.HasPrefix(base, "terraform.tfstate") || strings.HasSuffix(base, ".tfstate"):
		return "Terraform's state has it in clear: keep that elsewhere, and rotate it"
	case ext == ".md" || ext == ".rst" || ext == ".adoc" || ext == ".txt" || ext == ".html" || strings.HasPrefix(base, "readme"):
		return "take it out of the text, and rotate it if others have read it"
	case ext == ".log" || strings.HasSuffix(base, "_history"):
		return "delete the line or the file, and rotate it"
	case ext == ".pyc" || ext == ".pyo" || ext == ".class":
		return "delete the file: it is made anew"
	case kind != "" || isCode[ext]:
		return "read it from Vault or from the environment in place of that"
	case ext == ".yml" || ext == ".yaml" || ext == ".json" || ext == ".toml" || ext == ".ini" || ext == ".cfg" || ext == ".conf" || ext == ".properties" || ext == ".xml":
		return "this file is not moved by strongroom: take it out by hand, and have the program read it from the environment or a file"
	}
	return "take it out by hand, or delete the file"
}

// isCode are the ends of names of programs in languages without an extractor.
var isCode = map[string]bool{
	".rb": true, ".php": true, ".java": true, ".kt": true, ".scala": true, ".cs": true, ".fs": true, ".rs": true, ".c": true, ".h": true, ".cpp": true, ".swift": true,
	".pl": true, ".lua": true, ".ex": true, ".exs": true, ".erl": true, ".clj": true, ".r": true, ".jl": true, ".ps1": true, ".bat": true, ".sql": true, ".pyw": true, ".dart": true,
}

// isCopy goes by the names that editors and people give to copies.
func isCopy(base string) bool {
	if strings.HasSuffix(base, "~") || strings.HasPrefix(base, "#") && strings.HasSuffix(base, "#") || strings.HasPrefix(base, ".#") {
		return true
	}
	for _, part := range strings.FieldsFunc(base, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		switch part {
		case "bak", "backup", "orig", "old", "save", "saved", "swp", "swo", "swn", "rej", "tmp", "copy":
			return true
		}
	}
	return false
}

// fileKind is the kind of the extractor that reads a file, or nothing.
func fileKind(rel string) string {
	base, ext := strings.ToLower(path.Base(rel)), path.Ext(rel)
	switch {
	case len(extractorsFor(rel)) == 0:
		return ""
	case strings.Contains("/"+rel, "/.github/workflows/"), base == "action.yml", base == "action.yaml":
		return "actions"
	case strings.HasPrefix(base, "docker-compose"), strings.HasPrefix(base, "compose"):
		return "compose"
	case ext == ".yml" || ext == ".yaml":
		return ""
	case strings.Contains(base, "dockerfile"), base == "containerfile":
		return "dockerfile"
	case ext == ".service" || ext == ".socket" || ext == ".timer" || ext == ".container" || ext == ".conf":
		return "systemd"
	case ext == ".py" || ext == ".pyi":
		return "python"
	}
	return "code"
}
