package kvexport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"

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
	// Check says whether the mount is one of KV version 2, before anything is read of it;
	// may be nil.
	Check func(mount string) error
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
	Planned   = "planned"   // not done, or not known to be: the import ended before
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

// Import reads the file once, to prove that it is whole, and to find conflicts; what it
// reads it copies, still encrypted, and from the copy it writes. So what is written is what was
// proven, and the file may be a pipe. Without Force nothing is written if anything
// conflicts (ErrConflict, with the result).
//
// A secret that somebody has changed since it was looked at stays (kv.ErrChanged). After
// an error the result tells what was done: what was not reached is Planned.
func Import(ctx context.Context, open func() (io.ReadCloser, error), o ImportOptions) ([]Imported, error) {
	file, err := nameless()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	first := func() (io.ReadCloser, error) {
		f, err := open()
		return copied{f, file}, err
	}
	again := func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(file, 0, math.MaxInt64)), nil }
	var out []Imported
	var plan []planned
	conflicts := 0
	err = each(first, o, func(e engine, s *Secret) error {
		p, err := compare(ctx, e, s, o.Force)
		if err != nil {
			return err
		}
		if p.state == Conflict {
			conflicts++
		}
		plan = append(plan, p)
		out = append(out, Imported{Path: s.Path, State: p.state})
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
	done := 0
	err = each(again, o, func(e engine, s *Secret) error {
		n, err := plan[done].apply(ctx, e, s)
		out[done].Versions = n
		if err == nil {
			done++
		}
		return err
	})
	if err != nil {
		for i := range out[done:] {
			out[done+i].State = Planned
		}
	}
	return out, err
}

// copied gives what it reads to a copy, too.
type copied struct {
	io.ReadCloser
	copy io.Writer
}

func (c copied) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if _, werr := c.copy.Write(p[:n]); werr != nil {
		return 0, werr
	}
	return n, err
}

// nameless makes a file that vanishes with this process.
func nameless() (*os.File, error) {
	f, err := os.CreateTemp("/var/tmp", ".import-*")
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("import: %w", err), f.Close())
	}
	return f, nil
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
	if o.Check != nil {
		if err := o.Check(e.mount); err != nil {
			return err
		}
	}
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

// planned is what is to become of one secret, and what it was when that was decided.
type planned struct {
	state string
	seen  *Secret // nil where there was nothing
}

func compare(ctx context.Context, e engine, s *Secret, force bool) (planned, error) {
	now, err := e.read(ctx, s.Path)
	return planned{s.state(now, force), now}, err
}

func (s *Secret) state(now *Secret, force bool) string {
	if now == nil || len(now.Versions) == 0 {
		return Created
	}
	last, ours := now.Versions[len(now.Versions)-1], s.newest()
	if ours == nil || last.Data != nil && sameJSON(last.Data, ours.Data) {
		if len(s.openGaps(now)) > 0 || s.keepsRoom(now) {
			return Finished
		}
		return Unchanged
	}
	// What the export has last is deleted: the value before it is retired, and no force
	// makes it the newest.
	if s.Versions[len(s.Versions)-1].Data == nil {
		if last.Data == nil {
			return Unchanged
		}
		return Conflict
	}
	if force {
		return Updated
	}
	return Conflict
}

// same says that nobody has changed a secret, or what is noted of it.
func same(a, b *Secret) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Metadata.CurrentVersion == b.Metadata.CurrentVersion && len(a.Versions) == len(b.Versions) &&
		a.Metadata.MaxVersions == b.Metadata.MaxVersions && maps.Equal(a.Metadata.CustomMetadata, b.Metadata.CustomMetadata)
}

// settings are the export's, with what others have noted here already.
func (s *Secret) settings(now *Secret) kv.Settings {
	out := s.Metadata.Settings
	if now != nil && len(now.Metadata.CustomMetadata) > 0 {
		out.CustomMetadata = maps.Clone(out.CustomMetadata)
		if out.CustomMetadata == nil {
			out.CustomMetadata = map[string]string{}
		}
		maps.Copy(out.CustomMetadata, now.Metadata.CustomMetadata)
	}
	return out
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
	return e.kv.PutSettings(ctx, e.mount, s.Path, s.settings(now))
}

// apply brings one secret in and gives the number of versions written. A path
// that was interrupted before all versions were there is found as a conflict, and
// finished by Force.
func (p planned) apply(ctx context.Context, e engine, s *Secret) (int, error) {
	if p.state == Unchanged {
		return 0, nil
	}
	now, err := e.read(ctx, s.Path)
	if err != nil {
		return 0, err
	}
	if !same(p.seen, now) {
		return 0, fmt.Errorf("import %s/%s: %w", e.mount, s.Path, kv.ErrChanged)
	}
	switch p.state {
	case Created:
		return create(ctx, e, s, now)
	case Finished:
		return 0, s.finish(ctx, e, now)
	case Updated:
		// The new one last: Vault may drop an old one by it, as it would have before.
		if err := s.finish(ctx, e, now); err != nil {
			return 0, err
		}
		if err := e.put(ctx, s.Path, s.newest().Data, now.Metadata.CurrentVersion); err != nil {
			return 0, err
		}
		return 1, nil
	}
	return 0, nil
}

// create gives every version its number again. A version that the export does
// not have is written empty and destroyed, so that what follows keeps its
// number.
func create(ctx context.Context, e engine, s, now *Secret) (int, error) {
	settings := s.settings(now)
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
		}
		if err := e.put(ctx, s.Path, data, cas); err != nil {
			return written, err
		}
		if by[n] != nil {
			written++
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
	settings.MaxVersions = s.Metadata.MaxVersions
	return written, e.kv.PutSettings(ctx, e.mount, s.Path, settings)
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
