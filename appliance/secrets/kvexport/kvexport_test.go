package kvexport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
)

// sealed encrypts lines.
func sealed(t *testing.T, to *age.X25519Identity, lines string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, lines); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const good = `{"format":1,"mount":"secret","time":"2026-01-01T00:00:00Z"}
{"path":"a","metadata":{"current_version":1},"versions":[{"version":1,"data":{"x":"s3cret"}}]}
{"end":true,"secrets":1}
`

// A file is taken only if it is whole; errors never quote it.
func TestEachWantsAWholeFile(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	read := func(data []byte) (n int, err error) {
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		err = each(open, ImportOptions{Store: kvtest.NewFake(), Identities: []age.Identity{id}}, func(engine, *Secret) error { n++; return nil })
		return n, err
	}
	if n, err := read(sealed(t, id, good)); n != 1 || err != nil {
		t.Fatalf("good: %d, %v", n, err)
	}
	for name, lines := range map[string]string{
		"empty": "", "no end": strings.Join(strings.SplitAfter(good, "\n")[:2], ""), "wrong count": strings.Replace(good, `"secrets":1`, `"secrets":2`, 1),
		"newer format": strings.Replace(good, `"format":1`, `"format":2`, 1), "no JSON": good[:80] + "s3cret", "no path": strings.Replace(good, `"path":"a",`, "", 1),
	} {
		_, err := read(sealed(t, id, lines))
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	whole := sealed(t, id, good)
	for n := range whole {
		if _, err := read(whole[:n]); err == nil {
			t.Fatalf("truncated to %d of %d bytes it was taken", n, len(whole))
		}
	}
	for n := range whole {
		bad := bytes.Clone(whole)
		bad[n] ^= 1
		if _, err := read(bad); err == nil {
			t.Fatalf("changed at byte %d it was taken", n)
		}
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(sealed(t, other, good)); !errors.Is(err, ErrWrongIdentity) {
		t.Errorf("another's file: %v", err)
	}
}

func TestFieldChanges(t *testing.T) {
	got, err := fieldChanges(json.RawMessage(`{"a":1,"b":"x","c":{"k":1.0}}`), json.RawMessage(`{"b":"y","c":{"k":1.0},"d":"s3cret"}`))
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(got); s != "[removed a changed b same c added d]" {
		t.Errorf("got %s", s)
	}
	if _, err := fieldChanges(nil, json.RawMessage(`[1]`)); err == nil {
		t.Error("no object: want an error")
	}
}

func TestRoom(t *testing.T) {
	for _, tt := range []struct{ limit, first, last, want int }{
		{0, 1, 3, 0}, {0, 1, 12, 12}, {3, 2, 4, 3}, {2, 1, 5, 5},
	} {
		s := Secret{Metadata: Metadata{Settings: kv.Settings{MaxVersions: tt.limit}}, Versions: []Version{{Number: tt.first}, {Number: tt.last}}}
		if got := s.room(); got != tt.want {
			t.Errorf("limit %d, versions %d to %d: %d, want %d", tt.limit, tt.first, tt.last, got, tt.want)
		}
	}
}
