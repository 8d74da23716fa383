package restore

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A restore that is killed while no read may wait leaves what the next one needs
// to put that back: before it keeps a snapshot of what is there.
func TestKilledWhileWaitsAreEnded(t *testing.T) {
	for _, tt := range []struct {
		name   string
		killed func(t *testing.T, ctx context.Context, o Options)
		waits  string // what max_wait is set to, in all
		kept   string // and what it is in the snapshot that is kept
	}{
		{"never", func(*testing.T, context.Context, Options) {}, "0", "60"},
		{"after it has noted them", func(t *testing.T, _ context.Context, o Options) {
			if err := note(o.WaitsFile, func(w *Waits) { w.MaxWait = map[string]int64{"apikeys/": 60} }); err != nil {
				t.Fatal(err)
			}
		}, "0", "60"},
		{"after it has ended them", func(t *testing.T, ctx context.Context, o Options) {
			if _, err := endWaits(ctx, o.Vault, o.WaitsFile); err != nil {
				t.Fatal(err)
			}
		}, "0 60 0", "60"},
		{"and somebody has set it since", func(t *testing.T, ctx context.Context, o Options) {
			if _, err := endWaits(ctx, o.Vault, o.WaitsFile); err != nil {
				t.Fatal(err)
			}
			if err := setWait(ctx, o.Vault, "apikeys/", 30); err != nil {
				t.Fatal(err)
			}
		}, "0 30 0", "30"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeVault{reconcile: reconciled}
			keep := newStore(t).opts
			var kept string
			keep.Source = noting{bytesSource(testArchive(t)), func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				if kept = "60"; len(f.waits) > 0 {
					kept = f.waits[len(f.waits)-1]
				}
			}}
			o := Options{Snapshot: checked(t), Vault: f.start(t), Keep: &keep, WaitsFile: filepath.Join(t.TempDir(), "waits.json"), Patience: time.Minute, Poll: time.Millisecond}
			tt.killed(t, t.Context(), o)
			if _, err := Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if got := strings.Join(f.waits, " "); got != tt.waits || kept != tt.kept {
				t.Errorf("max_wait was set to %q, want %q; it is %q in what is kept, want %q", got, tt.waits, kept, tt.kept)
			}
			if _, err := os.Stat(o.WaitsFile); !os.IsNotExist(err) {
				t.Errorf("the note is left: %v", err)
			}
		})
	}
}

// noting is a source that tells when it is read.
type noting struct {
	bytesSource
	read func()
}

func (n noting) Snapshot(ctx context.Context, w io.Writer) error {
	n.read()
	return n.bytesSource.Snapshot(ctx, w)
}

// Without an appliance there is no folder for a note, and none is made.
func TestNoteWaitsWithoutAnAppliance(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	if err := note(filepath.Join(dir, "waits.json"), func(w *Waits) { w.MaxWait = map[string]int64{"apikeys/": 60} }); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func FuzzParseWaits(f *testing.F) {
	for _, s := range []string{`{"max_wait":{"apikeys/":60}}`, `{}`, `{"max_wait":{"x":1}}`, `{"max_wait":{"x/":-1}}`, `[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := ParseWaits(data)
		if err != nil {
			return
		}
		for mount, n := range w.MaxWait {
			if n < 0 || !strings.HasSuffix(mount, "/") {
				t.Errorf("%q: %d", mount, n)
			}
		}
	})
}
