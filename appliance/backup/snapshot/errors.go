package snapshot

import (
	"errors"
	"fmt"
)

// What can be wrong with a snapshot.
var (
	// ErrTruncated means that the data end before they are whole.
	ErrTruncated = errors.New("truncated")
	// ErrCorrupt means that the data are not what was written.
	ErrCorrupt = errors.New("corrupt")
	// ErrTrailing means that something follows the end of the data.
	ErrTrailing = errors.New("trailing data")
	// ErrMismatch means that a snapshot is sound in itself but is not the one
	// that its manifest, or the local record, describes.
	ErrMismatch = errors.New("does not match its manifest")
	// ErrWrongCluster means that a snapshot belongs to another cluster.
	ErrWrongCluster = errors.New("snapshot of another cluster")
	// ErrWrongIdentity means that no given identity opens the snapshot.
	ErrWrongIdentity = errors.New("no identity opens this snapshot")
	// ErrPassphrase means that an SSH private key would fit, but stays locked.
	ErrPassphrase = errors.New("the passphrase of the SSH private key is wrong or missing")
	// ErrIncomplete means that an object has no manifest: its upload never
	// finished.
	ErrIncomplete = errors.New("incomplete snapshot")
)

// What can be wrong with a destination.
var (
	// ErrPlace means that the place itself cannot be used as it is: its folder is
	// not there, or the key pair of its bucket cannot be read. It is never
	// ErrNotFound: nothing can be said of what it holds.
	ErrPlace    = errors.New("this place cannot be opened")
	ErrNotFound = errors.New("not found")
	// ErrDeleted means that somebody has deleted what is there all the same, since the
	// bucket keeps versions.
	ErrDeleted     = errors.New("somebody has deleted it, and only its locked or former version is left")
	ErrExists      = errors.New("already exists")
	ErrLocked      = errors.New("locked against deletion")
	ErrFull        = errors.New("no space left")
	ErrDenied      = errors.New("access denied")
	ErrUnreachable = errors.New("unreachable")
	// ErrBusy is a store that answers SlowDown.
	ErrBusy        = fmt.Errorf("%w: the store is busy, and asks for fewer requests", ErrUnreachable)
	ErrStalled     = errors.New("stalled")
	ErrUnsupported = errors.New("not supported by the destination")
	// ErrSkew means that the clocks of this machine and of the store are too far apart.
	ErrSkew = errors.New("this machine's clock and the store's are too far apart")
	// ErrRegion means that the bucket is in another region, or at another address.
	ErrRegion = errors.New("the bucket is in another region")
	// ErrArchived means that a rule of the bucket has moved an object to where it cannot
	// be read at once.
	ErrArchived = errors.New("the store has archived it")
	// ErrStoreKey means that the key with which the store encrypts cannot be used.
	ErrStoreKey = errors.New("the store's own encryption key cannot be used")
)

// What can be wrong with a call.
var (
	// ErrNoSnapshot means that there is nothing of this cluster to work on.
	ErrNoSnapshot = errors.New("no snapshot")
	// ErrNoDestination means that no destination took the snapshot.
	ErrNoDestination = errors.New("no destination holds the snapshot")
)
