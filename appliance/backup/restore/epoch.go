package restore

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/atomicfile"
)

// Epoch is what the apikeys engine compares its storage with. It never goes back.
type Epoch struct {
	Installation string `json:"installation_id"`
	// Lineage is that of the storage since the restore that made this epoch; nil
	// where there was none, or an earlier version made it.
	Lineage *snapshot.Lineage `json:"lineage,omitempty"`
	Epoch   int64             `json:"epoch"`
}

// ParseEpoch reads the content of an epoch file.
func ParseEpoch(data []byte) (Epoch, error) {
	var e Epoch
	if err := json.Unmarshal(data, &e); err != nil || e.Installation == "" || e.Epoch < 0 {
		return Epoch{}, errors.New("want one JSON object with installation_id and epoch")
	}
	return e, nil
}

// Of is the lineage that is written under this epoch.
func (e Epoch) Of() *snapshot.Lineage {
	if e.Lineage != nil && e.Lineage.Epoch == e.Epoch {
		return e.Lineage
	}
	return &snapshot.Lineage{ID: e.Installation, Epoch: e.Epoch}
}

// Next is the one after it, where this machine's own storage goes back.
func (e Epoch) Next() Epoch { return e.After(e.Of(), 0) }

// After is the one after it and after that of a snapshot, which left its lineage (nil
// where it names none) at a raft index: a new lineage begins.
func (e Epoch) After(from *snapshot.Lineage, left uint64) Epoch {
	next := snapshot.Lineage{ID: strings.ToLower(rand.Text()), Epoch: e.Epoch + 1, Left: left}
	if from != nil {
		next.Parent, next.Epoch = from.ID, max(e.Epoch, from.Epoch)+1
	}
	e.Epoch, e.Lineage = next.Epoch, &next
	return e
}

// LineageIn is the lineage that an epoch file tells of; nil where there is none.
func LineageIn(file string) (*snapshot.Lineage, error) {
	data, err := os.ReadFile(file)
	if file == "" || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoch file: %w", err)
	}
	e, err := ParseEpoch(data)
	if err != nil {
		return nil, fmt.Errorf("epoch file %q: %w", file, err)
	}
	return e.Of(), nil
}

// Encode is the content of its file.
func (e Epoch) Encode() ([]byte, error) {
	b, err := json.Marshal(e)
	return append(b, '\n'), err
}

// raiseEpoch raises the epoch in the file that the apikeys engine compares its storage
// with above its own and that of the snapshot. It returns how to take that back, for a restore that Vault
// has refused. Without a file there is no appliance and nothing to do.
func raiseEpoch(path, noted string, from *snapshot.Lineage, left uint64) (raised bool, undo func() error, err error) {
	none := func() error { return nil }
	if path == "" {
		return false, none, nil
	}
	before, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, none, nil
	}
	if err != nil {
		return false, none, fmt.Errorf("epoch file: %w", err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return false, none, fmt.Errorf("epoch file: %w", err)
	}
	e, err := ParseEpoch(before)
	if err != nil {
		return false, none, fmt.Errorf("epoch file %q: %w", path, err)
	}
	after, err := e.After(from, left).Encode()
	if err != nil {
		return false, none, err
	}
	if err := note(noted, func(w *Waits) { w.Epoch, w.Raised = string(before), string(after) }); err != nil {
		return false, none, err
	}
	if err := replaceKeepingOwner(path, after, fi); err != nil {
		return false, none, err
	}
	return true, func() error { return replaceKeepingOwner(path, before, fi) }, nil
}

// replaceKeepingOwner writes a file whose reader, Vault, is another user. It has
// its owner before it appears: Vault cannot go without it for a moment.
func replaceKeepingOwner(path string, data []byte, was fs.FileInfo) error {
	f, err := atomicfile.Create(path, was.Mode().Perm())
	if err != nil {
		return fmt.Errorf("epoch file: %w", err)
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("epoch file: %w", err)
	}
	if uid, gid, ok := ownerOf(was); ok && (uid != os.Geteuid() || gid != os.Getegid()) {
		if err := f.Chown(uid, gid); err != nil {
			return fmt.Errorf("epoch file: %w", err)
		}
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("epoch file: %w", err)
	}
	return nil
}
