package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill"
	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
)

// What a person forgets to give is no failure of the job: status and doctor would
// call the backups broken, and somebody would be told in the night.
func TestByHandRecordsNothing(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	dir, state := t.TempDir(), t.TempDir()
	code, said := run(t, "snapshot", "verify", "--dir", dir, "--state", state, "--take-state", t.TempDir())
	if code != ExitUsage || !strings.Contains(said, "no identity") || !strings.Contains(said, "systemctl start strongroom-snapshot") {
		t.Errorf("exit code %d: %s", code, said)
	}
	left, err := filepath.Glob(filepath.Join(state, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// A place or a snapshot that a person names, and what is mistyped, makes no job a failed
// one; nor is a job's failure mended by it.
func TestChosenIsNotTheJobs(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	b := newBackups(t)
	id := b.take(t, "c", time.Now().Add(-time.Minute))
	config, drilled := filepath.Join(t.TempDir(), "conf"), t.TempDir()
	text := fmt.Sprintf("[backup]\nrecipients = [%q]\n[[backup.to]]\ntype = \"dir\"\npath = %q\n", b.recipient.Line, b.dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	verify := []string{"snapshot", "verify", "--state", b.state, "--take-state", b.takeState}
	take := []string{"snapshot", "take", "--state", b.takeState, "--recipient", b.recipient.Line}
	fetch := []string{"drill", "fetch", "--state", drilled, "--take-state", b.takeState}
	for _, before := range []string{"", "the bucket is away"} {
		if before != "" {
			for _, err := range []error{
				snapshot.RecordVerifyFailure(b.state, time.Now(), errors.New(before)),
				snapshot.RecordTakeFailure(b.takeState, time.Now(), time.Now(), errors.New(before)),
				drill.RecordFetchFailure(drilled, time.Now(), errors.New(before)),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, c := range []struct {
			code int
			args []string
		}{
			{ExitOK, append(verify, "--dir", b.dir, "--identity", b.identity)},
			{ExitOK, append(verify, "--config", config, "--identity", b.identity, "--id", id)},
			{ExitDrift, append(verify, "--config", config, "--identity", b.identity, "--id", "c/20200101T000000Z-00000000")},
			{ExitUsage, append(verify, "--config", config, "--identity", b.identity, "--id", "nonsense")},
			{ExitOperator, append(verify, "--config", config, "--identity", "/none")},
			{ExitOperator, append(verify, "--dir", "/none", "--identity", b.identity)},
			{ExitUsage, append(take, "--config", config, "--recipient", "/none")},
			{ExitUsage, append(take, "--config", config, "--address", "gopher://x")},
			{ExitOperator, append(take, "--dir", b.dir, "--address", refusing(t), "--token-file", b.identity)},
			{ExitOK, append(fetch, "--dir", b.dir)},
			{ExitOK, append(fetch, "--config", config, "--id", id)},
			{ExitOperator, append(fetch, "--dir", "/none")},
		} {
			code, said := run(t, c.args...)
			taken, err := snapshot.LoadTakeState(b.takeState)
			verified, verr := snapshot.LoadVerifyState(b.state)
			fetched, ferr := report.LastFetchFailure(drilled)
			if code != c.code || err != nil || verr != nil || ferr != nil {
				t.Fatalf("%q: exit code %d, want %d: %s%v %v %v", c.args, code, c.code, said, err, verr, ferr)
			}
			got := map[string]string{}
			for job, f := range map[string]*snapshot.Failure{"take": taken.Failure, "verify": verified.Failure} {
				if f != nil {
					got[job] = f.Error
				}
			}
			if fetched != nil {
				got["drill"] = fetched.Error
			}
			want := map[string]string{}
			if before != "" {
				want = map[string]string{"take": before, "verify": before, "drill": before}
			}
			if !maps.Equal(got, want) {
				t.Fatalf("%q: the jobs' failures are %q, want %q", c.args, got, want)
			}
		}
	}
}
