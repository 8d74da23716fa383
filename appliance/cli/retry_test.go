package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	state, config := t.TempDir(), filepath.Join(t.TempDir(), "conf")
	text := fmt.Sprintf("[backup]\nrecipients = []\n[[backup.to]]\ntype = \"dir\"\npath = %q\n", t.TempDir())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := runDrillCLI(t, "drill", "fetch", "--config", config, "--take-state", t.TempDir(), "--state", state)
	if code != ExitDrift {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	f, err := report.LastFetchFailure(state)
	if err != nil || f == nil || time.Since(f.At) > time.Minute || !strings.Contains(f.Error, "no snapshot") {
		t.Errorf("%+v, %v", f, err)
	}
}
