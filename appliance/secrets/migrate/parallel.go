package migrate

import (
	"context"
	"sort"
	"sync"

	"os"

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
	root    *os.Root
	dialect dotenv.Dialect
	mu      sync.Mutex
	kept    []cachedFile // newest last
	pinned  []cachedFile
}

type cachedFile struct {
	name string
	vars map[string]dotenv.Variable
	bad  []Problem
}

const keptFiles = 4

func (c *fileCache) get(name string) (map[string]dotenv.Variable, []Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range append(c.pinned[:len(c.pinned):len(c.pinned)], c.kept...) {
		if k.name == name {
			return k.vars, k.bad
		}
	}
	k := cachedFile{name: name}
	data, err := readRegular(c.root, name, dotenv.MaxSize)
	if err != nil {
		k.bad = []Problem{{File: name, Why: reason(err), Fatal: true}}
	} else {
		var vars []dotenv.Variable
		vars, k.bad = readEnv(source{name, data}, c.dialect)
		k.vars = map[string]dotenv.Variable{}
		for _, v := range vars {
			if v.Set {
				k.vars[v.Name] = v
			}
		}
	}
	if len(c.kept) == keptFiles {
		c.kept = append(c.kept[:0:0], c.kept[1:]...)
	}
	c.kept = append(c.kept, k)
	return k.vars, k.bad
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
	vars, bad := readEnv(source{k.name, k.data}, c.dialect)
	f := cachedFile{name: k.name, bad: bad, vars: map[string]dotenv.Variable{}}
	for _, v := range vars {
		if v.Set {
			f.vars[v.Name] = v
		}
	}
	c.pinned = append(c.pinned, f)
}
