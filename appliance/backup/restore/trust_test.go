package restore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config"
)

// What nobody has signed is restored by its name and the word alone; and what is known of
// whether it is the newest is told.
func TestFirstOfASignedPlace(t *testing.T) {
	s := newStore(t)
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	ring := &signing.Keyring{}
	ring.Use(snapshot.RoleTaker, "box", key.Public().(ed25519.PublicKey), time.Now())
	now := time.Now()
	take := func(key ed25519.PrivateKey, at time.Time) snapshot.ID {
		t.Helper()
		s.opts.SigningKey = key
		return s.take(t, at, true)
	}
	to := []config.BackupTo{{Type: config.BackupDir, Path: s.path}}
	first := func(trust *snapshot.Trust, w Wanted) (string, error) {
		w.Places, w.Cluster = snapshot.Places(to, nil, trust), "one"
		c, _, err := First(t.Context(), w, func(c Choice) error {
			k, err := Fetch(t.Context(), c, []age.Identity{s.id}, t.TempDir())
			if err == nil {
				err = k.Close()
			}
			return err
		})
		return c.Manifest.ID, err
	}
	before := take(nil, now.Add(-3*time.Hour))
	if _, err := first(&snapshot.Trust{Ring: ring}, Wanted{}); !errors.Is(err, snapshot.ErrUntrusted) || !strings.Contains(err.Error(), before.String()) {
		t.Errorf("nothing is signed: %v", err)
	}
	if got, err := first(nil, Wanted{}); got != before.String() || err != nil {
		t.Errorf("nobody asks: %q, %v", got, err)
	}
	if _, err := first(&snapshot.Trust{Ring: ring}, Wanted{ID: before}); !errors.Is(err, snapshot.ErrUntrusted) {
		t.Errorf("by name alone: %v", err)
	}
	if got, err := first(&snapshot.Trust{Ring: ring}, Wanted{ID: before, Unsigned: true}); got != before.String() || err != nil {
		t.Errorf("by name and word: %q, %v", got, err)
	}
	good := take(key, now.Add(-2*time.Hour))
	forged := take(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize)), now.Add(-time.Hour))
	if got, err := first(&snapshot.Trust{Ring: ring}, Wanted{}); got != good.String() || err != nil {
		t.Errorf("%q, %v; want %q", got, err, good)
	}
	if _, err := first(&snapshot.Trust{Ring: ring}, Wanted{ID: forged, Unsigned: true}); !errors.Is(err, snapshot.ErrForged) {
		t.Errorf("forged: %v", err)
	}
}

func TestFreshness(t *testing.T) {
	s := newStore(t)
	now := time.Now().UTC()
	m := snapshot.Manifest{ClusterID: "one", TakenAt: now.Add(-3 * time.Hour), RaftIndex: 1, Lineage: &snapshot.Lineage{ID: "abc", Epoch: 2}}
	if got := Freshness(m, t.TempDir(), now); !strings.Contains(got, "lineage abc of epoch 2, raft index 1, 3h0m0s old") || !strings.Contains(got, "nothing proves that it is the newest") {
		t.Error(got)
	}
	s.take(t, now, true)
	if got := Freshness(m, s.opts.StateDir, now); !strings.Contains(got, "none that is newer") {
		t.Error(got)
	}
	m.Lineage = nil
	if got := Freshness(m, s.opts.StateDir, now); !strings.Contains(got, "has stored a NEWER one") {
		t.Error(got)
	}
	m.ClusterID = "two"
	if got := Freshness(m, s.opts.StateDir, now); !strings.Contains(got, "nothing proves") {
		t.Error(got)
	}
}

// asked counts what is downloaded.
type asked struct {
	snapshot.Destination
	n int
}

func (a *asked) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	a.n++
	return a.Destination.Get(ctx, name)
}

// The room is looked at before anything is downloaded, and a copy of another size may fit.
func TestFetchLooksAtTheRoomFirst(t *testing.T) {
	s := newStore(t)
	id := s.take(t, time.Now(), true)
	c, err := ByID(t.Context(), []snapshot.Destination{s.dest}, id)
	if err != nil {
		t.Fatal(err)
	}
	d, dir := &asked{Destination: s.dest}, t.TempDir()
	c.Destination, c.Manifest.Snapshot.Size = d, 1<<60
	if _, err := Fetch(t.Context(), c, []age.Identity{s.id}, dir); !errors.Is(err, snapshot.ErrFull) || errors.Is(err, errHere) || d.n > 0 {
		t.Errorf("%v after %d downloads", err, d.n)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
	if _, err := Fetch(t.Context(), c, []age.Identity{s.id}, filepath.Join(dir, "none")); !errors.Is(err, errHere) {
		t.Errorf("no folder: %v", err)
	}
}
