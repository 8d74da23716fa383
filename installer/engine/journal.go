package engine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/fault"
)

// The journal's events.
const (
	EventRun     = "run"     // an installer began
	EventBegin   = "begin"   // it is about to make a change
	EventApplied = "applied" // the change is made
	EventFailed  = "failed"  // the run ends with a fault
	EventDone    = "done"    // the run ended well
)

// Entry is one line of the journal.
type Entry struct {
	Time    time.Time `json:"time"`
	Version string    `json:"version"` // the installer's
	Event   string    `json:"event"`
	Step    string    `json:"step,omitempty"`
	What    string    `json:"what,omitempty"`
	Note    string    `json:"note,omitempty"`
}

// Journal records what runs have done, one JSON object a line. It is evidence
// for people and for the one question that the machine itself can't answer
// (has any run ever been finished?), never the truth about the machine. A nil
// *Journal records nothing.
type Journal struct {
	f       *os.File
	now     func() time.Time
	version string
	old     []Entry
}

// OpenJournal opens path for appending, making it (mode 0600) and its folder
// (0700) where they are not there. A last line that a crash cut off is ended,
// not removed.
func OpenJournal(path, version string, now func() time.Time) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, journalFault(err)
	}
	old, whole, err := readJournal(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, journalFault(err)
	}
	if !whole {
		if _, err := f.Write([]byte("\n")); err != nil {
			return nil, errors.Join(journalFault(err), f.Close())
		}
	}
	return &Journal{f: f, now: now, version: version, old: old}, nil
}

// Finished says whether an earlier run ended well.
func (j *Journal) Finished() bool {
	if j == nil {
		return false
	}
	for _, e := range j.old {
		if e.Event == EventDone {
			return true
		}
	}
	return false
}

// Began says whether an earlier run was about to make the change, and so may
// have made it.
func (j *Journal) Began(step, what string) bool {
	if j == nil {
		return false
	}
	for _, e := range j.old {
		if e.Event == EventBegin && e.Step == step && e.What == what {
			return true
		}
	}
	return false
}

// Close closes the file.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}

// add writes one line and makes it durable before it returns, so that a change
// is never made that the journal doesn't know of.
func (j *Journal) add(e Entry) error {
	if j == nil {
		return nil
	}
	e.Time, e.Version = j.now().UTC(), j.version
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	_, err = j.f.Write(append(b, '\n'))
	if err == nil {
		err = j.f.Sync()
	}
	return journalFault(err)
}

// journalFault says what to do about a journal that can't be written: without it
// nothing is changed.
func journalFault(err error) error {
	if err == nil {
		return nil
	}
	return &fault.Error{Code: fault.Failed, Err: fmt.Errorf("journal: %w", err),
		Hint: "make room on the disk, or have it writable, and run the same command again; it goes on where it stopped"}
}

// readJournal gives the entries of path and whether its last line is whole. A
// line that is no entry (cut off by a crash) is passed over.
func readJournal(path string) (entries []Entry, whole bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read journal: %w", err)
	}
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		line, err := r.ReadBytes('\n')
		var e Entry
		if json.Unmarshal(line, &e) == nil && e.Event != "" {
			entries = append(entries, e)
		}
		if errors.Is(err, io.EOF) {
			return entries, len(line) == 0, nil
		}
	}
}
