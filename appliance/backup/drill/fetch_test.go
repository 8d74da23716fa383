package drill

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config/recipient"
)

const cluster = "0b7ea4a6-22d4-4aa1-90ee-93e3d3e6c4f1"

// archive is a raft snapshot as Vault gives it.
type archive struct{ index int }

func (a archive) Snapshot(_ context.Context, w io.Writer) error {
	state := bytes.Repeat([]byte("state"), 2000)
	meta := fmt.Appendf(nil, `{"Version":1,"ID":"x","Index":%d,"Term":3,"Size":%d}`+"\n", a.index, len(state))
	sums := fmt.Appendf(nil, "%x  meta.json\n%x  state.bin\n", sha256.Sum256(meta), sha256.Sum256(state))
	gz := gzip.NewWriter(w)
	tw := tar.NewWriter(gz)
	for _, m := range []struct {
		name string
		data []byte
	}{{"meta.json", meta}, {"state.bin", state}, {"SHA256SUMS", sums}, {"SHA256SUMS.sealed", []byte("sealed")}} {
		if err := tw.WriteHeader(&tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := tw.Write(m.data); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), gz.Close())
}

// place is a destination with the means to fill it.
type place struct {
	snapshot.Destination
	dir      string
	identity *age.X25519Identity
}

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	d, err := snapshot.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return place{d, dir, id}
}

// take stores a snapshot begun at a time, verified or not.
func (p place) take(t *testing.T, of string, at time.Time, verified bool) string {
	t.Helper()
	to, err := recipient.Parse(p.identity.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	taken, err := snapshot.Take(t.Context(), snapshot.TakeOptions{
		Source: archive{7}, Vault: snapshot.VaultInfo{ClusterID: of, Version: "1.21.1"}, Recipients: []recipient.Recipient{to},
		Destinations: []snapshot.Destination{p}, StateDir: t.TempDir(), Now: func() time.Time { return at },
	})
	if err != nil {
		t.Fatal(err)
	}
	if verified {
		if _, err := snapshot.Verify(t.Context(), snapshot.VerifyOptions{Destination: p, Identities: []age.Identity{p.identity}, ClusterID: of, StateDir: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
	}
	return taken.Manifest.ID
}

// What is drilled is the newest: another place's copy of it where one is damaged, and
// never an older one.
func TestFetchOfTheNextCopy(t *testing.T) {
	a, b := newPlace(t), newPlace(t)
	b.identity = a.identity
	a.take(t, cluster, noon.Add(-time.Hour), true)
	id := a.take(t, cluster, noon, true)
	parsed, err := snapshot.ParseID(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.Copy(t.Context(), a, b, parsed); err != nil {
		t.Fatal(err)
	}
	o := FetchOptions{Destinations: []snapshot.Destination{a, b}, Cluster: cluster, StateDir: t.TempDir()}
	for i, p := range []place{a, b} {
		file := filepath.Join(p.dir, id+".snap.age")
		if err := os.Truncate(file, 100); err != nil {
			t.Fatal(err)
		}
		f, err := Fetch(t.Context(), o)
		switch {
		case i == 0 && (err != nil || f.ID != id || f.From != b.Name() || !strings.Contains(f.Others, "truncated")):
			t.Errorf("one copy is damaged: %+v, %v", f, err)
		case i == 1 && !errors.Is(err, snapshot.ErrTruncated):
			t.Errorf("both are: %+v, %v", f, err)
		}
	}
}

// down is a place that can't be reached.
type down struct{ snapshot.Destination }

func (down) Name() string { return "down" }
func (down) Get(context.Context, string) (io.ReadCloser, error) {
	return nil, fmt.Errorf("down: %w", snapshot.ErrUnreachable)
}
func (down) List(context.Context, string) ([]snapshot.ObjectInfo, error) {
	return nil, fmt.Errorf("down: %w", snapshot.ErrUnreachable)
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestFetch(t *testing.T) {
	p := newPlace(t)
	good := p.take(t, cluster, noon, true)
	newer := p.take(t, cluster, noon.Add(time.Hour), false)
	const other = "other-cluster"
	p.take(t, other, noon.Add(2*time.Hour), true)
	goodID, err := snapshot.ParseID(good)
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name string
		o    FetchOptions
		want string
		err  error
		says string // of other places
	}{
		{"the newest verified one", FetchOptions{Destinations: []snapshot.Destination{p}}, good, nil, ""},
		{"the newest of all", FetchOptions{Destinations: []snapshot.Destination{p}, Unverified: true}, newer, nil, ""},
		{"by its name", FetchOptions{Destinations: []snapshot.Destination{p}, ID: goodID}, good, nil, ""},
		{"of another cluster by its name", FetchOptions{Destinations: []snapshot.Destination{p}, ID: snapshot.ID{Cluster: other, Base: goodID.Base}}, "", snapshot.ErrWrongCluster, ""},
		{"one place down", FetchOptions{Destinations: []snapshot.Destination{down{}, p}}, good, nil, "unreachable"},
		{"one place down, newest of all", FetchOptions{Destinations: []snapshot.Destination{down{}, p}, Unverified: true}, newer, nil, "unreachable"},
		{"all places down", FetchOptions{Destinations: []snapshot.Destination{down{}}}, "", snapshot.ErrUnreachable, ""},
		{"all down, newest of all", FetchOptions{Destinations: []snapshot.Destination{down{}}, Unverified: true}, "", snapshot.ErrUnreachable, ""},
		{"an empty place", FetchOptions{Destinations: []snapshot.Destination{newPlace(t)}}, "", snapshot.ErrNoSnapshot, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Cluster, tt.o.StateDir = cluster, t.TempDir()
			f, err := Fetch(t.Context(), tt.o)
			if !errors.Is(err, tt.err) || f.ID != tt.want || !strings.Contains(f.Others, tt.says) {
				t.Fatalf("%+v, %v", f, err)
			}
			kept, lerr := loadFetched(tt.o.StateDir)
			if err != nil {
				if !errors.Is(lerr, ErrNotFetched) {
					t.Errorf("after a failure: %+v, %v", kept, lerr)
				}
				return
			}
			if lerr != nil || kept.ID != tt.want || kept.From == "" || kept.FinishedAt.Before(kept.StartedAt) {
				t.Errorf("kept %+v, %v", kept, lerr)
			}
			if (tt.want == good) == f.VerifiedAt.IsZero() {
				t.Errorf("verified at %s", f.VerifiedAt)
			}
			noPlain(t, tt.o.StateDir)
		})
	}
}

// noPlain sees that what is fetched stays encrypted, and for its owner alone.
func noPlain(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("statestate")) || bytes.Contains(data, []byte("AGE-SECRET")) {
			t.Errorf("%s holds plain data", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if fi, err := os.Stat(fetchedDir(dir)); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}
}

// A fetch replaces what an earlier one left, and one that fails leaves nothing
// that passes for a snapshot.
func TestFetchAgain(t *testing.T) {
	p := newPlace(t)
	p.take(t, cluster, noon, true)
	o := FetchOptions{Destinations: []snapshot.Destination{p}, Cluster: cluster, StateDir: t.TempDir()}
	if _, err := Fetch(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	second := p.take(t, cluster, noon.Add(time.Hour), true)
	if f, err := Fetch(t.Context(), o); err != nil || f.ID != second {
		t.Fatalf("%+v, %v", f, err)
	}
	if got, err := filepath.Glob(filepath.Join(fetchedDir(o.StateDir), "*", "*.snap.age")); err != nil || len(got) != 1 {
		t.Errorf("%q, %v", got, err)
	}
	// Damaged since it was verified.
	file := filepath.Join(p.dir, second+".snap.age")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"cut": data[:len(data)-1], "longer": append(bytes.Clone(data), 0), "flipped": append([]byte{data[0] ^ 1}, data[1:]...)} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Fetch(t.Context(), o); !errors.Is(err, snapshot.ErrCorrupt) && !errors.Is(err, snapshot.ErrTruncated) && !errors.Is(err, snapshot.ErrTrailing) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Run(t.Context(), Options{StateDir: o.StateDir}); !errors.Is(err, ErrNotFetched) {
			t.Errorf("%s: a drill after it: %v", name, err)
		}
	}
	if err := os.WriteFile(fetchedFile(o.StateDir), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadFetched(o.StateDir); err == nil {
		t.Error("a damaged record is taken")
	}
}

// The room for the snapshot and for the Vault that restores it is looked at before anything
// is copied.
func TestFetchLooksAtTheRoomFirst(t *testing.T) {
	p, state := newPlace(t), t.TempDir()
	id := p.take(t, cluster, noon, false)
	file := filepath.Join(p.dir, id+".json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	huge := regexp.MustCompile(`"state_size": \d+`).ReplaceAll(text, []byte(`"state_size": 1000000000000000000`))
	if bytes.Equal(huge, text) {
		t.Fatal("the manifest has no state_size")
	}
	o := FetchOptions{Destinations: []snapshot.Destination{p}, Cluster: cluster, Unverified: true, StateDir: state}
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, huge, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Fetch(t.Context(), o); !errors.Is(err, snapshot.ErrFull) {
		t.Errorf("got %v, want %v", err, snapshot.ErrFull)
	}
	if _, err := os.Stat(filepath.Join(fetchedDir(state), id+".snap.age")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was copied: %v", err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Fetch(t.Context(), o); err != nil {
		t.Errorf("with room: %v", err)
	}
}
