package apikeys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"strongroom.example/plugin/lifecycle"
)

// Epoch identifies an installation and how often its storage was restored. It
// lies outside Vault's storage, so that a restored snapshot can be told from
// the storage that was last in use.
type Epoch struct {
	Installation string `json:"installation_id"`
	Number       int64  `json:"epoch"`
}

// EpochFileVariable is the environment variable that names the epoch file. Vault
// passes its own environment on to plugins.
const EpochFileVariable = "STRONGROOM_EPOCH_FILE"

const maxEpochBytes = 4096

// ReadEpoch reads the file that the appliance keeps: one JSON object with
// installation_id and epoch. An empty path means that there is no appliance.
func ReadEpoch(path string) (*Epoch, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("epoch file: %w", err)
	}
	defer f.Close() // only read
	raw, err := io.ReadAll(io.LimitReader(f, maxEpochBytes+1))
	if err != nil {
		return nil, fmt.Errorf("epoch file %s: %w", path, err)
	}
	return parseEpoch(path, raw)
}

func parseEpoch(path string, raw []byte) (*Epoch, error) {
	if len(raw) > maxEpochBytes {
		return nil, fmt.Errorf("epoch file %s: more than %d bytes", path, maxEpochBytes)
	}
	var e Epoch
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("epoch file %s: %w", path, err)
	}
	if e.Installation == "" || e.Number < 0 {
		return nil, fmt.Errorf("epoch file %s: installation_id must not be empty and epoch not negative", path)
	}
	return &e, nil
}

// fence keeps an engine from acting on storage that may be out of date: after
// a restore it serves reads, but mints, revokes and reaps nothing until
// reconcile. It is closed until the epoch has been compared, and stays closed
// where the epoch cannot be read.
type fence struct {
	path string

	mu     sync.RWMutex
	epoch  *Epoch // of this start; nil: no appliance
	meta   *metaRecord
	reason string // why it is closed; empty: open
}

func newFence(path string) *fence {
	return &fence{path: path, reason: "the engine has not finished its start"}
}

// raise compares the epochs. On storage that holds nothing yet it takes over
// the present one; writable says whether this node may write.
func (f *fence) raise(ctx context.Context, st store, writable, fresh bool, newMount func() (string, error)) error {
	epoch, epochErr := ReadEpoch(f.path)
	var meta metaRecord
	ok, err := st.get(ctx, metaKey, &meta)
	if err != nil {
		return err
	}
	if !ok {
		if !writable {
			f.set(epoch, nil, "the mount has not been initialised by its active node yet")
			return nil
		}
		if meta.Mount, err = newMount(); err != nil {
			return err
		}
		if fresh && epochErr == nil {
			meta.adopt(epoch)
		}
		if err := st.put(ctx, metaKey, meta); err != nil {
			return err
		}
	}
	f.set(epoch, &meta, fenceReason(epoch, epochErr, &meta))
	return nil
}

func fenceReason(epoch *Epoch, epochErr error, meta *metaRecord) string {
	switch {
	case epochErr != nil:
		return epochErr.Error()
	case epoch == nil:
		return ""
	case meta.Installation == "":
		return fmt.Sprintf("the storage was in use without an epoch, this installation is %q, epoch %d", epoch.Installation, epoch.Number)
	case meta.Installation != epoch.Installation || meta.Epoch != epoch.Number:
		return fmt.Sprintf("the storage was last in use by installation %q, epoch %d; this is %q, epoch %d: it has been restored",
			meta.Installation, meta.Epoch, epoch.Installation, epoch.Number)
	}
	return ""
}

func (m *metaRecord) adopt(e *Epoch) {
	if e != nil {
		m.Installation, m.Epoch = e.Installation, e.Number
	}
}

func (f *fence) set(epoch *Epoch, meta *metaRecord, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch, f.meta, f.reason = epoch, meta, reason
}

// closed gives the reason why the engine must not act; empty: it may.
func (f *fence) closed() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.reason
}

// check refuses an action while the fence is closed.
func (f *fence) check() error {
	if reason := f.closed(); reason != "" {
		return refuse("read and write reconcile first", "the engine is fenced: %s", reason)
	}
	return nil
}

var errNoMount = errors.New("the mount has no identity yet")

// mintName is the name of a version of a key that is called key here.
func (f *fence) mintName(uid, key string, version int, attempt string) (lifecycle.MintName, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.meta == nil {
		return lifecycle.MintName{}, errNoMount
	}
	id := ""
	if f.epoch != nil {
		id = f.epoch.Installation
	}
	return lifecycle.MintName{
		Mount: f.meta.Mount, Key: uid, Installation: lifecycle.InstallationTag(id), Version: version, Attempt: attempt,
		Label: lifecycle.Label(key),
	}, nil
}

// mount is the mount's identity, or "" before it has one.
func (f *fence) mount() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.meta == nil {
		return ""
	}
	return f.meta.Mount
}

// lift opens the fence after a reconcile: it stores the present epoch first.
func (f *fence) lift(ctx context.Context, st store) error {
	epoch, err := ReadEpoch(f.path)
	if err != nil {
		return err
	}
	f.mu.RLock()
	meta := f.meta
	f.mu.RUnlock()
	if meta == nil {
		return errNoMount
	}
	next := *meta
	next.adopt(epoch)
	if err := st.put(ctx, metaKey, next); err != nil {
		return err
	}
	f.set(epoch, &next, "")
	return nil
}
