package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"strongroom.example/appliance/base/dirfs"
	"strongroom.example/appliance/base/statefile"
)

// Sentinels of Rotate.
var (
	// ErrNotRunning is what Options.Signal answers when there is no Vault: then
	// nobody holds a log open.
	ErrNotRunning = errors.New("vault is not running")
	// ErrNotReopened: Vault was asked and did not open its log again in time.
	ErrNotReopened = errors.New("vault did not open its log again")
	// ErrExecutable: a log may be executed, which keeps Vault from unsealing.
	ErrExecutable = errors.New("the audit log is executable")
)

// DefaultWait is how long Vault has to open its logs again.
const DefaultWait = 10 * time.Second

// idle is how long a log was not written that nobody needs to open again: a
// sealed or standby Vault has its audit devices closed.
const idle = 10 * time.Minute

// Policy says when to rotate and what to keep.
type Policy struct {
	Size      int64         // bytes at which a log is rotated
	Age       time.Duration // of the first entry at which a log is rotated
	Keep      time.Duration // how long rotated logs stay
	KeepBytes int64         // how much they may be in sum
	// Warn and Full are percents of the disk in use: at Warn there is a
	// warning, at Full the oldest compressed logs are deleted.
	Warn, Full float64
}

// Options is what Rotate needs.
type Options struct {
	// Dir holds the logs, and what is rotated.
	Dir    string
	Policy Policy
	// Signal asks Vault to open its logs again, or answers ErrNotRunning.
	Signal func(ctx context.Context) error
	// StateDir holds the lock and the state file. It must exist.
	StateDir string
	// Force rotates every log that is not empty.
	Force bool
	// Doubt says why the clock is not to be believed: then nothing is too old. May be nil.
	Doubt func() error
	// Tell is called with what was deleted before its time and not told of yet. What it
	// was called with is not told again. May be nil: then whoever gets the report tells.
	Tell func([]Loss)

	Wait time.Duration    // DefaultWait when zero
	Now  func() time.Time // time.Now when nil
	// Usage of the disk that a folder is on; Statfs when nil.
	Usage func(dir string) (Usage, error)

	// files gives what the folder is changed by; the real ones when nil.
	files func(*dirfs.Dir) files
	// save writes a state file; statefile.Save when nil.
	save func(path string, v any, perm fs.FileMode) error
}

func (o *Options) fill() error {
	switch {
	case o.Dir == "":
		return errors.New("rotate: no folder of logs")
	case o.StateDir == "":
		return errors.New("rotate: no state folder")
	case o.Signal == nil:
		return errors.New("rotate: no way to reach Vault")
	}
	if o.Wait == 0 {
		o.Wait = DefaultWait
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Usage == nil {
		o.Usage = Statfs
	}
	if o.files == nil {
		o.files = func(d *dirfs.Dir) files { return osFiles{d} }
	}
	if o.save == nil {
		o.save = statefile.Save
	}
	return nil
}

// Rotate does one run: what an interrupted one left, rotation, compression,
// retention, and the look at the disk. Each part is tried even where another
// has failed; the error is all of them. The report is what the state file
// holds.
func Rotate(ctx context.Context, o Options) (Report, error) {
	if err := o.fill(); err != nil {
		return Report{}, err
	}
	unlock, err := lock(o.StateDir)
	if err != nil {
		return Report{}, err
	}
	defer unlock()

	dir, err := dirfs.Open(o.Dir)
	if err != nil {
		return Report{}, fmt.Errorf("audit logs: %w", err)
	}
	defer dir.Close()
	r := &run{Options: o, dir: dir, files: o.files(dir), now: o.Now().UTC(), doubted: o.Doubt != nil && o.Doubt() != nil}
	err = errors.Join(r.loadDeletions(), r.sweep(), r.recover(ctx), r.rotateDue(ctx), r.compressAll(ctx), r.prune(), r.watermark())
	rep, rerr := r.report(err)
	if o.Tell != nil {
		o.Tell(rep.Lost)
	}
	return rep, errors.Join(err, rerr, r.told(rep.Lost))
}

// run is one run under way.
type run struct {
	Options
	// dir stays open: the folder is the one that it was, whatever its name leads to
	// by then.
	dir   *dirfs.Dir
	files files
	now   time.Time
	// doubted says that now may be any time: a clock that is ahead makes all logs old.
	doubted bool

	rotated, deleted, early []string
	// deletions are those before their time, of this run and of those before it.
	deletions Deletions
	usage     Usage
	level     Level
}

func (r *run) path(name string) string { return filepath.Join(r.Dir, name) }

// sweep removes what a killed run left half compressed.
func (r *run) sweep() error {
	names, err := r.dir.Names()
	if err != nil {
		return fmt.Errorf("audit logs: %w", err)
	}
	var errs []error
	for _, full := range names {
		name, _, tmp := strings.Cut(strings.TrimPrefix(full, "."), ".gz.tmp-")
		if f, ok := parseName(name); !tmp || !ok || f.live() || !strings.HasPrefix(full, ".") {
			continue
		}
		if info, err := r.dir.Lstat(full); err == nil && info.Regular {
			errs = append(errs, r.files.Remove(full))
		}
	}
	return errors.Join(errs...)
}

// recover finishes what an interrupted run left: a log that was renamed and not
// made anew. Vault may still write to it.
func (r *run) recover(ctx context.Context) error {
	files, err := scan(r.dir)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	newest := map[string]logFile{}
	for _, f := range files {
		if f.live() {
			there[f.base] = true
		} else if !f.gz {
			newest[f.base] = f
		}
	}
	var errs []error
	for base, f := range newest {
		if !there[base] {
			errs = append(errs, r.reopen(ctx, base, f))
		}
	}
	return errors.Join(errs...)
}

func (r *run) rotateDue(ctx context.Context) error {
	files, err := scan(r.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		if !f.live() {
			continue
		}
		if f.mode&0o111 != 0 {
			errs = append(errs, fmt.Errorf("%q has mode %04o: %w", r.path(f.name), f.mode.Perm(), ErrExecutable))
		}
		due := f.size >= r.Policy.Size || r.now.Sub(since(r.dir, f)) >= r.Policy.Age
		if f.size == 0 || !due && !r.Force {
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		// One log at a time: the next only when this one is whole again.
		if err := r.rotate(ctx, f, files); err != nil {
			errs = append(errs, err)
			break
		}
	}
	return errors.Join(errs...)
}

func (r *run) rotate(ctx context.Context, f logFile, files []logFile) error {
	name := rotatedName(f.base, r.now, files)
	if err := r.files.RenameNew(f.name, name); err != nil {
		return fmt.Errorf("rotate %q: %w", r.path(f.name), err)
	}
	if err := r.files.Sync(); err != nil {
		return err
	}
	f.name = name
	err := r.reopen(ctx, f.base, f)
	if err == nil {
		if _, err := r.dir.Lstat(name); err == nil {
			r.rotated = append(r.rotated, name)
		}
	}
	return err
}

// reopen has Vault make the log base anew. f is the same log under the name
// that it was given; where Vault doesn't, it gets its old name back.
func (r *run) reopen(ctx context.Context, base string, f logFile) error {
	err := r.Signal(ctx)
	if errors.Is(err, ErrNotRunning) {
		return nil // it makes the log when it starts
	}
	if err == nil {
		err = r.wait(ctx, base)
	}
	if err == nil {
		return nil
	}
	back := r.files.RenameNew(f.name, base)
	switch {
	case errors.Is(back, fs.ErrExist):
		return nil // it was only late
	case back != nil:
		return errors.Join(fmt.Errorf("rotate %q: %w", r.path(base), err), back)
	}
	if errors.Is(err, ErrNotReopened) && r.now.Sub(f.mod) > idle {
		return nil // nobody writes to it, so it need not be rotated either
	}
	return fmt.Errorf("rotate %q: %w; it has its old name again", r.path(base), err)
}

// wait returns when Vault has made the log base.
func (r *run) wait(ctx context.Context, base string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Wait, fmt.Errorf("%w within %v", ErrNotReopened, r.Wait))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := r.dir.Lstat(base)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
