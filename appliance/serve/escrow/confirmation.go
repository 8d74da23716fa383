package escrow

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/statefile"
)

const (
	// ConfirmationFile is the record's name in the escrow's folder.
	ConfirmationFile   = "confirmed.json"
	confirmationFormat = 1
)

// The ways to a confirmation.
const (
	ByChallenge = "challenge" // strongroom escrow confirm
	ByRotation  = "rotation"  // the code in the escrow of a new master key
	ByRestore   = "restore"   // it has rebuilt this machine
)

// Confirmation records which escrow files have proved that they open off the
// machine. It holds no secret.
type Confirmation struct {
	Format int                  `json:"format"`
	Files  map[string]Confirmed `json:"files"` // by base name
}

// Confirmed is the proof for one file.
type Confirmed struct {
	// SealedSHA256 is of the file that was opened, hex. Once another is in its
	// place, after a rotation say, the proof is worth nothing.
	SealedSHA256 string `json:"sealed_sha256"`
	// Key is the fingerprint of the master key, for its escrow.
	Key string    `json:"key,omitempty"`
	At  time.Time `json:"at"`
	By  string    `json:"by"` // ByChallenge, ByRotation or ByRestore
}

// LoadConfirmation reads the record in the escrow's folder; an empty one where
// nothing has been confirmed yet. Whether a proof still counts is for
// LoadStatus to say.
func LoadConfirmation(dir string) (Confirmation, error) {
	none := Confirmation{Format: confirmationFormat, Files: map[string]Confirmed{}}
	path := filepath.Join(dir, ConfirmationFile)
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	c, err := ParseConfirmation(data)
	if err != nil {
		return none, fmt.Errorf("%q: %w", path, err)
	}
	return c, nil
}

// ParseConfirmation reads what ConfirmationFile holds.
func ParseConfirmation(data []byte) (Confirmation, error) {
	var c Confirmation
	if err := statefile.Decode(data, confirmationFormat, &c); err != nil {
		return Confirmation{}, fmt.Errorf("escrow confirmation: %w", err)
	}
	if c.Files == nil {
		c.Files = map[string]Confirmed{}
	}
	for name, f := range c.Files {
		if err := checkFileName(name); err != nil {
			return Confirmation{}, err
		}
		if !isSum(f.SealedSHA256) || f.At.IsZero() {
			return Confirmation{}, fmt.Errorf("escrow confirmation: the proof of %q is damaged", name)
		}
	}
	return c, nil
}

// FileStatus is what is known of one escrow file.
type FileStatus struct {
	File         string `json:"file"` // base name
	SealedSHA256 string `json:"sealed_sha256"`
	// Key is the fingerprint of the master key, for its escrow.
	Key string `json:"key,omitempty"`
	// OnDisk tells whether a copy is on this machine.
	OnDisk bool `json:"on_disk"`
	// ConfirmedAt is when this very version proved that it opens off the
	// machine; zero: not yet. By is how.
	ConfirmedAt time.Time `json:"confirmed_at"`
	By          string    `json:"by,omitempty"`
	// Replaced is true when an earlier version was confirmed and this one was
	// not.
	Replaced bool `json:"replaced"`
	// Challenges that are left for it.
	Challenges int `json:"challenges"`
}

// Confirmed tells whether the file has proved that it opens off the machine.
func (s FileStatus) Confirmed() bool { return !s.ConfirmedAt.IsZero() }

// LoadStatus gives every escrow file that the folder knows of, by name. An
// unconfirmed one that is on the disk may be the only copy there is.
func LoadStatus(dir string) ([]FileStatus, error) {
	checks, err := loadChecks(dir)
	if err != nil {
		return nil, err
	}
	done, err := LoadConfirmation(dir)
	if err != nil {
		return nil, err
	}
	// What was confirmed by a code or a restore has no challenges; without the
	// file itself the record is all that is known.
	for name, f := range done.Files {
		if _, ok := checks[name]; !ok {
			checks[name] = Checks{File: name, SealedSHA256: f.SealedSHA256, Key: f.Key}
		}
	}
	var out []FileStatus
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		c := checks[name]
		s := FileStatus{File: name, SealedSHA256: c.SealedSHA256, Key: c.Key, Challenges: len(c.Unused)}
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			s.OnDisk = true
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("escrow folder: %w", err)
		}
		if f, ok := done.Files[name]; ok {
			if f.SealedSHA256 == c.SealedSHA256 {
				s.ConfirmedAt, s.By = f.At, f.By
				if s.Key == "" {
					s.Key = f.Key
				}
			} else {
				s.Replaced = true
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// Record notes that the file, as it is in dir now, has proved that it opens off
// the machine.
func Record(dir, file, by, key string, now time.Time) error {
	s, err := sumOf(filepath.Join(dir, file))
	if err != nil {
		return err
	}
	return record(dir, map[string]Confirmed{file: {SealedSHA256: s, Key: key, At: now.UTC(), By: by}}, atomicfile.Write)
}

type writer func(path string, data []byte, perm fs.FileMode) error

func record(dir string, proofs map[string]Confirmed, write writer) error {
	c, err := LoadConfirmation(dir)
	if err != nil {
		return err
	}
	maps.Copy(c.Files, proofs)
	data, err := statefile.Encode(c)
	if err != nil {
		return err
	}
	return write(filepath.Join(dir, ConfirmationFile), data, 0o640)
}
