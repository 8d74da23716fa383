package migrate

import (
	"context"
	"errors"
	"os"
	"sort"
	"sync"

	"strongroom.example/appliance/secrets/dotenv"
)

// parallel runs each for every item, n at a time. The first error stops what
// has not begun; it gives that error.
func parallel[T any](ctx context.Context, items []T, n int, each func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan T)
	var wg sync.WaitGroup
	for range min(n, len(items)) {
		wg.Go(func() {
			for item := range next {
				if err := each(ctx, item); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
feed:
	for _, item := range items {
		select {
		case next <- item:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// fileCache keeps the variables of the last few .env files, so that memory does
// not grow with their number.
type fileCache struct {
	root   *os.Root
	plan   *Plan  // which dialect each file has
	other  []byte // what another store has printed; nil for nothing
	mu     sync.Mutex
	kept   []cachedFile // newest last
	pinned []cachedFile
}

type cachedFile struct {
	name string
	vars map[string]dotenv.Variable
	bad  []Problem
	// missing says that there is no such file.
	missing bool
}

const keptFiles = 4

// read gives a file of the tree, or what another store has printed.
func (c *fileCache) read(name string) ([]byte, error) {
	switch {
	case name != OtherStore:
		return readRegular(c.root, name, dotenv.MaxSize)
	case len(c.other) == 0:
		return nil, os.ErrNotExist
	}
	return c.other, nil
}

// dialect of a file. The plan was checked when the job began.
func (c *fileCache) dialect(name string) dotenv.Dialect {
	d, err := c.plan.DialectOf(name)
	if err != nil {
		return dotenv.Python
	}
	return d
}

func (c *fileCache) get(name string) (map[string]dotenv.Variable, []Problem) {
	k := c.file(name)
	return k.vars, k.bad
}

func (c *fileCache) missing(name string) bool { return c.file(name).missing }

func (c *fileCache) file(name string) cachedFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range append(c.pinned[:len(c.pinned):len(c.pinned)], c.kept...) {
		if k.name == name {
			return k
		}
	}
	k := cachedFile{name: name}
	data, err := c.read(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		k.missing = true // and so has no variable
	case err != nil:
		k.bad = []Problem{{File: name, Why: reason(err), Fatal: true}}
	default:
		k = readCached(name, data, c.dialect(name))
	}
	if len(c.kept) == keptFiles {
		c.kept = append(c.kept[:0:0], c.kept[1:]...)
	}
	c.kept = append(c.kept, k)
	return k
}

func sortProblems(p []Problem) {
	sort.Slice(p, func(i, j int) bool {
		if p[i].File != p[j].File {
			return p[i].File < p[j].File
		}
		if p[i].Line != p[j].Line {
			return p[i].Line < p[j].Line
		}
		return p[i].Why < p[j].Why
	})
}

// put makes the cache give a file as it was.
func (c *fileCache) put(k kept) {
	c.pinned = append(c.pinned, readCached(k.name, k.data, k.dialect))
}

func readCached(name string, data []byte, d dotenv.Dialect) cachedFile {
	vars, bad := readEnv(source{name, data}, d)
	f := cachedFile{name: name, bad: bad, vars: map[string]dotenv.Variable{}}
	for _, v := range vars {
		if v.Set {
			f.vars[v.Name] = v
		}
	}
	return f
}
