package cli

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
)

func TestSnapshotSoon(t *testing.T) {
	changed := filepath.Join(t.TempDir(), "rotated")
	if err := os.WriteFile(changed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := run(t, "snapshot", "soon", "--changed", changed, "--take-state", t.TempDir(), "--quiet", "0s")
	if _, err := os.Lstat(changed); code != ExitOK || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("exit code %d, %v\n%s", code, err, out)
	}
	says(t, out, "a snapshot is due")
	for _, bad := range [][]string{{}, {"--changed", changed, "--quiet", "-1s"}, {"--changed", changed, "more"}} {
		if code, out := run(t, append([]string{"snapshot", "soon"}, bad...)...); code != ExitUsage {
			t.Errorf("%q: exit code %d\n%s", bad, code, out)
		}
	}
}

func TestJobsStandAsideOnAStandby(t *testing.T) {
	b := newBackups(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/health" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"initialized":true,"sealed":false,"standby":true,"version":"1.21.1","cluster_id":"c"}`))
	}))
	defer vault.Close()
	t.Setenv("VAULT_ADDR", vault.URL)
	code, out := run(t, "snapshot", "take", "--dir", b.dir, "--recipient", id.Recipient().String(), "--state", b.takeState)
	if code != ExitOK {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	says(t, out, "standby: the leader takes the snapshots")
	if s, err := snapshot.LoadTakeState(b.takeState); err != nil || s.Standby == nil || s.Failure != nil {
		t.Errorf("%+v, %v", s, err)
	}
	for verb, word := range map[string]string{"verify": "verifies", "prune": "prunes"} {
		args := []string{"snapshot", verb, "--dir", b.dir, "--take-state", b.takeState}
		code, out := run(t, append(args, "--unless-standby")...)
		if code != ExitOK {
			t.Errorf("%s: exit code %d\n%s", verb, code, out)
		}
		says(t, out, "standby: the leader "+word)
		if code, out := run(t, args...); code == ExitOK {
			t.Errorf("%s by hand: exit code %d\n%s", verb, code, out)
		}
	}
}

// A Vault that is out of reach for a while is asked again; a wrong command line
// is not tried twice.
func TestTakeTriesAgain(t *testing.T) {
	b := newBackups(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Content-Type", "application/json")
		if asked < 3 {
			_, _ = w.Write([]byte("not JSON"))
			return
		}
		_, _ = w.Write([]byte(`{"initialized":true,"standby":true}`))
	}))
	defer vault.Close()
	t.Setenv("VAULT_ADDR", vault.URL)
	args := []string{"snapshot", "take", "--dir", b.dir, "--recipient", id.Recipient().String(), "--state", b.takeState, "--retries", "2", "--retry-after", "1ms"}
	if code, out := run(t, args...); code != ExitOK || asked != 3 {
		t.Errorf("exit code %d, asked %d times\n%s", code, asked, out)
	}
	asked = -10
	if code, out := run(t, args...); code != ExitFailed || asked != -7 {
		t.Errorf("exit code %d, asked %d times\n%s", code, asked+10, out)
	}
	asked = 0
	if code, out := run(t, "snapshot", "take", "--dir", b.dir, "--state", b.takeState, "--retries", "2", "--retry-after", "1h"); code != ExitUsage || asked != 0 {
		t.Errorf("exit code %d, asked %d times\n%s", code, asked, out)
	}
}
