package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	if err := RecordTakeFailure(w.takeState, testTime, errDisk); err != nil {
		t.Fatal(err)
	}
	s := mustTakeState(t, w.takeState)
	if s.Last["mem"].ID != w.next.ID || s.Failure.Error != errDisk.Error() {
		t.Errorf("take state %+v", s)
	}
}

// While a run is under way its own result counts.
func TestRecordFailureWaitsForNobody(t *testing.T) {
	dir := t.TempDir()
	for job, record := range map[string]func() error{
		"take":   func() error { return RecordTakeFailure(dir, testTime, errDisk) },
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
	if _, err := lock("/nonexistent", "take"); err == nil || errors.Is(err, ErrBusy) {
		t.Errorf("lock of a folder that is not there: %v", err)
	}
}
