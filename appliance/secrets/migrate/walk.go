package migrate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"

	"strongroom.example/appliance/secrets/dotenv"
)

// maxSource bounds a file of code that is looked at, in bytes. What is larger
// is data.
const maxSource = 5 << 20

// sniff is how much of a file tells text from binary, in bytes; as git has it.
const sniff = 8000

// skippedDirs hold what others wrote, or what is made from the rest.
var skippedDirs = map[string]bool{
	".git": true, ".hg": true, ".svn": true, "node_modules": true, "__pycache__": true, ".tox": true, ".nox": true,
	".mypy_cache": true, ".pytest_cache": true, ".ruff_cache": true, ".terraform": true, ".next": true, ".gradle": true, StateDir: true,
	"site-packages": true, "bower_components": true, "__pypackages__": true, ".direnv": true, ".eggs": true, ".yarn": true, ".pnpm-store": true,
}

// vendored are files and folders that tell a folder of others' code, whatever
// it is called. A virtual environment is one by its pyvenv.cfg.
var vendored = map[string][]string{
	"":       {"pyvenv.cfg", "conda-meta"},
	"vendor": {"modules.txt", "autoload.php", "bundle"},
}

// source is a text file of the tree.
type source struct {
	path string // relative to the root, with slashes
	data []byte
}

// Problem is a file that was not understood, or not looked at.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1; 0 for the whole file
	Why  string `json:"why"`
	// Fatal problems are in .env files: nothing is written while there is one.
	Fatal bool `json:"fatal"`
}

// String is the problem with its file and, where there is one, its line.
func (p Problem) String() string {
	file := p.File
	if q := strconv.Quote(file); strings.Contains(q, `\`) {
		file = q // whatever its path does to a terminal
	}
	if p.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", file, p.Line, p.Why)
	}
	return fmt.Sprintf("%s: %s", file, p.Why)
}

// walker reads the files of a tree with several workers. Symbolic links are
// never followed: what they point to inside of the tree is found by itself,
// and what is outside is not the tree's.
type walker struct {
	root *os.Root
	dir  string
	each func(source)          // called by several goroutines
	want func(rel string) bool // nil: the files that have an extractor
	// exclude are patterns of paths that are not looked at: see matchesPath.
	exclude []string
	// ignored folders are git's, with slashes: only .env files are looked at.
	ignored map[string]bool
	mu      sync.Mutex
	all     int
	bad     []Problem
}

func (w *walker) problem(p Problem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad = append(w.bad, p)
}

func (w *walker) run(ctx context.Context) error {
	want := w.want
	if want == nil {
		want = wanted
	}
	paths := make(chan string, 256)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for p := range paths {
				w.file(p)
			}
		})
	}
	err := filepath.WalkDir(w.dir, func(full string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rel, relErr := filepath.Rel(w.dir, full)
		if relErr != nil {
			return relErr
		}
		rel = filepath.ToSlash(rel)
		if err != nil {
			if rel == "." {
				return err
			}
			w.problem(Problem{File: rel, Why: reason(err), Fatal: mustRead(rel) && !w.excluded(rel)})
			return nil
		}
		switch {
		case d.IsDir():
			if rel != "." && (w.skipDir(full, d.Name()) || w.excluded(rel)) {
				return fs.SkipDir
			}
		case w.excluded(rel):
			if d.Type().IsRegular() {
				w.all++
			}
			if isEnvFile(rel) {
				w.problem(Problem{File: rel, Why: "excluded: not looked at"})
			}
		case d.Type()&fs.ModeSymlink != 0:
			if isEnvFile(rel) {
				w.problem(Problem{File: rel, Why: w.linkNote(rel)})
			}
		case d.Type().IsRegular() && want(rel) && (isEnvFile(rel) || !w.inIgnored(rel)):
			w.all++
			paths <- rel
		case d.Type().IsRegular():
			w.all++
		case isEnvFile(rel):
			w.problem(Problem{File: rel, Why: "a pipe, a socket or a device, and no file: not looked at"})
		}
		return nil
	})
	close(paths)
	workers.Wait()
	return err
}

func (w *walker) skipDir(full, name string) bool {
	if skippedDirs[name] {
		return true
	}
	for _, of := range []string{"", name} {
		for _, marker := range vendored[of] {
			if _, err := os.Lstat(filepath.Join(full, marker)); err == nil {
				return true
			}
		}
	}
	return false
}

// linkNote says what becomes of a .env file that is a link.
func (w *walker) linkNote(rel string) string {
	const note = "a symbolic link, which is not followed"
	target, err := filepath.EvalSymlinks(filepath.Join(w.dir, filepath.FromSlash(rel)))
	if err != nil {
		return note + ": it leads nowhere"
	}
	dir, err := filepath.EvalSymlinks(w.dir)
	if err != nil {
		return note
	}
	to, err := filepath.Rel(dir, target)
	if err != nil || !filepath.IsLocal(to) {
		return note + ": the file that it leads to is outside of the tree and is not moved"
	}
	if to = filepath.ToSlash(to); !isEnvFile(to) {
		return fmt.Sprintf("%s: the file that it leads to, %q, is not named like a .env file and is not moved", note, to)
	}
	return fmt.Sprintf("%s: the file that it leads to, %q, is looked at", note, to)
}

func (w *walker) excluded(rel string) bool {
	return slices.ContainsFunc(w.exclude, func(pattern string) bool { return matchesPath(pattern, rel) })
}

func (w *walker) inIgnored(rel string) bool {
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		if w.ignored[dir] {
			return true
		}
	}
	return false
}

// matchesPath says whether a pattern of path.Match is one of the path, of a
// folder above it, or, without a slash, of a name in it.
func matchesPath(pattern, rel string) bool {
	pattern = strings.TrimSuffix(strings.TrimPrefix(pattern, "./"), "/")
	for p := rel; p != "."; p = path.Dir(p) {
		candidate := p
		if !strings.Contains(pattern, "/") {
			candidate = path.Base(p)
		}
		if ok, err := path.Match(pattern, candidate); err == nil && ok {
			return true
		}
	}
	return false
}

// CheckExclude refuses a pattern that would never match.
func CheckExclude(pattern string) error {
	if _, err := path.Match(pattern, "x"); err != nil || pattern == "" || path.IsAbs(pattern) {
		return fmt.Errorf("%q must be a path below the tree's root or a name in it, where * and ? stand for what they do in a shell", pattern)
	}
	return nil
}

// ignoredDirs are the folders that git leaves out, relative to dir and with
// slashes; none where there is no git, or where it does not want to say.
func ignoredDirs(ctx context.Context, dir string) map[string]bool {
	out, err := git(ctx, dir, "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z")
	if err != nil {
		return nil
	}
	dirs := map[string]bool{}
	var ask bytes.Buffer
	for p := range strings.SplitSeq(string(out), "\x00") {
		if strings.HasSuffix(p, "/") {
			ask.WriteString(strings.TrimSuffix(p, "/") + "\x00")
		}
	}
	// A folder that only holds ignored files is among them, but is not ignored.
	for _, p := range gitIgnored(ctx, dir, ask.Bytes()) {
		dirs[p] = true
	}
	return dirs
}

// gitIgnored are those of the paths, each with a NUL at its end, that git
// ignores.
func gitIgnored(ctx context.Context, dir string, paths []byte) []string {
	if len(paths) == 0 {
		return nil
	}
	c := gitCommand(ctx, dir, "check-ignore", "--stdin", "-z")
	c.Stdin = bytes.NewReader(paths)
	out, err := c.Output()
	if err != nil { // 1 if there are none
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// file reads one file and hands it on, if it is text.
func (w *walker) file(rel string) {
	env := isEnvFile(rel)
	limit := int64(maxSource)
	if env {
		limit = dotenv.MaxSize
	}
	data, err := readRegular(w.root, rel, limit)
	var large *tooLarge
	switch {
	case errors.As(err, &large) && !env && !wanted(rel) && elsewhere(rel) == nil:
		return // data
	case errors.As(err, &large) && !env:
		w.problem(Problem{File: rel, Why: large.Error() + ": not looked at"})
		return
	case err != nil:
		w.problem(Problem{File: rel, Why: reason(err), Fatal: mustRead(rel) && !w.inIgnored(rel)})
		return
	}
	if env && !mustRead(rel) && bytes.IndexByte(data[:min(len(data), sniff)], 0) >= 0 {
		w.problem(Problem{File: rel, Why: "binary, and no .env file: not looked at"})
		return
	}
	if !env {
		data = fromUTF16(data)
	}
	if !env && bytes.IndexByte(data[:min(len(data), sniff)], 0) >= 0 {
		return
	}
	w.each(source{rel, data})
}

// fromUTF16 gives the text of a file that Windows' programs have written, by its
// byte order mark, and leaves all others as they are.
func fromUTF16(data []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return data
	}
	units := make([]uint16, 0, len(data)/2)
	for i := 2; i+1 < len(data); i += 2 {
		units = append(units, order.Uint16(data[i:]))
	}
	return []byte(string(utf16.Decode(units)))
}

type tooLarge struct{ size, limit int64 }

func (e *tooLarge) Error() string {
	return fmt.Sprintf("%d bytes are more than %d", e.size, e.limit)
}

// readRegular reads a regular file of at most limit bytes, whatever else has
// taken its name meanwhile.
func readRegular(root *os.Root, rel string, limit int64) ([]byte, error) {
	st, err := root.Lstat(filepath.FromSlash(rel))
	if err != nil {
		return nil, err
	}
	// A named pipe would be opened for ever.
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if st.Size() > limit {
		return nil, &tooLarge{st.Size(), limit}
	}
	f, err := root.Open(filepath.FromSlash(rel))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, &tooLarge{int64(len(data)), limit}
	}
	return data, nil
}

// reason is an error without the path that stands beside it anyway.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// wanted files are those for which there is an extractor, or may be: a program
// without an end to its name says in its first line what it is.
func wanted(rel string) bool {
	return isEnvFile(rel) || showsReader(rel) || len(extractorsFor(rel)) > 0 || path.Ext(rel) == ""
}
