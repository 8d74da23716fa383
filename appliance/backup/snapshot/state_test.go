package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/statefile"
)

func TestRecordFailureKeepsTheRecords(t *testing.T) {
	w := takeTwice(t)
	if err := RecordVerifyFailure(w.opts.StateDir, testTime, errDisk); err != nil {
		t.Fatal(err)
	}
	v, err := LoadVerifyState(w.opts.StateDir)
	if err != nil || v.LastGood["mem"].ID != w.good.ID || v.Failure.Error != errDisk.Error() {
		t.Errorf("verify state %+v, %v", v, err)
	}
	if err := RecordTakeFailure(w.takeState, testTime, testTime, errDisk); err != nil {
		t.Fatal(err)
	}
	s := mustTakeState(t, w.takeState)
	if s.Last["mem"].ID != w.next.ID || s.Failure.Error != errDisk.Error() {
		t.Errorf("take state %+v", s)
	}
}

// Root runs the jobs by hand, and each job's own user must go on with the state
// and the lock that this leaves.
func TestStateStaysTheJobs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: files can't be given away")
	}
	const job = 54321
	for name, record := range map[string]func(dir string) error{
		"take":   func(dir string) error { return RecordTakeFailure(dir, testTime, testTime, errDisk) },
		"verify": func(dir string) error { return RecordVerifyFailure(dir, testTime, errDisk) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chown(dir, job, job); err != nil {
				t.Fatal(err)
			}
			if err := record(dir); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 2 {
				t.Fatalf("%v, %v: want the state and the lock", entries, err)
			}
			for _, e := range entries {
				var st unix.Stat_t
				if err := unix.Stat(filepath.Join(dir, e.Name()), &st); err != nil {
					t.Fatal(err)
				}
				if st.Uid != job || st.Gid != job {
					t.Errorf("%s is %d:%d's, want the job's", e.Name(), st.Uid, st.Gid)
				}
			}
		})
	}
}

// While a run is under way its own result counts.
func TestRecordFailureWaitsForNobody(t *testing.T) {
	dir := t.TempDir()
	for job, record := range map[string]func() error{
		"take":   func() error { return RecordTakeFailure(dir, testTime, testTime, errDisk) },
		"verify": func() error { return RecordVerifyFailure(dir, testTime, errDisk) },
	} {
		unlock, err := lock(dir, job)
		if err != nil {
			t.Fatal(err)
		}
		if err := record(); err != nil {
			t.Errorf("%s: %v", job, err)
		}
		unlock()
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.json")); err != nil || len(left) > 0 {
		t.Errorf("it wrote %q, %v", left, err)
	}
}

func TestLoadState(t *testing.T) {
	tests := []struct{ name, text, fault string }{
		{"none", "", ""},
		{"sound", `{"format":1}`, ""},
		{"cut", `{"format":1`, "corrupt"},
		{"of a later format", `{"format":2}`, "format 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{takeStateFile, verifyStateFile} {
				if tt.text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(tt.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err1 := LoadTakeState(dir)
			_, err2 := LoadVerifyState(dir)
			for _, err := range []error{err1, err2} {
				if (err != nil) != (tt.fault != "") || (err != nil && !strings.Contains(err.Error(), tt.fault)) {
					t.Errorf("got %v, want %q", err, tt.fault)
				}
			}
		})
	}
	if _, err := lock("/nonexistent", "take"); err == nil || errors.Is(err, statefile.ErrBusy) {
		t.Errorf("lock of a folder that is not there: %v", err)
	}
}
