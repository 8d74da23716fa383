package restore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"strongroom.example/appliance/base/atomicfile"
)

// Epoch is what the apikeys engine compares its storage with. It never goes back.
type Epoch struct {
	Installation string `json:"installation_id"`
	Epoch        int64  `json:"epoch"`
}

// ParseEpoch reads the content of an epoch file.
func ParseEpoch(data []byte) (Epoch, error) {
	var e Epoch
	if err := json.Unmarshal(data, &e); err != nil || e.Installation == "" || e.Epoch < 0 {
		return Epoch{}, errors.New("want one JSON object with installation_id and epoch")
	}
	return e, nil
}

// Next is the one after it.
func (e Epoch) Next() Epoch {
	e.Epoch++
	return e
}

// Encode is the content of its file.
func (e Epoch) Encode() ([]byte, error) {
	b, err := json.Marshal(e)
	return append(b, '\n'), err
}

// raiseEpoch adds one to the epoch in the file that the apikeys engine compares
// its storage with. It returns how to take that back, for a restore that Vault
// has refused. Without a file there is no appliance and nothing to do.
func raiseEpoch(path string) (raised bool, undo func() error, err error) {
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
	after, err := e.Next().Encode()
	if err != nil {
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
