package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Without its state the machine does not know whether a place was marked before: an
// empty folder, of a disk that is not mounted, is stored to and not marked.
func TestUnreadStateMarksNothing(t *testing.T) {
	k, dir := newKeys(t), t.TempDir()
	d, err := NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	if err := o.recogniseWith(t, d, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, MarkerFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is marked: %v", err)
	}
	if err := o.recogniseWith(t, d, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, MarkerFile)); err != nil {
		t.Error(err)
	}
}

func (o *TakeOptions) recogniseWith(t *testing.T, d Destination, unread bool) error {
	_, err := o.recognise(t.Context(), d, TakeState{}, unread)
	return err
}
