package migrate

import (
	"cmp"
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is what a comparison with a baseline asks of the tree beside the findings.
type Tree struct {
	// Has says whether a file is there.
	Has func(file string) bool
	// Renamed are files by their names of today, with those of before, as git sees it.
	Renamed map[string]string
	// Was says whether a finding's value is that of one in the baseline when it was made,
	// as git sees it.
	Was func(f Finding, k Known) bool
}

// Tree is that of the report, of which baseline is a file. Git is asked what was renamed
// since the baseline was last committed, up to what is to be committed, and what stood in a
// file then: it has the contents, so that nothing of them needs to be noted. It runs no
// filter of the tree's.
func (r *Report) Tree(ctx context.Context, baseline string) Tree {
	dir := r.Root
	t := Tree{Renamed: map[string]string{}, Has: func(file string) bool {
		_, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(file)))
		return err == nil
	}}
	since := "HEAD"
	if full, err := filepath.Abs(baseline); err == nil && baseline != "" {
		if out, err := git(ctx, dir, "log", "-1", "--format=%H", "--", full); err == nil && len(out) > 1 {
			since = strings.TrimSpace(string(out))
		}
	}
	t.Was = r.before(ctx, since)
	out, err := git(ctx, dir, "diff", "--cached", "--no-ext-diff", "--no-textconv", "--relative", "-M", "--diff-filter=R", "--name-status", "-z", since)
	if err != nil {
		return t
	}
	fields := strings.Split(string(out), "\x00")
	for i := 0; i+2 < len(fields); i += 3 {
		t.Renamed[fields[i+2]] = fields[i+1]
	}
	return t
}

// moved finds out which file of the baseline a new one is: by git, or else by what is in
// it. A file that is still there was not moved, and one that the baseline knows is itself.
func (b *Baseline) moved(all []Finding, t Tree) map[string]string {
	known, now := map[string]map[string]int{}, map[string]map[string]int{}
	count := func(in map[string]map[string]int, k Known) {
		if in[k.File] == nil {
			in[k.File] = map[string]int{}
		}
		in[k.File][k.Name+"\x00"+k.Rule] += k.Count
	}
	for _, k := range b.Findings {
		count(known, k)
	}
	for _, f := range all {
		if k := f.known(); known[k.File] == nil {
			count(now, k)
		}
	}
	type pair struct {
		from, to string
		byGit    bool
		end      int // components of the paths' ends that are the same
		alike    int
	}
	var pairs []pair
	for from := range known {
		if t.Has(from) {
			continue
		}
		for to := range now {
			p := pair{from: from, to: to, byGit: t.Renamed[to] == from, end: commonEnd(from, to)}
			all := true
			for what, n := range known[from] {
				p.alike += min(n, now[to][what])
				all = all && now[to][what] >= n
			}
			// A new name in the same folder: all that was known, in a file of the same kind.
			renamed := all && path.Dir(from) == path.Dir(to) && path.Ext(from) == path.Ext(to)
			if p.byGit || p.end > 0 && p.alike > 0 || renamed {
				pairs = append(pairs, p)
			}
		}
	}
	rank := map[bool]int{true: 0, false: 1}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(rank[a.byGit], rank[b.byGit]), cmp.Compare(b.end, a.end), cmp.Compare(b.alike, a.alike), strings.Compare(a.from, b.from), strings.Compare(a.to, b.to))
	})
	out, taken := map[string]string{}, map[string]bool{}
	for _, p := range pairs {
		if out[p.to] == "" && !taken[p.from] {
			out[p.to], taken[p.from] = p.from, true
		}
	}
	return out
}
