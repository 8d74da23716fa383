package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
)

// away is a place that can't be asked.
type away struct{ snapshot.Destination }

func (away) Name() string { return "away" }
func (away) List(context.Context, string) ([]snapshot.ObjectInfo, error) {
	return nil, fmt.Errorf("away: %w", snapshot.ErrUnreachable)
}

func TestSource(t *testing.T) {
	s := newStore(t)
	now := time.Now().Truncate(time.Second)
	good, newer := s.take(t, now.Add(-time.Hour), true), s.take(t, now, false)
	plain := filepath.Join(t.TempDir(), "vault.snap")
	if err := os.WriteFile(plain, testArchive(t), 0o600); err != nil {
		t.Fatal(err)
	}
	empty, err := snapshot.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ids := []age.Identity{s.id}
	for _, tt := range []struct {
		name  string
		from  Source
		id    string // of what is found; empty for a file
		notes []string
		err   error
	}{
		{"the newest verified", Source{Places: []snapshot.Destination{s.dest}, Identities: ids}, good.String(), nil, nil},
		{"one of several places is away", Source{Places: []snapshot.Destination{away{}, s.dest}, Identities: ids}, good.String(), []string{"not every copy could be used: away"}, nil},
		{"by name, not verified", Source{Places: []snapshot.Destination{s.dest}, ID: newer, Identities: ids}, newer.String(), []string{"it was not verified"}, nil},
		{"a file, not encrypted", Source{File: plain}, "", nil, nil},
		{"a file counts alone", Source{File: plain, Places: []snapshot.Destination{away{}}, ID: newer}, "", nil, nil},
		{"nothing there", Source{Places: []snapshot.Destination{empty}, Identities: ids}, "", nil, snapshot.ErrNoSnapshot},
		{"another cluster", Source{Places: []snapshot.Destination{s.dest}, Cluster: "two", Identities: ids}, "", nil, snapshot.ErrNoSnapshot},
		{"no place", Source{Identities: ids}, "", nil, snapshot.ErrNoSnapshot},
		{"no place, by name", Source{ID: good, Identities: ids}, "", nil, snapshot.ErrNoSnapshot},
		{"no place, of a cluster", Source{Cluster: "one", Identities: ids}, "", nil, snapshot.ErrNoSnapshot},
		{"away", Source{Places: []snapshot.Destination{away{}}, Identities: ids}, "", nil, snapshot.ErrUnreachable},
		{"nobody to open it", Source{Places: []snapshot.Destination{s.dest}}, "", nil, errAny},
		{"no such file", Source{File: plain + "-none"}, "", nil, os.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.from.TakeState, tt.from.Dir = t.TempDir(), t.TempDir()
			f, err := tt.from.Fetch(t.Context())
			if tt.err != nil {
				if err == nil || tt.err != errAny && !errors.Is(err, tt.err) {
					t.Errorf("%v, want %v", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Choice.Manifest.ID != tt.id || f.Archive.Index == 0 || f.From == "" {
				t.Errorf("%+v", f)
			}
			if len(f.Notes) != len(tt.notes) || !slices.EqualFunc(f.Notes, tt.notes, strings.HasPrefix) {
				t.Errorf("notes %q", f.Notes)
			}
			if left, err := os.ReadDir(tt.from.Dir); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
}

// Making a plan changes nothing, not even the folder for what is replaced; carrying
// it out keeps that first.
func TestPlan(t *testing.T) {
	s := newStore(t)
	s.opts.Vault.Version = "1.20.0"
	s.take(t, time.Now(), true)
	epoch := filepath.Join(t.TempDir(), "epoch.json")
	if err := os.WriteFile(epoch, []byte(`{"installation_id":"x","epoch":4}`), 0o640); err != nil {
		t.Fatal(err)
	}
	from := Source{Places: []snapshot.Destination{s.dest}, Identities: []age.Identity{s.id}, TakeState: t.TempDir(), Dir: t.TempDir()}
	keep := &Keeping{Dir: filepath.Join(t.TempDir(), "a", "replaced"), Recipients: s.opts.Recipients, ToolVersion: "test"}
	v := &fakeVault{reconcile: reconciled}
	o := Options{Vault: v.start(t), EpochFile: epoch, Patience: time.Minute, Poll: time.Millisecond}
	p, err := NewPlan(t.Context(), from, keep, o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !p.RaisesEpoch || p.Health.ClusterID != "one" || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "Vault 1.20.0 and goes into Vault 1.21.1") {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(keep.Dir); err == nil || len(v.calls) > 0 || readEpoch(t, epoch) != 4 {
		t.Errorf("the plan has changed something: %q, %v", v.calls, err)
	}
	// What is replaced can't be kept: nothing is done. This Vault gives no snapshot.
	if res, err := p.Run(t.Context()); err == nil || res.Restored || readEpoch(t, epoch) != 4 {
		t.Errorf("%+v, %v", res, err)
	}
	if fi, err := os.Stat(keep.Dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}

	for name, bad := range map[string]*Keeping{
		"for nobody":          {Dir: t.TempDir()},
		"where no folder can": {Dir: epoch + "/below", Recipients: s.opts.Recipients},
	} {
		p.keep = bad
		if res, err := p.Run(t.Context()); err == nil || res.Restored || !strings.Contains(err.Error(), "nothing was done") {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	p.keep = nil
	if res, err := p.Run(t.Context()); err != nil || !res.Restored || !res.EpochRaised || res.Kept != nil {
		t.Errorf("without keeping: %+v, %v", res, err)
	}

	o.EpochFile += "-none"
	stock, err := NewPlan(t.Context(), from, nil, o)
	if err != nil || stock.RaisesEpoch {
		t.Fatalf("a stock Vault: %+v, %v", stock, err)
	}
	stock.Close()
	from.Places = nil
	if _, err := NewPlan(t.Context(), from, nil, o); err == nil {
		t.Error("a plan without a snapshot")
	}
}

func TestSourceFiles(t *testing.T) {
	s := newStore(t)
	s.opts.Files = func(_ context.Context, w io.Writer) error {
		_, err := w.Write(tarOf(t, good()...))
		return err
	}
	id := s.take(t, time.Now(), true)
	from := Source{Places: []snapshot.Destination{away{}, s.dest}, Identities: []age.Identity{s.id}, TakeState: t.TempDir(), Dir: t.TempDir()}
	f, said, err := from.FetchFiles(t.Context())
	if err != nil || !strings.HasPrefix(said, id.String()+", from dir:") || !strings.Contains(said, "; not every copy could be used") {
		t.Fatalf("%q, %v", said, err)
	}
	f.Close()
	from.File = filepath.Join(s.path, "none")
	if _, said, err := from.FetchFiles(t.Context()); !errors.Is(err, os.ErrNotExist) || said != from.File {
		t.Errorf("%q, %v", said, err)
	}
	from.File, from.Places = "", []snapshot.Destination{away{}}
	if _, _, err := from.FetchFiles(t.Context()); !errors.Is(err, snapshot.ErrUnreachable) {
		t.Error(err)
	}
}

// Into their own places go all files but those of this machine alone.
func TestInPlace(t *testing.T) {
	own := []string{
		"etc/strongroom/epoch.json", "etc/strongroom/installed.json",
		"etc/strongroom/credentials/backup-s3", "etc/strongroom/tls/link.key",
	}
	come := []string{"etc/strongroom/appliance.toml", "etc/strongroom/epoch.json.old", "etc/strongroom/tls.txt", "var/lib/strongroom-front/key"}
	var members []member
	for _, name := range append(slices.Clone(own), come...) {
		members = append(members, member{name: name, body: "x"})
	}
	f, err := filesOf(t, tarOf(t, members...))
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/", link); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{"/", "//", "/.", link} {
		o, left, err := f.InPlace(t.Context(), UnpackOptions{Root: root})
		if err != nil || !slices.Equal(left, own) {
			t.Errorf("%s: left out %q, %v", root, left, err)
		}
		for _, name := range come {
			if !o.Want(name) {
				t.Errorf("%s: %s stays away", root, name)
			}
		}
	}
	for _, root := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if o, left, err := f.InPlace(t.Context(), UnpackOptions{Root: root}); err != nil || left != nil || o.Want != nil {
			t.Errorf("%s: %q, %v", root, left, err)
		}
	}
}
