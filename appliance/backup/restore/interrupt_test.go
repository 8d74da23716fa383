package restore

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Who interrupts a restore before Vault has all of the snapshot finds everything
// as it was: the epoch, the waits, and no token left.
func TestInterrupted(t *testing.T) {
	state := make([]byte, 8<<20)
	if _, err := rand.NewChaCha8([32]byte{}).Read(state); err != nil {
		t.Fatal(err)
	}
	big := archiveOf(t, state) // more than the sockets hold
	for _, tt := range []struct {
		name    string
		archive []byte
		whole   bool // Vault reads it to its end
		want    error
		epoch   int64
		waits   string
		ends    string
	}{
		{"in the middle", big, false, context.Canceled, 4, "0 60", "PUT auth/token/revoke-self"},
		{"before the answer", big, true, ErrUnclear, 5, "0", "POST sys/storage/raft/snapshot"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f := &fakeVault{snapshot: func(w http.ResponseWriter, r *http.Request) bool {
				n := int64(1)
				if tt.whole {
					n = 1 << 30
				}
				_, _ = io.CopyN(io.Discard, r.Body, n)
				cancel()
				if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
					_ = conn.Close()
				}
				return true
			}}
			dir := t.TempDir()
			epoch, note := filepath.Join(dir, "epoch.json"), filepath.Join(dir, "waits.json")
			if err := os.WriteFile(epoch, []byte(`{"installation_id":"x","epoch":4}`), 0o640); err != nil {
				t.Fatal(err)
			}
			res, err := Run(ctx, Options{Snapshot: checkedOf(t, tt.archive), Vault: f.start(t), EpochFile: epoch, WaitsFile: note, Patience: time.Minute, Poll: time.Millisecond})
			f.mu.Lock()
			defer f.mu.Unlock()
			unclear := tt.want == ErrUnclear
			if err == nil || res.Restored || unclear != strings.Contains(err.Error(), ErrUnclear.Error()) {
				t.Errorf("restored %t, %v", res.Restored, err)
			}
			if got := readEpoch(t, epoch); got != tt.epoch {
				t.Errorf("epoch %d, want %d", got, tt.epoch)
			}
			if got := strings.Join(f.waits, " "); got != tt.waits {
				t.Errorf("max_wait was set to %q, want %q", got, tt.waits)
			}
			// As long as it is 0 it is known what it was.
			if _, err := os.Stat(note); unclear != (err == nil) {
				t.Errorf("what max_wait was: %v", err)
			}
			if i := slices.Index(f.calls, tt.ends); i < 0 || unclear && i != len(f.calls)-1 {
				t.Errorf("calls %q, want %q", f.calls, tt.ends)
			}
		})
	}
}
