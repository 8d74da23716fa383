package audit

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/dirfs"
	"strongroom.example/appliance/base/statefile"
)

// Cause is why a part of the history went before its time.
type Cause string

// The causes. The first two are the job's own deeds.
const (
	ForSize  Cause = "keep_mb"   // the rotated logs were more than keep_mb in sum
	ForDisk  Cause = "disk"      // the disk was full
	Gone     Cause = "gone"      // somebody else has deleted or moved it
	Replaced Cause = "replaced"  // another file has its name
	Cut      Cause = "truncated" // it is shorter than it was
	Changed  Cause = "changed"   // it holds something else than it did
	NoLedger Cause = "no ledger" // what there was before is not known any more
)

// words of it, after the name of the file.
func (c Cause) words() string {
	switch c {
	case ForSize:
		return "was deleted before its time, as the rotated logs were more than keep_mb"
	case ForDisk:
		return "was deleted before its time, as the disk was full"
	case Gone:
		return "is gone, and audit rotate has not deleted it"
	case Replaced:
		return "is another file than it was"
	case Cut:
		return "is shorter than it was"
	case Changed:
		return "holds something else than it did"
	case NoLedger:
		return "could not be read, or was not there: what there was of logs before is not known"
	}
	return string(c)
}

// Loss is a part of the history that went before its time.
type Loss struct {
	Name string `json:"name"` // of the file
	// From and Until are when its first and its last entry were written, as far as
	// anybody knows.
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until,omitzero"`
	Cause Cause     `json:"cause"`
	At    time.Time `json:"at"` // when it went, or was missed
	// Told says that somebody was told.
	Told bool `json:"told,omitempty"`
}

// Span is what was lost, in words.
func (l Loss) Span() string {
	const form = "2 Jan 2006 15:04 UTC"
	switch {
	case l.Until.IsZero():
		return "an unknown time"
	case l.From.IsZero():
		return "all before " + l.Until.UTC().Format(form)
	}
	return l.From.UTC().Format(form) + " to " + l.Until.UTC().Format(form)
}

// String is the whole of it for people.
func (l Loss) String() string {
	return fmt.Sprintf("%s %s; lost is %s", l.Name, l.Cause.words(), l.Span())
}

const (
	deletionsFile   = "deletions.json"
	deletionsFormat = 1
	// maxLosses bounds what is remembered; the count goes on.
	maxLosses = 1000
)

// Deletions are what Rotate deletes before its time, each written down before it is
// done: one that is killed afterwards has said whose deed it was.
type Deletions struct {
	Format int `json:"format"`
	// Total counts them, ever.
	Total  int64  `json:"total"`
	Losses []Loss `json:"losses"`
}

// LoadDeletions reads them from Rotate's state folder; there may be none.
func LoadDeletions(dir string) (Deletions, error) {
	var d Deletions
	err := statefile.Load(filepath.Join(dir, deletionsFile), deletionsFormat, &d)
	if errors.Is(err, statefile.ErrNone) {
		err = nil
	}
	d.Format = deletionsFormat
	return d, err
}

// loadDeletions takes back what was written down and not done: of a file that is still
// there nothing is lost. A spoilt file is told of once, and the count begins anew from
// the last report's.
func (r *run) loadDeletions() error {
	var spoilt error
	r.deletions, spoilt = LoadDeletions(r.StateDir)
	if r.deletions.Total == 0 {
		// Of a version that counted in the report alone, or spoilt.
		if before, err := LoadReport(r.StateDir); err == nil {
			r.deletions.Total = before.DeletedEarlyTotal
		}
	}
	r.deletions.Losses = slices.DeleteFunc(r.deletions.Losses, func(l Loss) bool {
		if l.Told {
			return !r.doubted && r.now.Sub(l.At) > r.Policy.Keep
		}
		_, err := r.dir.Lstat(l.Name)
		if err == nil {
			r.deletions.Total--
		}
		return err == nil
	})
	return spoilt
}

// deleteEarly deletes a log before its time. The write before it is the commit point: a
// deletion is never unknown.
func (r *run) deleteEarly(f logFile, why Cause) error {
	r.deletions.Losses = append(r.deletions.Losses, Loss{Name: f.name, From: sinceOf(r.dir, f), Until: f.at, Cause: why, At: r.now})
	r.deletions.Total++
	if n := len(r.deletions.Losses); n > maxLosses {
		r.deletions.Losses = r.deletions.Losses[n-maxLosses:]
	}
	if err := r.saveDeletions(); err != nil {
		return fmt.Errorf("delete %q: note it down before: %w", r.path(f.name), err)
	}
	if err := r.delete(f); err != nil {
		return err
	}
	r.early = append(r.early, f.name)
	return nil
}

func (r *run) saveDeletions() error {
	return r.save(filepath.Join(r.StateDir, deletionsFile), r.deletions, 0o640)
}

// lost are the deletions that were not told of yet, by this run and those before it.
func (r *run) lost() []Loss {
	var out []Loss
	for _, l := range r.deletions.Losses {
		if _, err := r.dir.Lstat(l.Name); !l.Told && errors.Is(err, fs.ErrNotExist) {
			out = append(out, l)
		}
	}
	return out
}

// told marks them as told, once somebody was.
func (r *run) told(lost []Loss) error {
	if len(lost) == 0 {
		return nil
	}
	for n, l := range r.deletions.Losses {
		r.deletions.Losses[n].Told = l.Told || slices.Contains(lost, l)
	}
	return r.saveDeletions()
}

// sinceOf is the time of the first entry of a log, compressed or not; zero where that
// can't be told.
func sinceOf(dir *dirfs.Dir, f logFile) time.Time {
	file, err := dir.Open(f.name)
	if err != nil {
		return time.Time{}
	}
	defer file.Close()
	if !strings.HasSuffix(f.name, ".gz") {
		return firstTime(file, time.Time{}).UTC()
	}
	z, err := gzip.NewReader(file)
	if err != nil {
		return time.Time{}
	}
	return firstTime(z, time.Time{}).UTC()
}
