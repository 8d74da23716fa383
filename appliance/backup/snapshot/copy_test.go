package snapshot

import (
	"errors"
	"strings"
	"testing"
)

func TestCopy(t *testing.T) {
	k, from := newKeys(t), newMem("from")
	taken, err := Take(t.Context(), takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), from))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), verifyOptions(t, k, from)); err != nil {
		t.Fatal(err)
	}
	id, err := ParseID(taken.Manifest.ID)
	if err != nil {
		t.Fatal(err)
	}
	to := newMem("to")
	if _, err := Copy(t.Context(), from, to, id); err != nil {
		t.Fatal(err)
	}
	// The copy is a verified snapshot in its own right.
	m, err := NewestVerified(t.Context(), to, testCluster)
	if err != nil || m.ID != taken.Manifest.ID {
		t.Fatalf("%+v, %v", m, err)
	}

	object := taken.Manifest.Snapshot.Name
	good := from.copy()[object]
	for name, tt := range map[string]struct {
		data string
		want error
	}{
		"cut":     {good[:len(good)-1], ErrTruncated},
		"longer":  {good + "x", ErrTrailing},
		"flipped": {good[:9] + string(good[9]^1) + good[10:], ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			if err := from.Delete(t.Context(), object); err != nil {
				t.Fatal(err)
			}
			if _, err := from.Put(t.Context(), object, strings.NewReader(tt.data)); err != nil {
				t.Fatal(err)
			}
			bad := newMem("bad")
			if _, err := Copy(t.Context(), from, bad, id); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if n := len(bad.copy()); n != 0 {
				t.Errorf("%d objects are there after a failed copy", n)
			}
		})
	}
	other := ID{Cluster: id.Cluster, Base: "20200101T000000Z-00000000"}
	if _, err := Copy(t.Context(), from, newMem("none"), other); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("a snapshot that is not there: %v", err)
	}
}
