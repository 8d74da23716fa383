package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"strongroom.example/appliance/secrets/dotenv"
)

// HistoryLimit is how long git's history is searched where nothing else is said.
const HistoryLimit = 5 * time.Minute

// HistoryProgress is how far the search in git's history is.
type HistoryProgress struct {
	Objects, AllObjects int
	Bytes, AllBytes     int64
}

// history looks for the secrets in every object that git keeps, reachable or
// not: stashes and abandoned branches are history as well. The values stay in
// this process: none is an argument of git. Nothing that is amiss with a
// repository is a failure: it is said in the report.
func (s *scanner) history(ctx context.Context, dir string, r *Report) error {
	if _, err := exec.LookPath("git"); err != nil {
		r.History = "not looked at: git is not installed"
		return nil
	}
	n := newNeedles()
	for i := range r.Variables {
		v := &r.Variables[i]
		for _, d := range v.Definitions {
			key := definitionKey(d.File, d.Line, v.Name)
			value, secret := s.values[key]
			if !secret || d.Kind != "dotenv" {
				continue
			}
			if why := n.add(key, value); why != "" {
				r.NotSearched = append(r.NotSearched, NotSearched{v.Name, d.File, d.Line, why})
				continue
			}
			n.put(key, "as its file writes it", s.written[key])
		}
	}
	left := s.searchElsewhere(n, r)
	limit := s.o.HistoryLimit
	if limit <= 0 {
		limit = HistoryLimit
	}
	h := &historySearch{needles: n, deadline: time.Now().Add(limit), limit: limit, progress: s.o.Progress, first: map[string]string{}}
	if err := h.repositories(ctx, dir); err != nil {
		return err
	}
	r.Tracked = h.tracked(ctx, dir)
	r.HistoryNotes = h.notes
	for i := range r.Variables {
		v := &r.Variables[i]
		for j := range v.Definitions {
			d := &v.Definitions[j]
			if c := h.first[definitionKey(d.File, d.Line, v.Name)]; c != "" {
				d.InHistory = []string{c}
			}
		}
	}
	for i := range r.NotMoved {
		f := &r.NotMoved[i]
		f.InHistory = h.first[definitionKey(f.File, f.Line, f.Name)]
	}
	if h.searched == 0 {
		r.History = "not looked at: no git repository"
		return nil
	}
	r.History = fmt.Sprintf("%d objects searched for %d values", h.objects, n.count())
	if left != "" {
		r.HistoryNotes = append(r.HistoryNotes, left)
	}
	if len(r.NotSearched) > 0 {
		r.History += fmt.Sprintf("; %d values were not searched for", len(r.NotSearched))
	}
	return nil
}

// maxElsewhere bounds how many values of files that are not moved are looked for.
const maxElsewhere = 2000

// searchElsewhere adds the secrets that this tool does not move, and says which it
// has left out.
func (s *scanner) searchElsewhere(n *needles, r *Report) string {
	known := map[string]bool{}
	added, common, more := 0, 0, 0
	for _, f := range r.NotMoved {
		key := definitionKey(f.File, f.Line, f.Name)
		value, there := s.values[key]
		switch {
		case !there || known[key]:
		case added == maxElsewhere:
			more++
		case n.add(key, value) != "":
			common++
		default:
			added++
		}
		known[key] = true
	}
	var out []string
	if common > 0 {
		out = append(out, fmt.Sprintf("%d are short or common", common))
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%d are more than the %d that are", more, maxElsewhere))
	}
	if len(out) == 0 {
		return ""
	}
	return "of the secrets that this tool does not move, some were not searched for: " + strings.Join(out, ", ")
}

// historySearch goes through one repository after the other.
type historySearch struct {
	needles  *needles
	deadline time.Time
	limit    time.Duration
	progress func(HistoryProgress)

	first    map[string]string // by key: the first commit that holds the value
	notes    []string
	searched int // repositories
	objects  int // that were read
}

func (h *historySearch) note(format string, args ...any) {
	h.notes = append(h.notes, fmt.Sprintf(format, args...))
}

// repositories are the one that dir is in and those below it: submodules,
// worktrees, and what was cloned into the tree. Each object store is looked at
// once.
func (h *historySearch) repositories(ctx context.Context, dir string) error {
	done := map[string]bool{}
	if err := h.repository(ctx, dir, "", done); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return ctx.Err() // what cannot be read was said by the walk for variables
		}
		name := d.Name()
		at, relErr := filepath.Rel(dir, filepath.Dir(full))
		if relErr != nil {
			return relErr
		}
		switch {
		case name == ".git" && at != ".":
			if err := h.repository(ctx, filepath.Dir(full), filepath.ToSlash(at), done); err != nil {
				return err
			}
		case !d.IsDir() || full == dir:
			return nil
		case name != ".git" && !skippedDirs[name]:
			return nil
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// repository searches one. at is where it is below the tree, empty for the one
// that holds the tree.
func (h *historySearch) repository(ctx context.Context, dir, at string, done map[string]bool) error {
	what := "the repository"
	if at != "" {
		what = fmt.Sprintf("%q, a repository of its own,", at)
	}
	out, err := git(ctx, dir, "rev-parse", "--path-format=absolute", "--git-common-dir", "--is-shallow-repository")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		if at == "" && !insideRepository(dir) {
			return nil
		}
		h.note("%s was not looked at: %s", what, gitSaid(err))
		h.searched++
		return nil
	}
	common, shallow, _ := strings.Cut(strings.TrimSuffix(string(out), "\n"), "\n")
	if done[common] {
		return nil
	}
	done[common] = true
	h.searched++
	if st, err := os.Stat(common); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
			h.note("%s belongs to another user (uid %d): its objects were read, and nothing of its configuration was run", what, sys.Uid)
		}
	}
	if shallow == "true" {
		h.note("%s is a shallow clone: what lies behind its oldest commits is not here and was not searched (git fetch --unshallow brings it)", what)
	}
	if promisors, err := git(ctx, dir, "config", "--get-regexp", `^(remote\..*\.promisor|extensions\.partialclone)$`); err == nil && len(promisors) > 0 {
		h.note("%s is a partial clone: what was not downloaded was not searched, and nothing was fetched", what)
	}
	h.submodules(ctx, dir, at)
	return h.search(ctx, dir, what, at)
}

// insideRepository says whether dir or a folder above it looks like one, also if
// git takes it for none.
func insideRepository(dir string) bool {
	for {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return false
		}
		dir = up
	}
}

// submodules names those that are not checked out: their history is elsewhere.
func (h *historySearch) submodules(ctx context.Context, dir, at string) {
	staged, err := git(ctx, dir, "ls-files", "-s", "-z")
	if err != nil {
		return // a bare repository
	}
	for entry := range strings.SplitSeq(string(staged), "\x00") {
		meta, name, ok := strings.Cut(entry, "\t")
		if !ok || !strings.HasPrefix(meta, "160000 ") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name), ".git")); err != nil {
			h.note("the submodule %q is not checked out: its history was not searched", filepath.ToSlash(filepath.Join(at, name)))
		}
	}
}

// tracked are the .env files in git's index.
func (h *historySearch) tracked(ctx context.Context, dir string) []string {
	out, err := git(ctx, dir, "ls-files", "-z")
	if err != nil {
		return nil
	}
	var all []string
	for f := range strings.SplitSeq(string(out), "\x00") {
		if isEnvFile(f) && !isTemplate(f) {
			all = append(all, f)
		}
	}
	return all
}

// gitCommand runs git in an environment of its own, with no configuration but
// the repository's, and without what that could make it run or fetch. What is
// read of a repository of another user is its objects: programs that its
// configuration names are for commands that are not used here.
func gitCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "git", append([]string{
		"--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never", "-c", "safe.directory=*", "-C", dir,
	}, args...)...)
	c.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=", "GIT_NO_REPLACE_OBJECTS=1",
	}
	c.WaitDelay = 5 * time.Second
	return c
}

// gitError is what a command of git says.
type gitError struct {
	err  error
	said string
}

// Error implements error.
func (e *gitError) Error() string { return fmt.Sprintf("git: %v: %s", e.err, e.said) }

// Unwrap is the end of the process.
func (e *gitError) Unwrap() error { return e.err }

// gitSaid is git's own message, on one line.
func gitSaid(err error) string {
	var g *gitError
	if errors.As(err, &g) && g.said != "" {
		return g.said
	}
	return err.Error()
}

// oneLine are the last lines of what a program has said.
func oneLine(said string) string {
	lines := strings.FieldsFunc(said, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines[max(0, len(lines)-2):], "; ")
}

func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	var said strings.Builder
	c := gitCommand(ctx, dir, args...)
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return nil, &gitError{err, oneLine(said.String())}
	}
	return out, nil
}

// asWritten gives, by definitionKey, how the file writes each value that has
// escapes: in its history it stands so, and nowhere as it is read.
func asWritten(src source, d dotenv.Dialect, vars []dotenv.Variable) map[string]string {
	f, err := dotenv.Parse(src.data, d)
	if err != nil {
		return nil
	}
	read := map[int]dotenv.Variable{}
	for _, v := range vars {
		read[v.Line] = v
	}
	out := map[string]string{}
	for _, st := range f.Statements {
		v, ok := read[st.Line]
		if !ok || v.Name != st.Name || len(v.Refs) > 0 {
			continue
		}
		_, text, _ := strings.Cut(string(src.data[st.Start:st.End]), "=")
		text = strings.TrimSpace(text)
		if text != "" && (text[0] == '"' || text[0] == '\'') {
			end := strings.LastIndexByte(text[1:], text[0])
			text = text[1 : 1+max(end, 0)]
		}
		if text != "" && !strings.Contains(text, v.Value) {
			out[definitionKey(src.path, st.Line, st.Name)] = text
		}
	}
	return out
}
