package migrate

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxBlob bounds a blob that is searched, in bytes.
	maxBlob = 16 << 20
	// maxRestarts bounds how often git is started again behind an object that it
	// cannot read.
	maxRestarts = 20
)

// object is the name of one, as hexadecimal digits.
type object struct {
	id   string
	size int64
}

// commitInfo is what is needed of a commit to know which comes first.
type commitInfo struct {
	id, tree string
	parents  []string
	when     int64 // of the committer, in seconds
	children []int
	waiting  int // parents that have not been visited
}

// search reads every object once, and then names for each value
// that it found the first commit that holds it.
func (h *historySearch) search(ctx context.Context, dir, what, at string) error {
	if h.needles.count() == 0 {
		return nil
	}
	deadline, cancel := context.WithDeadline(ctx, h.deadline)
	defer cancel()
	found, commits, err := h.objectsOf(deadline, dir, what)
	if err == nil {
		err = h.missing(deadline, dir, what)
	}
	if err == nil || deadline.Err() != nil {
		// What was found is named all the same, if it takes a minute more.
		naming, cancel := context.WithTimeout(ctx, max(time.Until(h.deadline), time.Minute))
		defer cancel()
		h.name(naming, dir, at, found, commits)
		h.aside(naming, dir, at)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && deadline.Err() == nil {
		h.note("%s was not searched to its end: %s", what, gitSaid(err))
	}
	return nil
}

// objectsOf gives the keys of the values that each object holds.
func (h *historySearch) objectsOf(ctx context.Context, dir, what string) (map[string][]string, []commitInfo, error) {
	found := map[string][]string{}
	todo, large, unread, err := listObjects(ctx, dir)
	if err != nil {
		if ctx.Err() != nil {
			h.note("%s was not searched: the limit of %v was reached before; --history-limit gives it longer", what, h.limit)
		}
		return found, nil, err
	}
	if large > 0 {
		h.note("%s holds %d files of more than %d MiB, which were not searched", what, large, maxBlob>>20)
	}
	p := HistoryProgress{AllObjects: len(todo)}
	for _, o := range todo {
		p.AllBytes += o.size
	}
	var commits []commitInfo
	notInto := 0
	for restarts := 0; len(todo) > 0; restarts++ {
		n, err := readObjects(ctx, dir, todo, func(kind, id string, data []byte) {
			keys := h.needles.keysIn(data)
			if kind == "blob" && unpacked(data, func(plain []byte) { keys = append(keys, h.needles.keysIn(plain)...) }) != "" {
				notInto++
			}
			if keys != nil {
				found[id] = keys
			}
			if kind == "commit" {
				commits = append(commits, parseCommit(id, data))
			}
			h.objects++
			p.Objects++
			p.Bytes += int64(len(data))
			if h.progress != nil {
				h.progress(p)
			}
		})
		todo = todo[n:]
		if ctx.Err() != nil {
			h.note("the search of %s stopped after %v, its limit: %d of %d objects were searched, the newest first; --history-limit gives it longer", what, h.limit, p.Objects, p.AllObjects)
			return found, commits, ctx.Err()
		}
		if err == nil {
			break
		}
		if n == 0 && len(todo) > 0 {
			unread++
			todo = todo[1:] // git has ended at this one
		}
		if restarts == maxRestarts {
			return found, commits, err
		}
	}
	if notInto > 0 {
		h.note("%s holds %d compressed files that were not looked into, or not to their end", what, notInto)
	}
	if unread > 0 {
		h.note("%s has %d objects that git cannot read: they were not searched", what, unread)
	}
	return found, commits, nil
}

// listObjects are all objects that are here, as they lie in their packs, the
// newest first: trees have the names of files; large is how many are too large to be searched, unread
// how many git cannot read.
func listObjects(ctx context.Context, dir string) (todo []object, large, unread int, err error) {
	out, err := git(ctx, dir, "cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objecttype) %(objectname) %(objectsize)")
	if err != nil {
		return nil, 0, 0, err
	}
	for l := range strings.Lines(string(out)) {
		f := strings.Fields(l)
		if len(f) == 2 && f[1] == "missing" {
			unread++
		}
		if len(f) != 3 {
			continue
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		switch {
		case err != nil || size < 0:
			return nil, 0, 0, fmt.Errorf("unexpected size %q from git cat-file", f[2])
		case size > maxBlob:
			large++
		default:
			todo = append(todo, object{f[1], size})
		}
	}
	return todo, large, unread, nil
}

// readObjects hands each object to visit, which must not keep data. It gives how
// many it has gone through.
func readObjects(ctx context.Context, dir string, todo []object, visit func(kind, id string, data []byte)) (done int, err error) {
	b, err := startBatch(ctx, dir, "--buffer")
	if err != nil {
		return 0, err
	}
	go func() {
		w := bufio.NewWriter(b.in)
		for _, o := range todo {
			if _, err := w.WriteString(o.id + "\n"); err != nil {
				break // git has ended, which the reader sees
			}
		}
		_ = w.Flush()
		_ = b.in.Close()
	}()
	for _, o := range todo {
		kind, data, err := b.next(o.id)
		if err != nil {
			return done, errors.Join(err, b.close())
		}
		if kind != "" {
			visit(kind, o.id, data)
		}
		done++
	}
	return done, b.close()
}

// batch is a git cat-file --batch that runs.
type batch struct {
	c    *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	buf  []byte
	said bytes.Buffer
	stop context.CancelFunc
}

func startBatch(ctx context.Context, dir string, flags ...string) (*batch, error) {
	ctx, stop := context.WithCancel(ctx)
	b := &batch{c: gitCommand(ctx, dir, append([]string{"cat-file", "--batch"}, flags...)...), stop: stop}
	b.c.Stderr = &b.said
	var err error
	if b.in, err = b.c.StdinPipe(); err != nil {
		stop()
		return nil, fmt.Errorf("git: %w", err)
	}
	out, err := b.c.StdoutPipe()
	if err != nil {
		stop()
		return nil, fmt.Errorf("git: %w", err)
	}
	b.out = bufio.NewReaderSize(out, 1<<16)
	if err := b.c.Start(); err != nil {
		stop()
		return nil, fmt.Errorf("git: %w", err)
	}
	return b, nil
}

// next reads the answer for one object; kind is empty if it is not here. The
// data is good until the next call.
func (b *batch) next(id string) (kind string, data []byte, err error) {
	header, err := b.out.ReadString('\n')
	if err != nil {
		return "", nil, fmt.Errorf("git cat-file ended: %w", err)
	}
	f := strings.Fields(header)
	if len(f) == 2 && f[1] == "missing" {
		return "", nil, nil
	}
	if len(f) != 3 || f[0] != id {
		return "", nil, fmt.Errorf("unexpected answer of %d words from git cat-file", len(f))
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || size < 0 || size > maxTree {
		return "", nil, fmt.Errorf("unexpected size %q from git cat-file", f[2])
	}
	if int64(cap(b.buf)) < size+1 {
		b.buf = make([]byte, size+1)
	}
	b.buf = b.buf[:size+1]
	if _, err := io.ReadFull(b.out, b.buf); err != nil {
		return "", nil, fmt.Errorf("git cat-file ended: %w", err)
	}
	return f[1], b.buf[:size], nil
}

// maxTree bounds what is believed of an object's size, in bytes.
const maxTree = 256 << 20

// close ends git, whatever it is doing.
func (b *batch) close() error {
	_ = b.in.Close()
	b.stop()
	err := b.c.Wait()
	if said := oneLine(b.said.String()); err != nil && said != "" {
		return &gitError{err, said}
	}
	return nil
}

// missing says what the history needs and this repository does not have.
func (h *historySearch) missing(ctx context.Context, dir, what string) error {
	out, err := git(ctx, dir, "rev-list", "--objects", "--no-object-names", "--missing=print", "--all", "--reflog")
	switch {
	case ctx.Err() != nil:
		h.note("whether %s is whole was not looked at: the limit of %v was reached", what, h.limit)
		return ctx.Err()
	case err != nil:
		h.note("%s is not whole: %s; what is missing was not searched", what, gitSaid(err))
		return nil
	}
	n := 0
	for l := range strings.Lines(string(out)) {
		if l[0] == '?' {
			n++
		}
	}
	if n > 0 {
		h.note("%s lacks %d objects of its history: they were not searched", what, n)
	}
	return nil
}

// parseCommit reads the head of a commit.
// Source: https://git-scm.com/docs/user-manual#commit-object
func parseCommit(id string, data []byte) commitInfo {
	c := commitInfo{id: id}
	for l := range bytes.Lines(data) {
		key, value, ok := strings.Cut(strings.TrimSuffix(string(l), "\n"), " ")
		if !ok {
			break
		}
		switch key {
		case "tree":
			c.tree = value
		case "parent":
			c.parents = append(c.parents, value)
		case "committer":
			if f := strings.Fields(value); len(f) >= 2 {
				c.when, _ = strconv.ParseInt(f[len(f)-2], 10, 64) // a commit without a time comes first
			}
		}
	}
	return c
}

// name finds the first commit that holds each value: in its tree, or in its
// message. Each tree is read once, since what an older commit holds is that
// one's.
func (h *historySearch) name(ctx context.Context, dir, at string, found map[string][]string, commits []commitInfo) {
	open := map[string]bool{}
	for _, keys := range found {
		for _, k := range keys {
			open[k] = h.first[k] == ""
		}
	}
	left := 0
	for _, is := range open {
		if is {
			left++
		}
	}
	if left == 0 {
		return
	}
	b, err := startBatch(ctx, dir)
	if err != nil {
		h.note("which commits hold the values is not known: %s", gitSaid(err))
		return
	}
	defer func() { _ = b.close() }()
	prefix := prefixOf(at)
	seen := map[string]bool{}
	inTree := map[string]bool{} // objects that a commit has brought in
	hit := func(id, where string) {
		keys := found[id]
		for _, k := range keys {
			if open[k] {
				open[k] = false
				left--
				h.first[k] = prefix + where
			}
		}
		if keys != nil {
			inTree[id] = true
		}
	}
	for _, c := range inOrder(commits) {
		if left == 0 {
			return
		}
		short := c.id[:min(12, len(c.id))]
		trees := []string{c.tree}
		for len(trees) > 0 && left > 0 {
			id := trees[len(trees)-1]
			trees = trees[:len(trees)-1]
			if id == "" || seen[id] {
				continue
			}
			seen[id] = true
			if _, err := b.in.Write([]byte(id + "\n")); err != nil {
				h.note("not every commit could be looked at: git has ended")
				return
			}
			kind, data, err := b.next(id)
			if err != nil {
				h.note("not every commit could be looked at: %s", gitSaid(errors.Join(err, b.close())))
				return
			}
			if kind != "tree" {
				continue // missing
			}
			hit(id, short)
			treeEntries(data, len(id)/2, func(tree bool, child string) {
				if tree {
					trees = append(trees, child)
				} else {
					hit(child, short)
				}
			})
		}
		hit(c.id, short)
	}
	// What is in no commit: staged once, or a note of a tag.
	for _, id := range sortedKeys(found) {
		if !inTree[id] {
			hit(id, "object-"+id[:min(12, len(id))])
		}
	}
}

// prefixOf a place in the repository at at, empty for the one that holds the tree.
func prefixOf(at string) string {
	if at == "" {
		return ""
	}
	return at + "@"
}

// aside looks into what git keeps beside its objects. A name of a branch is the
// place where it is found, so that is not printed.
func (h *historySearch) aside(ctx context.Context, dir, at string) {
	for _, a := range []struct {
		where string
		args  []string
	}{
		{"refs", []string{"for-each-ref", "--format=%(refname)%0a%(symref)"}},
		{"reflog", []string{"log", "--walk-reflogs", "--all", "--format=%gs"}},
	} {
		out, err := git(ctx, dir, a.args...)
		if err != nil {
			continue // there is no branch yet, or what is wrong was said before
		}
		for _, k := range h.needles.keysIn(out) {
			if h.first[k] == "" {
				h.first[k] = prefixOf(at) + a.where
			}
		}
	}
}

// treeEntries visits the trees and files of a tree; idLen is 20 bytes, or 32.
func treeEntries(data []byte, idLen int, visit func(tree bool, id string)) {
	for len(data) > 0 {
		space, end := bytes.IndexByte(data, ' '), bytes.IndexByte(data, 0)
		if space < 0 || end < space || len(data) < end+1+idLen {
			return // damaged
		}
		mode, id := string(data[:space]), hex.EncodeToString(data[end+1:end+1+idLen])
		data = data[end+1+idLen:]
		if mode != "160000" { // a submodule's commit is not here
			visit(strings.HasPrefix(mode, "4"), id)
		}
	}
}

// inOrder puts parents before their children, and else the older one first.
// Without the commits that a shallow clone lacks, its edge has no parents.
func inOrder(commits []commitInfo) []commitInfo {
	slices.SortFunc(commits, func(a, b commitInfo) int { return strings.Compare(a.id, b.id) })
	index := map[string]int{}
	for i, c := range commits {
		index[c.id] = i
	}
	ready := &byTime{all: commits}
	for i := range commits {
		for _, p := range commits[i].parents {
			if j, ok := index[p]; ok {
				commits[j].children = append(commits[j].children, i)
				commits[i].waiting++
			}
		}
	}
	for i := range commits {
		if commits[i].waiting == 0 {
			heap.Push(ready, i)
		}
	}
	out := make([]commitInfo, 0, len(commits))
	for ready.Len() > 0 {
		i := heap.Pop(ready).(int)
		out = append(out, commits[i])
		for _, c := range commits[i].children {
			if commits[c].waiting--; commits[c].waiting == 0 {
				heap.Push(ready, c)
			}
		}
	}
	return out
}

// byTime is a heap of commits by the time of their committers.
type byTime struct {
	all   []commitInfo
	index []int
}

// Len implements heap.Interface.
func (h *byTime) Len() int { return len(h.index) }

// Less implements heap.Interface.
func (h *byTime) Less(i, j int) bool {
	a, b := h.all[h.index[i]], h.all[h.index[j]]
	return a.when < b.when || a.when == b.when && a.id < b.id
}

// Swap implements heap.Interface.
func (h *byTime) Swap(i, j int) { h.index[i], h.index[j] = h.index[j], h.index[i] }

// Push implements heap.Interface.
func (h *byTime) Push(x any) { h.index = append(h.index, x.(int)) }

// Pop implements heap.Interface.
func (h *byTime) Pop() any {
	last := h.index[len(h.index)-1]
	h.index = h.index[:len(h.index)-1]
	return last
}
