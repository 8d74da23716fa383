package audit

import (
	"errors"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/statefile"
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
	// Lost are those that nobody was told of before: of this run, and of one that was
	// killed.
	Lost []Loss `json:"lost,omitempty"`
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
	var r Report
	err := statefile.Load(filepath.Join(dir, stateFile), stateFormat, &r)
	if errors.Is(err, statefile.ErrNone) {
		return Report{}, nil
	}
	if err != nil {
		return Report{}, err
	}
	return r, nil
}

// report looks at what is there now, and writes the state file.
func (r *run) report(failure error) (Report, error) {
	rep := Report{
		Format: stateFormat, At: r.now, Logs: []Log{}, Disk: r.usage, Level: r.level,
		Rotated: r.rotated, Deleted: r.deleted, DeletedEarly: r.early,
	}
	// A spoilt state file is told of once: it is written anew here.
	_, spoilt := LoadReport(r.StateDir)
	rep.DeletedEarlyTotal, rep.Lost = r.deletions.Total, r.lost()
	if failure != nil {
		rep.Failure = failure.Error()
	}
	all, err := scan(r.dir)
	for _, f := range all {
		if f.live() {
			rep.Logs = append(rep.Logs, Log{f.name, f.size, since(r.dir, f).UTC()})
			continue
		}
		if rep.Oldest == nil {
			rep.Oldest = &f.at
		}
		rep.Kept++
		rep.KeptBytes += f.size
	}
	return rep, errors.Join(spoilt, err, r.save(filepath.Join(r.StateDir, stateFile), rep, 0o640))
}

// lock keeps two runs apart.
func lock(dir string) (unlock func(), err error) {
	return statefile.Lock(filepath.Join(dir, ".rotate.lock"), "")
}
