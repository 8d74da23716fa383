package kvexport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
)

// once gives a file that can be read only once, as a pipe.
func once(t *testing.T, file []byte) func() (io.ReadCloser, error) {
	t.Helper()
	n := 0
	return func() (io.ReadCloser, error) {
		if n++; n > 1 {
			t.Error("it is read again")
		}
		return io.NopCloser(bytes.NewReader(file)), nil
	}
}

// What somebody changes after it was looked at stays: a value, or what is noted.
func TestChangedSinceThePlan(t *testing.T) {
	from, id := filled(t), identity(t)
	file := export(t, exportOf(from, id, ""))
	for name, change := range map[string]func(to *kvtest.Fake) error{
		"created": func(to *kvtest.Fake) error { put(t, to, "b/few", "theirs"); return nil },
		"noted": func(to *kvtest.Fake) error {
			return to.Annotate(t.Context(), "secret", "b/few", map[string]string{"owner": "them"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			to, passes := kvtest.NewFake(), 0
			var theirs string
			got, err := Import(t.Context(), once(t, file), ImportOptions{Store: to, Identities: []age.Identity{id}, Check: func(string) error {
				passes++
				if passes == 1 {
					return nil
				}
				err := change(to)
				theirs = state(t, to, "secret")["b/few"]
				return err
			}})
			if !errors.Is(err, kv.ErrChanged) || passes != 2 {
				t.Fatalf("%v, %d passes", err, passes)
			}
			if have := state(t, to, "secret")["b/few"]; have != theirs {
				t.Errorf("it is %s, was %s", have, theirs)
			}
			// The result says what was done, and no more.
			for i, want := range []Imported{{"a", Created, 2}, {"b/few", Planned, 0}, {"b/gaps", Planned, 0}, {"many", Planned, 0}} {
				if got[i] != want {
					t.Errorf("%+v, want %+v", got[i], want)
				}
			}
		})
	}
}

// What others have noted before is kept beside the export's.
func TestNotesAreKept(t *testing.T) {
	from, to, id := filled(t), kvtest.NewFake(), identity(t)
	if err := to.Annotate(t.Context(), "secret", "a", map[string]string{"team": "ours"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Import(t.Context(), once(t, export(t, exportOf(from, id, ""))), ImportOptions{Store: to, Identities: []age.Identity{id}}); err != nil {
		t.Fatal(err)
	}
	m, err := to.Metadata(t.Context(), "secret", "a")
	if err != nil || !maps.Equal(m.CustomMetadata, map[string]string{"team": "ours", "owner": "me"}) {
		t.Errorf("%+v, %v", m, err)
	}
}

// A value that was retired, as the newest version was deleted, is not made the newest by
// force.
func TestForceRevivesNothing(t *testing.T) {
	from, to, id := kvtest.NewFake(), kvtest.NewFake(), identity(t)
	put(t, from, "a", "retired", "gone")
	if err := from.DeleteVersion(t.Context(), "secret", "a", 2); err != nil {
		t.Fatal(err)
	}
	file := export(t, exportOf(from, id, "a"))
	put(t, to, "a", "now")
	o := ImportOptions{Store: to, Identities: []age.Identity{id}, Force: true}
	if got, err := Import(t.Context(), once(t, file), o); !errors.Is(err, ErrConflict) || newest(t, to, "a") != "now" {
		t.Errorf("%v, %v, now %q", got, err, newest(t, to, "a"))
	}
	if err := to.DeleteVersion(t.Context(), "secret", "a", 1); err != nil {
		t.Fatal(err)
	}
	if got, err := Import(t.Context(), once(t, file), o); err != nil || got[0].State != Unchanged {
		t.Errorf("deleted in both: %v, %v", got, err)
	}
}

// A mount of another kind is refused before anything is read of it, or written.
func TestMountIsCheckedFirst(t *testing.T) {
	from, to, id := filled(t), kvtest.NewFake(), identity(t)
	wrong := errors.New("version 1")
	_, err := Import(t.Context(), once(t, export(t, exportOf(from, id, ""))), ImportOptions{Store: to, Identities: []age.Identity{id}, Check: func(mount string) error {
		if mount != "secret" {
			t.Errorf("mount %q", mount)
		}
		return wrong
	}})
	if !errors.Is(err, wrong) || to.Calls() != 0 {
		t.Errorf("%v, %d calls", err, to.Calls())
	}
}

// A secret that is deleted while an export is under way ends no export.
func TestDeletedWhileExported(t *testing.T) {
	id := identity(t)
	s := vanishing{filled(t)}
	var b bytes.Buffer
	n, err := Export(t.Context(), &b, exportOf(s, id, ""))
	if err != nil || n != 3 {
		t.Fatalf("%d, %v", n, err)
	}
	to := kvtest.NewFake()
	if got, err := Import(t.Context(), once(t, b.Bytes()), ImportOptions{Store: to, Identities: []age.Identity{id}}); err != nil || len(got) != 3 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Export(t.Context(), io.Discard, exportOf(s, id, "b/few")); err == nil {
		t.Error("one that was asked for by its name and is not there was left out")
	}
}

// vanishing lists a secret that is gone when it is read.
type vanishing struct{ *kvtest.Fake }

func (v vanishing) Metadata(ctx context.Context, mount, path string) (*kv.Metadata, error) {
	if path == "b/few" {
		return nil, nil
	}
	return v.Fake.Metadata(ctx, mount, path)
}
