package audit

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/dirfs"
)

// seen is a name of the folder that is a log's, whatever it is.
type seen struct {
	logFile
	dirfs.Info
	birth time.Time
}

func lookAt(dir *dirfs.Dir) (map[string]*seen, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, fmt.Errorf("audit logs: %w", err)
	}
	out := map[string]*seen{}
	for _, name := range names {
		f, ok := parseName(name)
		if !ok {
			continue
		}
		info, err := dir.Lstat(name)
		if err == nil {
			s := &seen{logFile: f, Info: info}
			s.size, s.mod, s.mode = info.Size, info.ModTime, info.Mode
			if s.birth, err = dir.Birth(name); err == nil {
				out[name] = s
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("audit logs: %w", err)
		}
	}
	return out, nil
}

// same says that it is the file that it was: an inode's number may be another file's
// later, and then that file was made at another time.
func (k Kept) same(s *seen) bool {
	return s.Inode == k.Inode && (s.birth.Equal(k.Birth) || s.birth.IsZero() || k.Birth.IsZero())
}

// comparison is what one look has found.
type comparison struct {
	*watch
	ctx   context.Context
	l     Ledger
	there map[string]*seen

	files   []Kept
	losses  []Loss
	missing []absent
	// claimed are the files that are known by another name, or must wait.
	claimed map[string]bool
}

// absent is a log that Vault should write to.
type absent struct {
	name string
	odd  bool // there is something else in its place
}

func (a absent) text() string {
	if a.odd {
		return a.name + " is no plain file of Vault's: nothing that is written there is kept"
	}
	return a.name + " is not there: nobody sees what Vault writes to it"
}

// compare looks whether all that the ledger has is there, and holds what it did.
func (w *watch) compare(ctx context.Context, l Ledger) (*comparison, error) {
	there, err := lookAt(w.dir)
	if err != nil {
		return nil, err
	}
	c := &comparison{watch: w, ctx: ctx, l: l, there: there, claimed: map[string]bool{}}
	known := map[string]bool{}
	for _, k := range l.Files {
		known[k.Name] = true
	}
	for _, k := range l.Files {
		var err error
		if k.Live {
			err = c.live(k, known)
		} else {
			err = c.rotated(k)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := c.adopt(); err != nil {
		return nil, err
	}
	for _, name := range l.Logs {
		if s := there[name]; s == nil || !s.Plain {
			c.missing = append(c.missing, absent{name, s != nil})
		}
	}
	slices.SortFunc(c.files, func(a, b Kept) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

func (c *comparison) lost(k Kept, why Cause) {
	c.losses = append(c.losses, Loss{Name: k.Name, From: k.From, Until: k.Until, Cause: why, At: c.now})
}

func (c *comparison) keep(k Kept) {
	c.files = append(c.files, k)
	c.claimed[k.Name] = true
}

// live is a log that Vault was writing to: it may have grown, and it may have been rotated.
func (c *comparison) live(k Kept, known map[string]bool) error {
	s := c.there[k.Name]
	if s != nil && s.Plain && k.same(s) {
		return c.grown(k, s)
	}
	for _, name := range slices.Sorted(maps.Keys(c.there)) {
		r := c.there[name]
		if r.live() || r.gz || r.base != k.Name || known[name] || !r.Plain || !k.same(r) {
			continue
		}
		if s == nil {
			// Vault has not opened it anew yet, or will not: it may get its name back.
			c.files = append(c.files, k)
			c.claimed[name] = true
			return nil
		}
		return c.successor(k, r)
	}
	if s != nil && s.Plain && s.size >= k.Size {
		// Moved to another disk, with what it holds.
		if sum, _, err := c.sum(s.name, k.Summed, false); err != nil {
			return err
		} else if k.Sum != "" && sum == k.Sum {
			k.Inode, k.Birth = s.Inode, s.birth
			return c.grown(k, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.there)) {
		r := c.there[name]
		if !r.gz || r.base != k.Name || known[name] || !r.Plain {
			continue
		}
		sum, n, err := c.sum(name, k.Summed, true)
		if err != nil {
			return err
		}
		if sum == k.Sum && n >= k.Size {
			return c.accept(k, r)
		}
	}
	if k.Size == 0 {
		return nil // nothing is lost with it
	}
	why := Gone
	if s != nil {
		why = Replaced
	}
	for _, d := range c.deletions.Losses {
		if f, ok := parseName(d.Name); ok && f.base == k.Name && !d.At.Before(k.Until) {
			why = d.Cause
		}
	}
	c.lost(k, why)
	return nil
}

// grown is a log that is still the same file.
func (c *comparison) grown(k Kept, s *seen) error {
	if s.size < k.Size {
		c.lost(k, Cut)
		return c.take(s)
	}
	if s.size > k.Size {
		k.Until = c.now
	}
	k.Size, k.Changed = s.size, s.Changed
	if c.read || k.Sum == "" {
		// One reading: what was known of it, and all of it.
		sums, err := c.sums(s.name, k.Summed)
		if err != nil {
			return err
		}
		if k.Sum != "" && sums.first != k.Sum {
			c.lost(k, Changed)
			return c.take(s)
		}
		k.Sum, k.Summed = sums.all, sums.size
		k.Size = max(k.Size, sums.size)
	}
	c.keep(k)
	return nil
}

// successor is the file that a log of Vault's has become by rotation.
func (c *comparison) successor(k Kept, r *seen) error {
	sum, n, err := c.sum(r.name, k.Summed, false)
	if err != nil {
		return err
	}
	switch {
	case n < k.Size:
		c.lost(k, Cut)
	case sum != k.Sum:
		c.lost(k, Changed)
	}
	return c.accept(k, r)
}

// accept has r stand for what k was. Its times are those that were seen, whatever its name
// says.
func (c *comparison) accept(k Kept, r *seen) error {
	next, err := c.record(r)
	if err != nil {
		return err
	}
	next.From, next.Until = k.From, k.Until
	c.keep(next)
	return nil
}

// rotated is a log that nobody writes to any more.
func (c *comparison) rotated(k Kept) error {
	s := c.there[k.Name]
	switch {
	case s == nil:
		return c.absent(k)
	case s.Plain && k.same(s) && s.size == k.Size && s.Changed.Equal(k.Changed):
		if k.Sum == "" && c.left > 0 {
			return c.accept(k, s)
		}
		c.keep(k)
		return nil
	case s.Plain && s.size == k.Size && k.Sum != "":
		// Its mode was changed, or it was moved to another disk: what does it hold?
		sum, _, err := c.sum(s.name, k.Size, false)
		if err != nil {
			return err
		}
		if sum == k.Sum {
			k.Inode, k.Birth, k.Changed = s.Inode, s.birth, s.Changed
			c.keep(k)
			return nil
		}
	}
	switch {
	case !s.Plain || !k.same(s):
		c.lost(k, Replaced)
	case s.size < k.Size:
		c.lost(k, Cut)
	default:
		c.lost(k, Changed)
	}
	return c.take(s)
}

// absent is a rotated log without its name: compressed, too old, deleted for a reason, or
// gone.
func (c *comparison) absent(k Kept) error {
	if gz := c.there[k.Name+".gz"]; gz != nil && gz.Plain {
		sum, n, err := c.sum(gz.name, k.Size, true)
		if err != nil {
			return err
		}
		if (sum == k.Sum || k.Sum == "") && n == k.Size {
			if slices.ContainsFunc(c.l.Files, func(o Kept) bool { return o.Name == gz.name }) {
				return nil // it has its own row
			}
			return c.accept(k, gz)
		}
	}
	if !c.doubted && c.now.Sub(k.Until) > c.Keep {
		return nil
	}
	why := Gone
	for _, d := range c.deletions.Losses {
		if d.Name == k.Name || d.Name == k.Name+".gz" {
			why = d.Cause
		}
	}
	c.lost(k, why)
	return nil
}

// adopt takes in what is new. It was promised by nobody, and must stay from now on.
func (c *comparison) adopt() error {
	for _, name := range slices.Sorted(maps.Keys(c.there)) {
		s := c.there[name]
		raw, gz := strings.CutSuffix(name, ".gz")
		if c.claimed[name] || !s.Plain || gz && c.there[raw] != nil {
			continue
		}
		if err := c.take(s); err != nil {
			return err
		}
	}
	return nil
}

// take is of a file as it is now.
func (c *comparison) take(s *seen) error {
	c.claimed[s.name] = true
	if !s.Plain {
		return nil
	}
	k, err := c.record(s)
	if err != nil {
		return err
	}
	k.From, k.Until = sinceOf(c.dir, s.logFile), c.now
	if !s.live() && s.at.Before(c.now) {
		k.Until = s.at
	}
	c.keep(k)
	return nil
}

// record is what is known of a file by looking at it, and by reading it where there is room
// for that.
func (c *comparison) record(s *seen) (Kept, error) {
	k := Kept{Name: s.name, Live: s.live(), Inode: s.Inode, Birth: s.birth, Size: s.size, Changed: s.Changed}
	if !s.live() {
		if c.left <= 0 {
			return k, nil
		}
		c.left -= s.size
	}
	sums, err := c.sums(s.name, 0)
	if err != nil {
		return Kept{}, err
	}
	k.Sum, k.Summed = sums.all, sums.size
	return k, nil
}

// summed is what a reading gives.
type summed struct {
	first string // of the first n bytes
	all   string
	size  int64
}

// sum reads a log to its end: the SHA-256 of its first n bytes, and how many it has. What
// cannot be read as what it should be has none.
func (c *comparison) sum(name string, n int64, compressed bool) (string, int64, error) {
	s, err := c.sumUp(name, n, compressed)
	return s.first, s.size, err
}

func (c *comparison) sums(name string, n int64) (summed, error) { return c.sumUp(name, n, false) }

func (c *comparison) sumUp(name string, n int64, compressed bool) (summed, error) {
	f, err := c.dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, dirfs.ErrNotOurs) {
		return summed{}, nil // it has just gone: the next look tells
	}
	if err != nil {
		return summed{}, err
	}
	defer f.Close()
	var r io.Reader = ctxReader{c.ctx, f}
	if compressed {
		z, err := gzip.NewReader(r)
		if err != nil {
			return summed{}, c.ctx.Err()
		}
		r = z
	}
	all := sha256.New()
	first, err := io.Copy(all, io.LimitReader(r, n))
	out := summed{first: hexSum(all), size: first}
	if err == nil {
		var rest int64
		rest, err = io.Copy(all, r)
		out.size += rest
	}
	if err != nil {
		return summed{}, c.ctx.Err()
	}
	out.all = hexSum(all)
	return out, nil
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
