package snapshot

import (
	"errors"
	"maps"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/statefile"
)

// The state files. Each is written by one unit only, so that the job that takes
// snapshots cannot call one verified.
const (
	takeStateFile   = "taken.json"
	verifyStateFile = "verified.json"
)

const stateFormat = 1

// TakeState is what the taking job remembers.
type TakeState struct {
	Format int `json:"format"`
	// Began is when the last run did, its tries being one.
	Began time.Time `json:"began,omitzero"`
	// Last is the last snapshot that each destination holds, by its name.
	Last map[string]TakenRecord `json:"last,omitempty"`
	// FirstSigned is the first one of each cluster, by its id, whose manifest was signed.
	FirstSigned map[string]TakenRecord `json:"first_signed,omitempty"`
	// Markers are the ids that places bear, by name.
	Markers map[string]string `json:"markers,omitempty"`
	// Failure is the last run's, if it failed, and Failures are those of its places, by
	// name.
	Failure  *Failure           `json:"failure,omitempty"`
	Failures map[string]Failure `json:"failures,omitempty"`
	// CanaryFailure is why the last run's snapshot has no canary although there
	// is a login for it. A drill of such a snapshot fails.
	CanaryFailure *Failure `json:"canary_failure,omitempty"`
	// Standby is when the last run stood aside because this node was a standby:
	// the leader takes the snapshots. Nil: it did not.
	Standby *time.Time `json:"standby,omitempty"`
}

// TakenRecord tells of one stored snapshot.
type TakenRecord struct {
	ID             string    `json:"id"`
	TakenAt        time.Time `json:"taken_at"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	Lineage        *Lineage  `json:"lineage,omitempty"`
	RaftIndex      uint64    `json:"raft_index,omitempty"` // 0 in records of earlier versions
	Size           int64     `json:"size"`                 // bytes of ciphertext
	SignedBy       string    `json:"signed_by,omitempty"`  // fingerprint of the key
}

// Position is the snapshot's.
func (r TakenRecord) Position() Position { return position(r.Lineage, r.RaftIndex) }

// VerifyState is what the verifying job remembers.
type VerifyState struct {
	Format int `json:"format"`
	// LastGood is the newest verified snapshot in each destination, by its
	// name. A failure never changes it.
	LastGood map[string]VerifiedRecord `json:"last_good,omitempty"`
	// Failure is the last run's, if it failed, and Failures are those of its places,
	// by name.
	Failure  *Failure           `json:"failure,omitempty"`
	Failures map[string]Failure `json:"failures,omitempty"`
	// Seen is the sum of the taking job's state as the last run that it had led to left it.
	Seen string `json:"seen,omitempty"`
	// ClockDoubted is in how many runs in a row the clock was in doubt.
	ClockDoubted int `json:"clock_doubted,omitempty"`
}

// VerifiedRecord tells of one snapshot that was downloaded, decrypted and
// compared. It is also what the proof beside the snapshot holds.
type VerifiedRecord struct {
	ID             string    `json:"id"`
	TakenAt        time.Time `json:"taken_at"`
	VerifiedAt     time.Time `json:"verified_at"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	Lineage        *Lineage  `json:"lineage,omitempty"`
	RaftIndex      uint64    `json:"raft_index"`
	Size           int64     `json:"size"` // bytes of ciphertext
	ToolVersion    string    `json:"tool_version"`
	// ClockInDoubt is the manifest's: nobody knows when it was taken.
	ClockInDoubt bool `json:"clock_in_doubt,omitempty"`
	// LockedUntil is when the place lets it be deleted; zero where nothing holds it.
	LockedUntil time.Time `json:"locked_until,omitzero"`
}

// Position is the snapshot's.
func (r VerifiedRecord) Position() Position { return position(r.Lineage, r.RaftIndex) }

// Failure tells of a failed run.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// forgetAfter is when the failure of a place that nobody asks any more counts for nothing:
// it is no longer configured.
const forgetAfter = 25 * time.Hour

// settle notes of places how they have done. A place that is not asked keeps its failure
// for a while.
func settle(all map[string]Failure, at time.Time, places []Destination, failed map[string]error) map[string]Failure {
	out := maps.Clone(all)
	if out == nil {
		out = map[string]Failure{}
	}
	maps.DeleteFunc(out, func(_ string, f Failure) bool { return at.Sub(f.At).Abs() > forgetAfter })
	for _, d := range places {
		delete(out, d.Name())
		if err := failed[d.Name()]; err != nil {
			out[d.Name()] = Failure{At: at.UTC(), Error: err.Error()}
		}
	}
	return out
}

func (s *TakeState) mark(place, id string) {
	if id == "" {
		return
	}
	if s.Markers == nil {
		s.Markers = map[string]string{}
	}
	s.Markers[place] = id
}

// LoadTakeState reads the taking job's state from a state directory. It is
// empty where there is none yet.
func LoadTakeState(dir string) (TakeState, error) {
	s := TakeState{Format: stateFormat}
	err := loadState(filepath.Join(dir, takeStateFile), &s)
	return s, err
}

// ParseVerifyState reads the verifying job's state for whoever reads files by other
// means.
func ParseVerifyState(data []byte) (VerifyState, error) {
	var s VerifyState
	err := statefile.Decode(data, stateFormat, &s)
	return s, err
}

// LoadVerifyState reads the verifying job's state from a state directory. It
// is empty where there is none yet.
func LoadVerifyState(dir string) (VerifyState, error) {
	s := VerifyState{Format: stateFormat}
	err := loadState(filepath.Join(dir, verifyStateFile), &s)
	return s, err
}

func (s TakeState) save(dir string) error {
	return statefile.Save(filepath.Join(dir, takeStateFile), s, 0o640)
}

func (s VerifyState) save(dir string) error {
	return statefile.Save(filepath.Join(dir, verifyStateFile), s, 0o640)
}

// RecordTakeFailure notes why a taking job that began at a time failed before it came to
// Take. The records of snapshots stay. While another run is under way it does nothing: that
// one's result is what counts.
func RecordTakeFailure(dir string, began, at time.Time, failure error) error {
	return unlessBusy(dir, "take", func() error {
		s, err := LoadTakeState(dir)
		if err != nil {
			return err
		}
		s.Began = began.UTC()
		s.Failure = &Failure{At: at.UTC(), Error: failure.Error()}
		return s.save(dir)
	})
}

// RecordStandby notes that a taking job stood aside on a standby node. It is no
// failure, and ends one.
func RecordStandby(dir string, at time.Time) error {
	return unlessBusy(dir, "take", func() error {
		s, err := LoadTakeState(dir)
		if err != nil {
			return err
		}
		at = at.UTC()
		s.Standby, s.Failure, s.CanaryFailure = &at, nil, nil
		return s.save(dir)
	})
}

// RecordVerifyFailure is RecordTakeFailure for the verifying job.
func RecordVerifyFailure(dir string, at time.Time, failure error) error {
	return unlessBusy(dir, "verify", func() error {
		s, err := LoadVerifyState(dir)
		if err != nil {
			return err
		}
		s.Failure = &Failure{At: at.UTC(), Error: failure.Error()}
		return s.save(dir)
	})
}

// unlessBusy notes something while no other run of the job is under way: else that
// one's result is what counts.
func unlessBusy(dir, job string, note func() error) error {
	unlock, err := lock(dir, job)
	if errors.Is(err, statefile.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return note()
}

// loadState leaves v as it is where there is no state yet.
func loadState(path string, v any) error {
	if err := statefile.Load(path, stateFormat, v); !errors.Is(err, statefile.ErrNone) {
		return err
	}
	return nil
}

// lock keeps two runs of one job apart.
func lock(dir, job string) (unlock func(), err error) {
	return statefile.Lock(filepath.Join(dir, "."+job+".lock"), "")
}
