package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/drill/report"
)

// Each failure that another try follows is told to the journal.
func TestRetries(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "8:1")
	var out bytes.Buffer
	c := &cobra.Command{}
	c.SetErr(&out)
	r := retries{n: 1, after: time.Minute}
	tries := r.tries(c, "drill fetch")
	if tries.More != 1 || tries.After != time.Minute {
		t.Errorf("%+v", tries)
	}
	tries.Failed(errors.New("bucket: unreachable"))
	if want := "<4>drill fetch: bucket: unreachable; it is tried again in 1m0s\n"; out.String() != want {
		t.Errorf("%q", &out)
	}
}

// A fetch that fails for good is noted, for status and doctor.
func TestDrillFetchNotesItsFailure(t *testing.T) {
	state := t.TempDir()
	code, out := runDrillCLI(t, "drill", "fetch", "--dir", t.TempDir(), "--take-state", t.TempDir(), "--state", state)
	if code != ExitDrift {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	f, err := report.LastFetchFailure(state)
	if err != nil || f == nil || time.Since(f.At) > time.Minute || !strings.Contains(f.Error, "no snapshot") {
		t.Errorf("%+v, %v", f, err)
	}
}
