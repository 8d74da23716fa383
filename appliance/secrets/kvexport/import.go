package kvexport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/kv"
)

// ImportOptions say where to bring an export.
type ImportOptions struct {
	Store kv.Store
	// Mount to write to; "" for the one of the export.
	Mount      string
	Identities []age.Identity
	// Force makes the export's newest version the next one of a secret that
	// exists with another value.
	Force bool
	// DryRun reads and checks the whole file and Vault, and writes nothing.
	DryRun bool
}

// The states of an imported secret.
const (
	Created   = "created"   // with all its versions
	Unchanged = "unchanged" // its newest version is there already
	Finished  = "finished"  // so it was, and an import that was killed has left work
	Updated   = "updated"   // by force, as a new version
	Conflict  = "conflict"  // exists with another value, and stays
)

// Imported is what became of one secret.
type Imported struct {
	Path     string `json:"path"`
	State    string `json:"state"`
	Versions int    `json:"versions"` // written
}

var (
	// ErrWrongIdentity is a file that none of the given keys opens.
	ErrWrongIdentity = errors.New("none of the given keys opens this export")
	// ErrDamaged is a file that is truncated or was changed.
	ErrDamaged = errors.New("the export is damaged or incomplete")
	// ErrConflict is a secret that exists with another value.
	ErrConflict = errors.New("secrets exist with other values")
)

// Import reads the whole file twice, through open: first to prove that it is
// whole, and to find conflicts; then to write. Without Force nothing is written
// if anything conflicts (ErrConflict, with the result).
func Import(ctx context.Context, open func() (io.ReadCloser, error), o ImportOptions) ([]Imported, error) {
	var out []Imported
	conflicts := 0
	plan := map[string]string{}
	err := each(open, o, func(e engine, s *Secret) error {
		state, err := compare(ctx, e, s, o.Force)
		if err != nil {
			return err
		}
		if state == Conflict {
			conflicts++
		}
		plan[s.Path] = state
		out = append(out, Imported{Path: s.Path, State: state})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if conflicts > 0 {
		return out, fmt.Errorf("%d %w", conflicts, ErrConflict)
	}
	if o.DryRun {
		return out, nil
	}
	i := 0
	err = each(open, o, func(e engine, s *Secret) error {
		n, err := write(ctx, e, s, plan[s.Path])
		out[i].Versions = n
		i++
		return err
	})
	return out, err
}

// each opens and reads the file to its proven end.
func each(open func() (io.ReadCloser, error), o ImportOptions, do func(engine, *Secret) error) error {
	f, err := open()
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	defer f.Close()
	r, err := age.Decrypt(f, o.Identities...)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return ErrWrongIdentity
	}
	if err != nil {
		return fmt.Errorf("import: %w: %w", ErrDamaged, err)
	}
	lines := json.NewDecoder(r)
	var h header
	if err := lines.Decode(&h); err != nil {
		return fmt.Errorf("import: header: %w", ErrDamaged)
	}
	if h.Format != Format {
		return fmt.Errorf("import: format %d is not %d", h.Format, Format)
	}
	mount := o.Mount
	if mount == "" {
		mount = h.Mount
	}
	e := newEngine(o.Store, mount)
	for n := 0; ; n++ {
		var line struct {
			Secret
			end
		}
		if err := lines.Decode(&line); err != nil {
			// The parser's message may quote the text.
			return fmt.Errorf("import: after %d secrets: %w", n, ErrDamaged)
		}
		if line.End {
			if line.Secrets != n {
				return fmt.Errorf("import: %d secrets of %d: %w", n, line.Secrets, ErrDamaged)
			}
			if _, err := io.Copy(io.Discard, io.MultiReader(lines.Buffered(), r)); err != nil {
				return fmt.Errorf("import: %w", ErrDamaged)
			}
			return nil
		}
		if line.Path == "" {
			return fmt.Errorf("import: after %d secrets: %w", n, ErrDamaged)
		}
		if err := do(e, &line.Secret); err != nil {
			return err
		}
	}
}

// newest is the last version that has data.
func (s *Secret) newest() *Version {
	for i := len(s.Versions) - 1; i >= 0; i-- {
		if s.Versions[i].Data != nil {
			return &s.Versions[i]
		}
	}
	return nil
}

func compare(ctx context.Context, e engine, s *Secret, force bool) (string, error) {
	now, err := e.read(ctx, s.Path)
	if err != nil {
		return "", err
	}
	if now == nil || len(now.Versions) == 0 {
		return Created, nil
	}
	last, ours := now.Versions[len(now.Versions)-1], s.newest()
	if ours == nil || last.Data != nil && sameJSON(last.Data, ours.Data) {
		if len(s.openGaps(now)) > 0 || s.keepsRoom(now) {
			return Finished, nil
		}
		return Unchanged, nil
	}
	if force {
		return Updated, nil
	}
	return Conflict, nil
}

func sameJSON(a, b []byte) bool {
	var x, y any
	da, db := json.NewDecoder(bytes.NewReader(a)), json.NewDecoder(bytes.NewReader(b))
	da.UseNumber()
	db.UseNumber()
	if da.Decode(&x) != nil || db.Decode(&y) != nil {
		return false
	}
	p, err1 := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(p, q)
}

// first is the number of the first version that an import writes.
func (s *Secret) first() int {
	if s.Metadata.CurrentVersion > maxRebuilt && len(s.Versions) > 0 {
		return s.Versions[0].Number // renumbered from 1: see docs/migrate.md
	}
	return 1
}

// openGaps are versions that an import has written empty to keep the numbers of the
// others, and was killed before it destroyed them: the export has none of that
// number, or none with data, and what is there holds nothing.
func (s *Secret) openGaps(now *Secret) []int {
	has := map[int]bool{}
	last := 0
	for _, v := range s.Versions {
		n := v.Number - s.first() + 1
		has[n], last = v.Data != nil, n
	}
	var open []int
	for _, v := range now.Versions {
		if v.Number <= last && !has[v.Number] && v.Data != nil && sameJSON(v.Data, []byte("{}")) {
			open = append(open, v.Number)
		}
	}
	return open
}

// keepsRoom tells whether max_versions is still what an import needs while it
// writes.
func (s *Secret) keepsRoom(now *Secret) bool {
	return s.room() != s.Metadata.MaxVersions && now.Metadata.MaxVersions == s.room()
}

// finish does what an import that was killed has left.
func (s *Secret) finish(ctx context.Context, e engine, now *Secret) error {
	if gaps := s.openGaps(now); len(gaps) > 0 {
		if err := e.kv.Destroy(ctx, e.mount, s.Path, gaps); err != nil {
			return err
		}
	}
	if !s.keepsRoom(now) {
		return nil
	}
	return e.kv.PutSettings(ctx, e.mount, s.Path, s.Metadata.Settings)
}

// write brings one secret in and gives the number of versions written. A path
// that was interrupted before all versions were there is found as a conflict, and
// finished by Force.
func write(ctx context.Context, e engine, s *Secret, state string) (int, error) {
	switch state {
	case Created:
		return create(ctx, e, s)
	case Finished:
		now, err := e.read(ctx, s.Path)
		if err != nil || now == nil {
			return 0, err
		}
		return 0, s.finish(ctx, e, now)
	case Updated:
		now, err := e.read(ctx, s.Path)
		if err != nil || now == nil {
			return 0, err
		}
		// The new one last: Vault may drop an old one by it, as it would have before.
		if err := s.finish(ctx, e, now); err != nil {
			return 0, err
		}
		return 1, e.put(ctx, s.Path, s.newest().Data, now.Metadata.CurrentVersion)
	}
	return 0, nil
}

// create gives every version its number again. A version that the export does
// not have is written empty and destroyed, so that what follows keeps its
// number.
func create(ctx context.Context, e engine, s *Secret) (int, error) {
	settings := s.Metadata.Settings
	settings.MaxVersions = s.room()
	if err := e.kv.PutSettings(ctx, e.mount, s.Path, settings); err != nil {
		return 0, err
	}
	first := s.first()
	by := map[int]json.RawMessage{}
	last := 0
	for _, v := range s.Versions {
		by[v.Number], last = v.Data, v.Number
	}
	written, cas := 0, 0
	var gone []int
	for n := first; n <= last; n++ {
		data := by[n]
		if data == nil {
			data = json.RawMessage("{}")
			gone = append(gone, cas+1)
		} else {
			written++
		}
		if err := e.put(ctx, s.Path, data, cas); err != nil {
			return written, err
		}
		cas++
	}
	if len(gone) > 0 {
		if err := e.kv.Destroy(ctx, e.mount, s.Path, gone); err != nil {
			return written, err
		}
	}
	if settings.MaxVersions == s.Metadata.MaxVersions {
		return written, nil
	}
	return written, e.kv.PutSettings(ctx, e.mount, s.Path, s.Metadata.Settings)
}

// room is max_versions while the versions are written: Vault drops the oldest
// beyond it with each write, just as it did before the export.
func (s *Secret) room() int {
	if len(s.Versions) == 0 {
		return s.Metadata.MaxVersions
	}
	span := s.Versions[len(s.Versions)-1].Number - s.Versions[0].Number + 1
	limit := s.Metadata.MaxVersions
	if limit == 0 {
		limit = defaultVersions
	}
	if span <= limit {
		return s.Metadata.MaxVersions
	}
	return span
}

// defaultVersions is what Vault keeps where max_versions is 0.
const defaultVersions = 10

// maxRebuilt bounds the empty versions that are written for numbers' sake.
const maxRebuilt = 200

func (e engine) put(ctx context.Context, path string, data json.RawMessage, cas int) error {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil || fields == nil {
		return fmt.Errorf("write %s/%s: what would be written is no object", e.mount, path)
	}
	_, err := e.kv.Write(ctx, e.mount, path, fields, cas)
	return err
}
