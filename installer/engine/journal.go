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
	"slices"
	"time"

	"strongroom.example/appliance/base/atomicfile"
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
	// strange: among the lines of before are some that this version can't read.
	strange bool
}

// OpenJournal opens path for appending, making it (mode 0600) and its folder
// (0700) where they are not there. A last line that a crash cut off is ended,
// not removed.
func OpenJournal(path, version string, now func() time.Time) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, journalFault(err)
	}
	old, whole, strange, err := readJournal(path)
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
	// A journal that a power cut takes away as a whole would say that nothing was begun.
	if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(journalFault(err), f.Close())
	}
	return &Journal{f: f, now: now, version: version, old: old, strange: strange}, nil
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

// Unfinished says whether an earlier run was about to make the change, and none has
// come to its end: it may be made, in part or as a whole. A journal with lines that
// are none of these can't tell, and says no.
func (j *Journal) Unfinished(step, what string) bool {
	if j == nil || j.strange {
		return false
	}
	began := false
	for _, e := range j.old {
		if e.Step != step || e.What != what {
			continue
		}
		switch e.Event {
		case EventApplied:
			return false
		case EventBegin:
			began = true
		}
	}
	return began
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

// readJournal gives the entries of path, whether its last line is whole, and whether
// there are strange lines: such as are neither ours nor the last one, which a crash may
// have cut off.
func readJournal(path string) (entries []Entry, whole, strange bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, false, nil
	}
	if err != nil {
		return nil, false, false, fmt.Errorf("read journal: %w", err)
	}
	cut := false // the line before, which a later run has ended
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		line, err := r.ReadBytes('\n')
		var e Entry
		known := json.Unmarshal(line, &e) == nil && slices.Contains([]string{EventRun, EventBegin, EventApplied, EventFailed, EventDone}, e.Event)
		if known {
			// Behind a line that was cut off stands the run that has ended it.
			strange = strange || cut && e.Event != EventRun
			entries = append(entries, e)
		}
		if errors.Is(err, io.EOF) {
			return entries, len(line) == 0, strange, nil
		}
		strange = strange || cut && !known
		cut = !known
	}
}
