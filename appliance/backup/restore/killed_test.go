package restore

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

// killer kills a restore at one of its calls, before Vault has done what it asks for, or
// after that and before the answer.
type killer struct {
	*fakeVault
	at, seen int
	after    bool
	asked    bool // for the snapshot to be taken: from then on nobody knows what Vault has
	kill     func()
}

func (k *killer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	k.seen++
	now := k.seen == k.at
	k.asked = k.asked || strings.HasSuffix(r.URL.Path, "raft/snapshot") && r.Method == http.MethodPost
	k.mu.Unlock()
	if now && !k.after {
		k.kill()
		return
	}
	k.fakeVault.ServeHTTP(w, r)
	if now {
		k.kill()
	}
}

// What a restore that was killed at any of its calls has left, the next one ends: the epoch
// is raised, by one where Vault was never given the snapshot, what max_wait was is not lost, and
// no note is left.
func TestKilledAtEveryCall(t *testing.T) {
	const address, epochFile, waitsFile = "RESTORE_ADDRESS", "RESTORE_EPOCH", "RESTORE_WAITS"
	run := func(t *testing.T, address, epoch, waits string) error {
		c, err := vaultapi.New(vaultapi.Options{Address: address, Token: "operator"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Run(t.Context(), Options{Snapshot: checked(t), Vault: c, EpochFile: epoch, WaitsFile: waits, Patience: time.Minute, Poll: time.Millisecond})
		return err
	}
	if a := os.Getenv(address); a != "" { // the one that is killed
		if err := run(t, a, os.Getenv(epochFile), os.Getenv(waitsFile)); err != nil {
			t.Fatal(err)
		}
		return
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			dir := t.TempDir()
			epoch, waits := epochAt(t, "4"), filepath.Join(dir, "waits.json")
			k := &killer{fakeVault: &fakeVault{reconcile: reconciled}, at: n, after: after}
			cmd := exec.Command(program, "-test.run=^TestKilledAtEveryCall$", "-test.count=1")
			ended := make(chan error, 1)
			k.kill = func() { _ = cmd.Process.Kill(); <-ended }
			at := k.startWith(t, k)
			cmd.Env = append(os.Environ(), "TMPDIR="+dir, address+"="+at, epochFile+"="+epoch, waitsFile+"="+waits)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { err := cmd.Wait(); ended <- err; close(ended) }()
			err := <-ended
			k.mu.Lock()
			done, asked, sets := k.seen < n, k.asked, len(k.waits)
			zero := sets > 0 && k.waits[sets-1] == "0"
			k.mu.Unlock()
			if done {
				if err != nil || n < 10 {
					t.Fatalf("after %d calls: %v", k.seen, err)
				}
				break
			}
			if err := run(t, at, epoch, waits); err != nil {
				t.Fatalf("killed at call %d, after it %t: the next one: %v", n, after, err)
			}
			k.mu.Lock()
			if got := readEpoch(t, epoch); got != 5 && (!asked || got != 6) {
				t.Errorf("killed at call %d, after it %t: epoch %d", n, after, got)
			}
			if zero && !asked && k.waits[sets] != "60" {
				t.Errorf("killed at call %d, after it %t: max_wait was set to %s", n, after, strings.Join(k.waits, " "))
			}
			if _, err := os.Stat(waits); !os.IsNotExist(err) {
				t.Errorf("killed at call %d, after it %t: the note is left: %v", n, after, err)
			}
			k.mu.Unlock()
		}
	}
}
