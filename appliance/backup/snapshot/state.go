package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
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
	// Last is the last snapshot that each destination holds, by its name.
	Last map[string]TakenRecord `json:"last,omitempty"`
	// Failure is the last run's, if it failed.
	Failure *Failure `json:"failure,omitempty"`
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
	Size           int64     `json:"size"` // bytes of ciphertext
}

// VerifyState is what the verifying job remembers.
type VerifyState struct {
	Format int `json:"format"`
	// LastGood is the newest verified snapshot in each destination, by its
	// name. A failure never changes it.
	LastGood map[string]VerifiedRecord `json:"last_good,omitempty"`
	// Failure is the last run's, if it failed.
	Failure *Failure `json:"failure,omitempty"`
}

// VerifiedRecord tells of one snapshot that was downloaded, decrypted and
// compared. It is also what the proof beside the snapshot holds.
type VerifiedRecord struct {
	ID             string    `json:"id"`
	TakenAt        time.Time `json:"taken_at"`
	VerifiedAt     time.Time `json:"verified_at"`
	ManifestSHA256 string    `json:"manifest_sha256"`
	RaftIndex      uint64    `json:"raft_index"`
	Size           int64     `json:"size"` // bytes of ciphertext
	ToolVersion    string    `json:"tool_version"`
}

// Failure tells of a failed run.
type Failure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// LoadTakeState reads the taking job's state from a state directory. It is
// empty where there is none yet.
func LoadTakeState(dir string) (TakeState, error) {
	s := TakeState{Format: stateFormat}
	err := loadState(filepath.Join(dir, takeStateFile), &s, &s.Format)
	return s, err
}

// LoadVerifyState reads the verifying job's state from a state directory. It
// is empty where there is none yet.
func LoadVerifyState(dir string) (VerifyState, error) {
	s := VerifyState{Format: stateFormat}
	err := loadState(filepath.Join(dir, verifyStateFile), &s, &s.Format)
	return s, err
}

func (s TakeState) save(dir string) error {
	return saveState(filepath.Join(dir, takeStateFile), s)
}

func (s VerifyState) save(dir string) error {
	return saveState(filepath.Join(dir, verifyStateFile), s)
}

// RecordTakeFailure notes why a taking job failed before it came to Take. The
// records of snapshots stay. While another run is under way it does nothing: that
// one's result is what counts.
func RecordTakeFailure(dir string, at time.Time, failure error) error {
	unlock, err := lock(dir, "take")
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	s, err := LoadTakeState(dir)
	if err != nil {
		return err
	}
	s.Failure = &Failure{At: at.UTC(), Error: failure.Error()}
	return s.save(dir)
}

// RecordStandby notes that a taking job stood aside on a standby node. It is no
// failure, and ends one.
func RecordStandby(dir string, at time.Time) error {
	unlock, err := lock(dir, "take")
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	s, err := LoadTakeState(dir)
	if err != nil {
		return err
	}
	at = at.UTC()
	s.Standby, s.Failure, s.CanaryFailure = &at, nil, nil
	return s.save(dir)
}

// RecordVerifyFailure is RecordTakeFailure for the verifying job.
func RecordVerifyFailure(dir string, at time.Time, failure error) error {
	unlock, err := lock(dir, "verify")
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	s, err := LoadVerifyState(dir)
	if err != nil {
		return err
	}
	s.Failure = &Failure{At: at.UTC(), Error: failure.Error()}
	return s.save(dir)
}

func loadState(path string, v any, format *int) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("state file %q: %w: %w", path, ErrCorrupt, err)
	}
	if *format != stateFormat {
		return fmt.Errorf("state file %q: format %d, this program reads %d", path, *format, stateFormat)
	}
	return nil
}

func saveState(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	// 0640: status and doctor read it through the group; nothing in it is
	// secret.
	f, err := atomicfile.Create(path, 0o640)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := atomicfile.LikeFolder(filepath.Dir(path), f); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		return err
	}
	return f.Commit()
}

// lock keeps two runs of one job apart. It is gone with the process, whatever
// ends it. A link is not followed: the folder may be another user's, who would
// be given what it leads to.
func lock(dir, job string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "."+job+".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := errors.Join(atomicfile.LikeFolder(dir, f), unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %q: %w", f.Name(), ErrBusy)
		}
		return nil, fmt.Errorf("lock %q: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil
}
