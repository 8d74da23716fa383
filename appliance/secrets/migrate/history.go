package migrate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"strongroom.example/appliance/secrets/dotenv"
)

// minSearched is the shortest value that is looked for in history, in bytes:
// what is shorter stands everywhere.
const minSearched = 8

// maxBlob bounds a blob that is searched, in bytes.
const maxBlob = 16 << 20

// maxCommits is how many commits of one value are worth naming.
const maxCommits = 3

// history looks for the secrets in every object that git keeps, reachable from
// any ref or reflog: stashes and abandoned branches are history as well. The
// values stay in this process: none is an argument of git.
func (s *scanner) history(ctx context.Context, dir string, r *Report) error {
	if _, err := git(ctx, dir, "rev-parse", "--is-inside-work-tree"); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			r.History = "not looked at: git is not installed"
			return nil
		}
		r.History = "not looked at: no git repository"
		return nil
	}
	tracked, err := git(ctx, dir, "ls-files", "-z")
	if err != nil {
		return err
	}
	for f := range strings.SplitSeq(string(tracked), "\x00") {
		if isEnvFile(f) && !isTemplate(f) {
			r.Tracked = append(r.Tracked, f)
		}
	}
	n := newNeedles()
	for key, value := range s.values {
		n.add(key, value)
		if w := s.written[key]; len(w) >= minSearched && len(value) >= minSearched {
			n.put(key, w)
		}
	}
	blobs, found, err := searchObjects(ctx, dir, n)
	if err != nil {
		return err
	}
	commits := map[string][]string{}
	for i := range r.Variables {
		v := &r.Variables[i]
		for j := range v.Definitions {
			d := &v.Definitions[j]
			for _, blob := range found[definitionKey(d.File, d.Line, v.Name)] {
				if _, ok := commits[blob]; !ok {
					if commits[blob], err = commitsOf(ctx, dir, blob); err != nil {
						return err
					}
				}
				for _, c := range commits[blob] {
					if len(d.InHistory) < maxCommits && !slices.Contains(d.InHistory, c) {
						d.InHistory = append(d.InHistory, c)
					}
				}
			}
		}
	}
	r.History = fmt.Sprintf("%d objects searched for %d values", blobs, n.count)
	if n.short > 0 {
		r.History += fmt.Sprintf("; too short to search for (under %d bytes): %d", minSearched, n.short)
	}
	return nil
}

// gitCommand keeps the repository's own configuration from running programs.
func gitCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "git", append([]string{"-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C", dir}, args...)...)
	c.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_NO_LAZY_FETCH=1", "LC_ALL=C")
	return c
}

func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	var errOut bytes.Buffer
	c := gitCommand(ctx, dir, args...)
	c.Stderr = &errOut
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(errOut.String()))
	}
	return out, nil
}

// searchObjects reads every blob once and gives those that hold a needle.
func searchObjects(ctx context.Context, dir string, n *needles) (blobs int, found map[string][]string, err error) {
	found = map[string][]string{}
	if n.count == 0 {
		return 0, found, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list := gitCommand(ctx, dir, "rev-list", "--objects", "--no-object-names", "--all", "--reflog")
	cat := gitCommand(ctx, dir, "cat-file", "--batch", "--buffer")
	var listErr, catErr bytes.Buffer
	list.Stderr, cat.Stderr = &listErr, &catErr
	if cat.Stdin, err = list.StdoutPipe(); err != nil {
		return 0, nil, fmt.Errorf("git history: %w", err)
	}
	out, err := cat.StdoutPipe()
	if err != nil {
		return 0, nil, fmt.Errorf("git history: %w", err)
	}
	if err := list.Start(); err != nil {
		return 0, nil, fmt.Errorf("git history: %w", err)
	}
	if err := cat.Start(); err != nil {
		cancel()
		return 0, nil, errors.Join(fmt.Errorf("git history: %w", err), list.Wait())
	}
	blobs, err = readBatch(bufio.NewReaderSize(out, 1<<16), n, found)
	if err != nil {
		cancel() // neither waits for a reader that is gone
	}
	waited := errors.Join(list.Wait(), cat.Wait())
	if err == nil && waited != nil {
		err = fmt.Errorf("git history: %w: %s%s", waited, strings.TrimSpace(listErr.String()), strings.TrimSpace(catErr.String()))
	}
	return blobs, found, err
}

// readBatch reads the output of git cat-file --batch.
func readBatch(r *bufio.Reader, n *needles, found map[string][]string) (blobs int, err error) {
	var buf []byte
	for {
		header, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) && header == "" {
			return blobs, nil
		}
		if err != nil {
			return blobs, fmt.Errorf("git history: %w", err)
		}
		f := strings.Fields(header)
		if len(f) == 2 && f[1] == "missing" {
			continue // a shallow or partial clone
		}
		if len(f) != 3 {
			return blobs, fmt.Errorf("git history: unexpected line %q from git cat-file", strings.TrimSpace(header))
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil || size < 0 {
			return blobs, fmt.Errorf("git history: unexpected size %q from git cat-file", f[2])
		}
		if f[1] == "tree" || size > maxBlob {
			if _, err := io.CopyN(io.Discard, r, size+1); err != nil {
				return blobs, fmt.Errorf("git history: %w", err)
			}
			continue
		}
		if int64(cap(buf)) < size+1 {
			buf = make([]byte, size+1)
		}
		buf = buf[:size+1]
		if _, err := io.ReadFull(r, buf); err != nil {
			return blobs, fmt.Errorf("git history: %w", err)
		}
		blobs++
		for _, key := range n.in(buf[:size]) {
			found[key] = append(found[key], f[0])
		}
	}
}

// commitsOf are the commits that brought an object in, oldest first. A commit
// whose message holds the value is its own answer.
func commitsOf(ctx context.Context, dir, object string) ([]string, error) {
	out, err := git(ctx, dir, "log", "--all", "--reflog", "--reverse", "--format=%h", "--find-object="+object)
	if err != nil {
		return nil, err
	}
	commits := strings.Fields(string(out))
	if len(commits) == 0 {
		commits = []string{object[:min(12, len(object))]}
	}
	return commits, nil
}

// needles finds many values in one pass: the first bytes of each are looked up
// at every position.
type needles struct {
	byHead map[[minSearched]byte][]needle
	filter [1 << 16]bool // by the first two bytes
	count  int
	short  int
}

type needle struct {
	key   string
	value []byte
}

func newNeedles() *needles { return &needles{byHead: map[[minSearched]byte][]needle{}} }

func (n *needles) add(key, value string) {
	if len(value) < minSearched {
		n.short++
		return
	}
	n.put(key, value)
	n.count++
}

func (n *needles) put(key, value string) {
	v := []byte(value)
	head := [minSearched]byte(v)
	n.byHead[head] = append(n.byHead[head], needle{key, v})
	n.filter[int(v[0])<<8|int(v[1])] = true
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

// in gives the keys of the values that stand in data, each once.
func (n *needles) in(data []byte) []string {
	var keys []string
	for i := 0; i+minSearched <= len(data); i++ {
		if !n.filter[int(data[i])<<8|int(data[i+1])] {
			continue
		}
		for _, c := range n.byHead[[minSearched]byte(data[i:])] {
			if bytes.HasPrefix(data[i:], c.value) && !slices.Contains(keys, c.key) {
				keys = append(keys, c.key)
			}
		}
	}
	return keys
}
