package migrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

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
	if p.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Why)
	}
	return fmt.Sprintf("%s: %s", p.File, p.Why)
}

// walker reads the files of a tree with several workers. Symbolic links are
// never followed: what they point to inside of the tree is found by itself,
// and what is outside is not the tree's.
type walker struct {
	root *os.Root
	dir  string
	each func(source) // called by several goroutines
	mu   sync.Mutex
	all  int
	bad  []Problem
}

func (w *walker) problem(p Problem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad = append(w.bad, p)
}

func (w *walker) run(ctx context.Context) error {
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
			w.problem(Problem{File: rel, Why: reason(err), Fatal: isEnvFile(rel)})
			return nil
		}
		switch {
		case d.IsDir():
			if rel != "." && w.skipDir(full, d.Name()) {
				return fs.SkipDir
			}
		case d.Type()&fs.ModeSymlink != 0:
			if isEnvFile(rel) {
				w.problem(Problem{File: rel, Why: "a symbolic link, which is not followed"})
			}
		case d.Type().IsRegular() && wanted(rel):
			w.all++
			paths <- rel
		case d.Type().IsRegular():
			w.all++
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
	marker := ""
	switch name {
	case "vendor":
		marker = "modules.txt"
	case "venv", ".venv", "env", ".env":
		marker = "pyvenv.cfg"
	default:
		return false
	}
	_, err := os.Lstat(filepath.Join(full, marker))
	return err == nil
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
	case errors.As(err, &large) && !env:
		w.problem(Problem{File: rel, Why: large.Error() + ": not looked at"})
		return
	case err != nil:
		w.problem(Problem{File: rel, Why: reason(err), Fatal: env})
		return
	}
	if !env && bytes.IndexByte(data[:min(len(data), sniff)], 0) >= 0 {
		return
	}
	w.each(source{rel, data})
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

// isEnvFile goes by the name: .env, .env.NAME, NAME.env.
func isEnvFile(rel string) bool {
	base := path.Base(rel)
	return base == ".env" || strings.HasPrefix(base, ".env.") || (strings.HasSuffix(base, ".env") && base != ".env")
}

// isTemplate is a .env file that shows what others should hold.
func isTemplate(rel string) bool {
	for _, part := range strings.Split(strings.Trim(path.Base(rel), "."), ".") {
		switch part {
		case "example", "sample", "template", "dist", "tmpl", "tpl":
			return true
		}
	}
	return false
}

// wanted files are those for which there is an extractor.
func wanted(rel string) bool { return isEnvFile(rel) || len(extractorsFor(rel)) > 0 }
