package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"strongroom.example/appliance/base/atomicfile"
)

// MarkerFile lies in the root of a place, and is passed over by List: a disk that is not
// mounted leaves an empty folder of the same name behind, which must not be taken for it.
const MarkerFile = ".strongroom-place.json"

// marked is a Destination that can be told from another of the same name.
type marked interface {
	// Marker is the id that the place bears; empty where it bears none. can is false where
	// it needs none: a bucket's name is nobody else's.
	Marker() (id string, can bool, err error)
	// Mark has a place that bears none bear an id.
	Mark(id string) error
}

var (
	_ marked = (*Dir)(nil)
	_ marked = (*Place)(nil)
)

type markerContent struct {
	ID string `json:"id"`
}

// Marker implements marked.
func (d *Dir) Marker() (id string, can bool, err error) {
	data, err := atomicfile.ReadSmall(filepath.Join(d.root, MarkerFile), atomicfile.MaxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return "", true, d.there()
	}
	if err != nil {
		return "", true, d.fail("read", MarkerFile, err)
	}
	var m markerContent
	if err := json.Unmarshal(data, &m); err != nil || m.ID == "" {
		return "", true, fmt.Errorf("%s: %q: %w: it names no place", d.Name(), MarkerFile, ErrCorrupt)
	}
	return m.ID, true, nil
}

// Mark implements marked.
func (d *Dir) Mark(id string) error {
	text, err := json.Marshal(markerContent{id})
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(d.root, MarkerFile), append(text, '\n'), fileMode); err != nil {
		return d.fail("mark", MarkerFile, err)
	}
	return nil
}

// Marker implements marked.
func (p *Place) Marker() (id string, can bool, err error) {
	d, err := p.opened()
	if err != nil {
		return "", false, err
	}
	if m, ok := d.(marked); ok {
		return m.Marker()
	}
	return "", false, nil
}

// Mark implements marked.
func (p *Place) Mark(id string) error {
	d, err := p.opened()
	if err != nil {
		return err
	}
	if m, ok := d.(marked); ok {
		return m.Mark(id)
	}
	return nil
}

// ErrMounted means that a folder is not the place that it was: mostly its disk is not
// mounted.
var ErrMounted = errors.New("this is not the place that it was; is its disk mounted?")

// mounted says that a place is the one that the taking job knows by its marker. bare is
// true where it could bear one, and bears none.
func mounted(d Destination, known string) (bears string, bare bool, err error) {
	m, ok := d.(marked)
	if !ok {
		return "", false, nil
	}
	bears, can, err := m.Marker()
	switch {
	case err != nil:
		return "", false, err
	case known == "" || bears == known:
		return bears, can && bears == "", nil
	case bears == "":
		return "", false, fmt.Errorf("%s: %w: %w: %s is missing", d.Name(), ErrPlace, ErrMounted, MarkerFile)
	}
	return "", false, fmt.Errorf("%s: %w: %w: %s names %q, and %q was stored to before", d.Name(), ErrPlace, ErrMounted, MarkerFile, bears, known)
}

// recognise finds out that a place may be stored to, and gives the id that it bears. A
// place that is new to this machine is taken as it is, and marked where it is not. One
// that was stored to before it was marked must hold what was stored there last. With
// AdoptPlaces, which is the operator's word, any will do.
func (o *TakeOptions) recognise(ctx context.Context, d Destination, s TakeState, unread bool) (id string, err error) {
	known := s.Markers[d.Name()]
	if o.AdoptPlaces {
		known = ""
	}
	id, bare, err := mounted(d, known)
	if err != nil || !bare || unread {
		return id, err
	}
	if last, err := ParseID(s.Last[d.Name()].ID); err == nil && !o.AdoptPlaces {
		if _, err := d.Stat(ctx, last.object(suffixManifest)); err != nil {
			return "", fmt.Errorf("%s: %w: %w: %s, which was stored there last, is not there: %w", d.Name(), ErrPlace, ErrMounted, last, err)
		}
	}
	id = rand.Text()
	return id, d.(marked).Mark(id)
}
