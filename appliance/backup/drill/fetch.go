package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/statefile"
)

// FetchOptions is what Fetch needs. It holds no key.
type FetchOptions struct {
	Destinations []snapshot.Destination
	// Cluster is whose snapshot it must be.
	Cluster string
	// ID picks one; the newest verified one when zero.
	ID snapshot.ID
	// Chosen says that a person has named the places: what is drilled proves nothing of the
	// job's. With ID it is so.
	Chosen bool
	// Unsigned takes it although nobody has signed it.
	Unsigned bool
	// Unverified takes the newest complete one, verified or not.
	Unverified bool
	// StateDir holds the job's lock and what is fetched. It must exist.
	StateDir string
	// TakeStateDir is the taking job's; may be empty.
	TakeStateDir string

	Now func() time.Time // time.Now when nil
	// Doubt is why this machine's clock is not to be believed; snapshot.ClockDoubt when
	// nil.
	Doubt func() error

	room string // of what is fetched; StateDir when empty
}

func (o *FetchOptions) chosen() bool { return o.Chosen || o.ID != (snapshot.ID{}) }

func (o *FetchOptions) place() string { return cmp.Or(o.room, o.StateDir) }

// Fetched tells of a snapshot that lies in the state folder, still encrypted.
type Fetched struct {
	ID         string    `json:"id"`
	From       string    `json:"from"` // the place's name
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	// Others is what was wrong with other places.
	Others string `json:"others,omitempty"`
	// Chosen says that a person has named it, or where it lies.
	Chosen bool `json:"chosen,omitempty"`
	// ClockDoubt is why the clock was not to be believed; empty where it was.
	ClockDoubt string `json:"clock_doubt,omitempty"`
}

func fetchedDir(stateDir string) string  { return filepath.Join(stateDir, "fetched") }
func fetchedFile(stateDir string) string { return filepath.Join(stateDir, "fetched.json") }

// Fetch copies one snapshot from where backups go into the state folder and
// compares its ciphertext with its manifest. What an earlier run left there goes
// first.
func Fetch(ctx context.Context, o FetchOptions) (Fetched, error) {
	unlock, err := lock(o.StateDir)
	if err != nil {
		return Fetched{}, err
	}
	defer unlock()
	f, err := o.fetch(ctx)
	if err != nil || f.Chosen {
		return f, err
	}
	return f, forgetFetchFailure(o.StateDir)
}

func (o *FetchOptions) fetch(ctx context.Context) (Fetched, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Doubt == nil {
		o.Doubt = func() error { return snapshot.ClockDoubt(o.TakeStateDir, o.Now()) }
	}
	f := Fetched{StartedAt: o.Now().UTC(), Chosen: o.chosen()}
	if doubt := o.Doubt(); doubt != nil {
		f.ClockDoubt = doubt.Error()
	}
	if err := discard(o.place()); err != nil {
		return f, err
	}
	want, others, err := o.want(ctx)
	if err != nil {
		return f, fmt.Errorf("fetch snapshot: %w", err)
	}
	choice, damaged, err := restore.First(ctx, want, o.copyOf(ctx))
	if err != nil {
		return f, errors.Join(fmt.Errorf("fetch snapshot: %w", err), others, discard(o.place()))
	}
	f.ID, f.From, f.VerifiedAt = choice.Manifest.ID, choice.Destination.Name(), choice.VerifiedAt
	if err := errors.Join(others, damaged); err != nil {
		f.Others = err.Error()
	}
	f.FinishedAt = o.Now().UTC()
	// The commit point: with this file there is a fetched snapshot.
	return f, statefile.Save(fetchedFile(o.place()), f, 0o600)
}

// copyOf copies one into the state folder, where nothing is left of one before it.
func (o *FetchOptions) copyOf(ctx context.Context) func(restore.Choice) error {
	return func(c restore.Choice) error {
		id, err := snapshot.ParseID(c.Manifest.ID)
		if err != nil {
			return err
		}
		if err := discard(o.place()); err != nil {
			return restore.Here(err)
		}
		if err := os.Mkdir(fetchedDir(o.place()), 0o700); err != nil {
			return restore.Here(err)
		}
		if err := snapshot.Room(o.place(), drillRoom(c.Manifest)); err != nil {
			return err
		}
		to, err := snapshot.NewDir(fetchedDir(o.place()))
		if err != nil {
			return restore.Here(err)
		}
		m, err := snapshot.Copy(ctx, c.Destination, to, id)
		if err == nil && m.Sum() != c.Manifest.Sum() {
			err = fmt.Errorf("%s: %s: %w: its manifest was another one a moment ago", c.Destination.Name(), id, snapshot.ErrMismatch)
		}
		return err
	}
}

// drillRoom is what a drill needs on the disk, in bytes: the snapshot twice, and a Vault,
// which holds its state up to three times while it restores.
func drillRoom(m snapshot.Manifest) int64 { return 2*m.Snapshot.Size + 3*m.StateSize }

// want says what First is to look for.
func (o *FetchOptions) want(ctx context.Context) (w restore.Wanted, others, err error) {
	w = restore.Wanted{Places: o.Destinations, Cluster: o.Cluster, ID: o.ID, Unsigned: o.Unsigned, NoOlder: true}
	switch {
	case o.ID != (snapshot.ID{}):
		if o.Cluster != "" && o.ID.Cluster != o.Cluster {
			return w, nil, fmt.Errorf("%w: %s is not of cluster %q", snapshot.ErrWrongCluster, o.ID, o.Cluster)
		}
	case o.Unverified:
		w.ID, others, err = newest(ctx, o.Destinations, o.Cluster)
	}
	return w, others, err
}

// newest finds the newest complete snapshot, verified or not.
func newest(ctx context.Context, dests []snapshot.Destination, cluster string) (at snapshot.ID, others, err error) {
	found, others := snapshot.ListPlaces(ctx, dests, cluster)
	listed, err := snapshot.NewestFirst(found, func(snapshot.Placed) bool { return true })
	switch {
	case err != nil:
		return at, nil, errors.Join(err, others)
	case len(listed) == 0:
		return at, nil, errors.Join(others, snapshot.Untrusted(found), fmt.Errorf("%w of cluster %q", snapshot.ErrNoSnapshot, cluster))
	}
	return listed[0].ID, others, nil
}

// discard removes everything that a fetch or a drill leaves in a state folder,
// but for its reports.
func discard(stateDir string) error {
	// The record first: it never tells of what is not there.
	if err := os.Remove(fetchedFile(stateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove remains: %w", err)
	}
	for _, dir := range []string{fetchedDir(stateDir), workDir(stateDir)} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove remains: %w", err)
		}
	}
	return nil
}

// loadFetched reads what Fetch left.
func loadFetched(stateDir string) (Fetched, error) {
	var f Fetched
	err := statefile.Load(fetchedFile(stateDir), 0, &f)
	if errors.Is(err, statefile.ErrNone) {
		failed, err := report.LastFetchFailure(stateDir)
		if err != nil || failed == nil {
			return Fetched{}, errors.Join(ErrNotFetched, err)
		}
		return Fetched{}, fmt.Errorf("%w: the last fetch failed at %s: %s", ErrNotFetched, failed.At.Format(time.RFC3339), failed.Error)
	}
	if err != nil {
		return Fetched{}, fmt.Errorf("fetched snapshot: %w", err)
	}
	return f, nil
}

// Discard removes everything that a fetch or a drill has left, but for its
// reports. statefile.ErrBusy while one is under way.
func Discard(stateDir string) error {
	unlock, err := lock(stateDir)
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(discard(stateDir), discardRoom(stateDir))
}
