package snapshot

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"
)

// Destination is a place that keeps objects: a directory or a bucket. All
// implementations pass one conformance suite (destination_test.go).
type Destination interface {
	// Name tells the place in messages and in the state file. It holds no
	// secret and stays the same as long as the place does.
	Name() string
	// Put stores all that r gives under name. The object is there, whole and
	// durable, when Put returns nil, and is not there at all when it returns an
	// error, an error of r's included. It refuses a name that is taken
	// (ErrExists).
	Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error)
	// Get opens an object (ErrNotFound). The caller closes it. A read that ends
	// without an error has given as many bytes as the object has.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// Stat describes an object (ErrNotFound).
	Stat(ctx context.Context, name string) (ObjectInfo, error)
	// List gives the objects whose names start with prefix, sorted by name.
	// LockedUntil is not filled in.
	List(ctx context.Context, prefix string) ([]ObjectInfo, error)
	// Delete removes an object and its former versions. It is no error when it
	// is not there; ErrLocked when object lock forbids it, and then it is
	// untouched.
	Delete(ctx context.Context, name string) error
}

// ObjectInfo describes a stored object.
type ObjectInfo struct {
	Name    string
	Size    int64 // bytes
	ModTime time.Time
	// LockedUntil is when object lock lets it go; zero without a lock.
	LockedUntil time.Time
	// Hidden says that somebody has deleted it, and that the bucket has kept its version:
	// it is listed and read as ever.
	Hidden bool
}

// Sweeper is a Destination that can hold remains of interrupted uploads.
type Sweeper interface {
	// Sweep removes what uploads begun before t left behind and returns how
	// many there were.
	Sweep(ctx context.Context, before time.Time) (int, error)
}

func sortObjects(o []ObjectInfo) {
	slices.SortFunc(o, func(a, b ObjectInfo) int { return strings.Compare(a.Name, b.Name) })
}
