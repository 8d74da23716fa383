package migrate

import (
	"cmp"
	"context"
	"strings"

	"strongroom.example/appliance/secrets/dotenv"
)

// carried takes for known what is new in its file and gone from another, where it is the
// same secret. It counts left down, by a finding's key.
func (b *Baseline) carried(c *Compared, left map[string]int, t Tree) {
	if t.Was == nil {
		return
	}
	fresh := c.Fresh
	c.Fresh = []Finding{}
	for _, f := range fresh {
		at := -1
		for i, k := range b.Findings {
			if left[k.key()] > 0 && (at < 0 || sameKey(k.Name, f.Name)) && t.Was(f, k) {
				at = i
			}
		}
		if at < 0 {
			c.Fresh = append(c.Fresh, f)
			continue
		}
		k := b.Findings[at]
		left[k.key()]--
		k.Count = 1
		c.Carried = append(c.Carried, Carried{f, k})
	}
}

func sameKey(a, b string) bool { return strings.EqualFold(lastKey(a), lastKey(b)) }

// before is a Tree's Was, by what git has of the files at a commit. What is read of them
// stays in memory.
func (r *Report) before(ctx context.Context, commit string) func(f Finding, k Known) bool {
	type held struct {
		known Known
		value string
	}
	files := map[string][]held{}
	look := func(file string) (out []held) {
		// With "./" it is relative to the folder and not to the repository.
		data, err := git(ctx, r.Root, "cat-file", "blob", commit+":./"+file)
		if err != nil {
			return nil // it was not there, or this is no repository
		}
		classifier, err := NewClassifier()
		if err != nil {
			return nil
		}
		dialect, err := dotenv.ParseDialect(cmp.Or(r.Dialects[file], r.Dialect))
		if err != nil {
			return nil
		}
		s := newScanner(ScanOptions{Compare: true, Dialect: dialect}, classifier)
		s.source(source{file, data})
		if err := s.envFiles(ctx); err != nil {
			return nil
		}
		for _, f := range s.report(r.Root, 1).Findings() {
			if value, there := s.values[definitionKey(f.File, f.Line, f.Name)]; there {
				out = append(out, held{f.known(), value})
			}
		}
		return out
	}
	return func(f Finding, k Known) bool {
		value, there := r.values[definitionKey(f.File, f.Line, f.Name)]
		if !there || !sameKey(f.Name, k.Name) && whyNotSearched(value) != "" {
			return false // a common value under another name is another secret
		}
		if _, looked := files[k.File]; !looked {
			files[k.File] = look(k.File)
		}
		for _, h := range files[k.File] {
			if h.value == value && h.known.key() == k.key() {
				return true
			}
		}
		return false
	}
}
