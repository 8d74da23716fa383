package drill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config/machine"
)

// FetchJob fetches for the unit that drills afterwards: again where that may help,
// and noted for status and doctor where it failed for good.
type FetchJob struct {
	// Options give what is fetched, anew for each try: a place may be away when it
	// is opened, too.
	Options  func(ctx context.Context) (FetchOptions, error)
	StateDir string
	// Chosen says that a person has named the snapshot: a failure is that one's, and
	// not the quarter's.
	Chosen bool
	// Fresh is how old a verified snapshot may be so that nobody waits for a newer one,
	// and Wait for how long: after a start, or when the places were away, there is one
	// soon.
	Fresh, Wait time.Duration
	// Pause waits between two looks; pause.For when nil.
	Pause func(context.Context, time.Duration) error
	Tries pause.Tries // MayPass is filled in
	Now   func() time.Time
}

// Run fetches.
func (j FetchJob) Run(ctx context.Context) (f Fetched, err error) {
	j.Tries.MayPass = mayPass
	if j.Pause == nil {
		j.Pause = pause.For
	}
	err = j.Tries.Do(ctx, func(ctx context.Context) error {
		o, err := j.Options(ctx)
		if err != nil {
			return err
		}
		if err := j.await(ctx, o); err != nil {
			return err
		}
		f, err = Fetch(ctx, o)
		return err
	})
	if err != nil && !j.Chosen {
		return f, errors.Join(err, RecordFetchFailure(j.StateDir, j.Now(), err))
	}
	return f, err
}

// lookEvery is how often one looks for a newer snapshot.
const lookEvery = time.Minute

// await waits until the newest verified snapshot is fresh, and no longer than Wait, which
// it counts in looks: a clock may be set meanwhile. Whatever is there then is drilled
// with, and its age judged.
func (j *FetchJob) await(ctx context.Context, o FetchOptions) error {
	if o.ID != (snapshot.ID{}) || o.Unverified {
		return nil
	}
	for ; j.Wait > 0; j.Wait -= lookEvery {
		// What is wrong with a place, the fetch tells.
		listed, _ := snapshot.ListPlaces(ctx, o.Destinations, o.Cluster)
		newest, err := snapshot.NewestFirst(listed, func(p snapshot.Placed) bool { return p.Verified })
		if now := j.Now(); err == nil && len(newest) > 0 && !newest[0].InDoubt(now) && now.Sub(newest[0].ID.Time()) <= j.Fresh {
			return nil
		}
		if err := j.Pause(ctx, lookEvery); err != nil {
			return err
		}
	}
	return nil
}

// mayPass says whether another try may fetch: after a fault of the network,
// whatever else was wrong with other places, and not where a person must act.
func mayPass(err error) bool {
	return errors.Is(err, snapshot.ErrUnreachable) || errors.Is(err, snapshot.ErrStalled) || snapshot.MayPass(err)
}

// preparedFile holds the fingerprint of the master key that the escrow's record
// names, for a job that may not look into the escrow's folder.
const preparedFile = "escrow-key"

// Prepare is what root does before the units: what a drill by hand that was killed
// has left is root's, and so is the escrow's folder, from which key is (EscrowedKey).
// A fingerprint gives nothing of the key away.
func Prepare(stateDir, key string) error {
	if err := Discard(stateDir); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(stateDir, preparedFile), []byte(key+"\n"), 0o644)
}

// Prepared is the fingerprint that Prepare has left; empty where it was not run, or
// there is no escrow.
func Prepared(stateDir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(stateDir, preparedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the escrow's record: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// EscrowedKey is the fingerprint of the master key that the escrow's record names;
// empty where there is none.
func EscrowedKey(escrowDir string) (string, error) {
	files, err := escrow.LoadStatus(escrowDir)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if f.File == filepath.Base(machine.MasterKeyEscrow) {
			return f.Key, nil
		}
	}
	return "", nil
}
