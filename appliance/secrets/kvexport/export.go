package kvexport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/kv"
)

// ExportOptions say what to take out.
type ExportOptions struct {
	Store kv.Store
	Mount string
	// Paths are secrets, or folders with a slash at the end; "" is everything.
	Paths []string
	// Latest leaves earlier versions out.
	Latest     bool
	Recipients []age.Recipient
	Now        func() time.Time
}

// Export writes an encrypted stream to w and gives the number of secrets. An
// error means that what w got is worthless. Memory holds one secret at a time.
func Export(ctx context.Context, w io.Writer, o ExportOptions) (int, error) {
	if len(o.Recipients) == 0 {
		return 0, errors.New("export: no recipient")
	}
	e := newEngine(o.Store, o.Mount)
	var paths []string
	for _, from := range o.Paths {
		found, err := e.paths(ctx, from)
		if err != nil {
			return 0, err
		}
		if len(found) == 0 {
			return 0, fmt.Errorf("export: nothing is below %s/%s", e.mount, from)
		}
		paths = append(paths, found...)
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	enc, err := age.Encrypt(w, o.Recipients...)
	if err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	lines := json.NewEncoder(enc)
	if err := lines.Encode(header{Format, e.mount, o.Now().UTC()}); err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	n := 0
	for _, p := range paths {
		s, err := e.read(ctx, p)
		if err != nil {
			return 0, err
		}
		if s == nil && !slices.Contains(o.Paths, p) {
			continue // listed, and deleted since
		}
		if s == nil {
			return 0, fmt.Errorf("export: there is no secret %s/%s", e.mount, p)
		}
		if o.Latest && len(s.Versions) > 0 {
			s.Versions = s.Versions[len(s.Versions)-1:]
		}
		if err := lines.Encode(s); err != nil {
			return 0, fmt.Errorf("export: %w", err)
		}
		n++
	}
	if err := lines.Encode(end{true, n}); err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	if err := enc.Close(); err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	return n, nil
}
