package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

const (
	stateFile   = "last.json"
	stateFormat = 1
)

// Report is the last run's, for people, metrics and checks. No entry of a log is
// in it.
type Report struct {
	Format int       `json:"format"`
	At     time.Time `json:"at"`
	// Logs are the ones that Vault writes to.
	Logs []Log `json:"logs"`
	// Kept are the rotated ones.
	Kept      int        `json:"kept"`
	KeptBytes int64      `json:"kept_bytes"`
	Oldest    *time.Time `json:"oldest,omitempty"`
	Disk      Usage      `json:"disk"`
	Level     Level      `json:"level"`
	// Rotated, Deleted and DeletedEarly are what this run did, by file name.
	Rotated      []string `json:"rotated,omitempty"`
	Deleted      []string `json:"deleted,omitempty"`
	DeletedEarly []string `json:"deleted_early,omitempty"`
	// DeletedEarlyTotal counts the logs that went before their time, ever.
	DeletedEarlyTotal int64 `json:"deleted_early_total"`
	// Failure is this run's, if it failed.
	Failure string `json:"failure,omitempty"`
}

// Log is one that Vault writes to.
type Log struct {
	Name  string    `json:"name"`
	Size  int64     `json:"size"`  // bytes
	Since time.Time `json:"since"` // of its first entry
}

// LoadReport reads the last run's report from a state directory. It is empty
// where there was none yet.
func LoadReport(dir string) (Report, error) {
	path := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("read state: %w", err)
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return Report{}, fmt.Errorf("state file %q: %w", path, err)
	}
	if r.Format != stateFormat {
		return Report{}, fmt.Errorf("state file %q: format %d, this program reads %d", path, r.Format, stateFormat)
	}
	return r, nil
}

// report looks at what is there now, and writes the state file.
func (r *run) report(failure error) (Report, error) {
	rep := Report{
		Format: stateFormat, At: r.now, Logs: []Log{}, Disk: r.usage, Level: r.level,
		Rotated: r.rotated, Deleted: r.deleted, DeletedEarly: r.early,
	}
	// A spoilt state file only loses the count.
	before, _ := LoadReport(r.StateDir)
	rep.DeletedEarlyTotal = before.DeletedEarlyTotal + int64(len(r.early))
	if failure != nil {
		rep.Failure = failure.Error()
	}
	all, err := scan(r.Dir)
	for _, f := range all {
		if f.live() {
			rep.Logs = append(rep.Logs, Log{f.name, f.size, since(r.Dir, f).UTC()})
			continue
		}
		if rep.Oldest == nil {
			rep.Oldest = &f.at
		}
		rep.Kept++
		rep.KeptBytes += f.size
	}
	b, jerr := json.MarshalIndent(rep, "", "  ")
	if jerr != nil {
		return rep, errors.Join(err, fmt.Errorf("encode state: %w", jerr))
	}
	return rep, errors.Join(err, saveReport(r.StateDir, append(b, '\n')))
}

func saveReport(dir string, text []byte) error {
	// 0640: metrics and doctor read it through the group.
	f, err := atomicfile.Create(filepath.Join(dir, stateFile), 0o640)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := giveTo(dir, f.Chown); err != nil {
		return err
	}
	return f.Commit()
}

// lock keeps two runs apart. It is gone with the process.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".rotate.lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := giveTo(dir, f.Chown); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %q: %w", f.Name(), ErrBusy)
		}
		return nil, fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil
}
