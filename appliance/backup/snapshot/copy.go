package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// Copy copies a snapshot from one destination into another, still encrypted,
// with its manifest and its proof but without its files archive; whether it is believed,
// the manifest that it gives says. The ciphertext
// is compared with the manifest on the way. The copy exists, as any snapshot,
// when its manifest is there: that comes last.
func Copy(ctx context.Context, from, to Destination, id ID) (Manifest, error) {
	m, text, err := ReadManifest(ctx, from, id)
	if err != nil {
		return Manifest{}, incomplete(ctx, from, id, err)
	}
	if err := copyObject(ctx, from, to, m.Snapshot); err != nil {
		return Manifest{}, fmt.Errorf("%s: %s: %w", from.Name(), id, err)
	}
	switch proof, err := readSmall(ctx, from, id.object(suffixProof)); {
	case err == nil:
		if _, err := to.Put(ctx, id.object(suffixProof), bytes.NewReader(proof)); err != nil {
			return Manifest{}, err
		}
	case !errors.Is(err, ErrNotFound):
		return Manifest{}, err
	}
	_, err = to.Put(ctx, id.object(suffixManifest), bytes.NewReader(text))
	return m, err
}

func copyObject(ctx context.Context, from, to Destination, obj Object) error {
	rc, err := from.Get(ctx, obj.Name)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = to.Put(ctx, obj.Name, newSummed(rc, obj))
	return err
}

// summed fails at its end when what it gave is not the object.
type summed struct {
	c   counter
	r   io.Reader
	obj Object
}

func newSummed(r io.Reader, obj Object) *summed {
	return &summed{c: counter{h: sha256.New()}, r: io.LimitReader(r, obj.Size+1), obj: obj}
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.c.h.Write(p[:n])
	s.c.n += int64(n)
	if err != io.EOF {
		return n, err
	}
	switch {
	case s.c.n < s.obj.Size:
		return n, fmt.Errorf("%q: %w: %d bytes, the manifest says %d", s.obj.Name, ErrTruncated, s.c.n, s.obj.Size)
	case s.c.n > s.obj.Size:
		return n, fmt.Errorf("%q: %w: more than the %d bytes that the manifest says", s.obj.Name, ErrTrailing, s.obj.Size)
	case s.c.sum() != s.obj.SHA256:
		return n, fmt.Errorf("%q: %w: sum %s, the manifest says %s", s.obj.Name, ErrCorrupt, s.c.sum(), s.obj.SHA256)
	}
	return n, io.EOF
}
