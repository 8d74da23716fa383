package snapshot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/signing"
)

// believing is a place that knows whom to believe.
type believing struct {
	*mem
	trust *Trust
}

func (b believing) Trust() *Trust { return b.trust }

func signingKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func ringOf(takers ...ed25519.PrivateKey) *signing.Keyring {
	ring := &signing.Keyring{}
	for _, key := range takers {
		ring.Use(RoleTaker, "box", key.Public().(ed25519.PublicKey), testTime)
	}
	return ring
}

// signedPlace is a machine that signs, and a place that somebody else can write to.
type signedPlace struct {
	keys
	t        *testing.T
	d        *mem
	opts     TakeOptions
	key      ed25519.PrivateKey
	ring     *signing.Keyring
	old, now Manifest // its two snapshots, verified
}

func newSignedPlace(t *testing.T) *signedPlace {
	t.Helper()
	s := &signedPlace{keys: newKeys(t), t: t, d: newMem("mem"), key: signingKey(1)}
	s.ring = ringOf(s.key)
	s.ring.Use("drill", "box", signingKey(9).Public().(ed25519.PublicKey), testTime)
	s.opts = takeOptions(t, s.keys, nil, s.d)
	s.old = s.take(100, s.key, s.opts.StateDir)
	s.now = s.take(200, s.key, s.opts.StateDir)
	return s
}

// take stores and proves one, as whoever has the key: with a state of somebody else's
// where state is empty.
func (s *signedPlace) take(index uint64, key ed25519.PrivateKey, state string) Manifest {
	s.t.Helper()
	o := s.opts
	o.Source, o.SigningKey = bytesSource(buildArchive(s.t, archiveSpec{index: index, state: randomBytes(2000, index)})), key
	if o.StateDir = state; state == "" {
		o.StateDir = s.t.TempDir()
	}
	taken, err := Take(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	v := verifyOptions(s.t, s.keys, s.d) // which believes all
	v.ID = mustID(s.t, taken.Manifest.ID)
	if _, err := Verify(s.t.Context(), v); err != nil {
		s.t.Fatal(err)
	}
	return taken.Manifest
}

func (s *signedPlace) object(m Manifest, suffix string) string {
	return mustID(s.t, m.ID).object(suffix)
}

// edit changes a manifest's text, signature and all else staying.
func (s *signedPlace) edit(m Manifest, old, next string) {
	name := s.object(m, suffixManifest)
	if !bytes.Contains(s.d.objects[name], []byte(old)) {
		s.t.Fatalf("%s has no %q", name, old)
	}
	s.d.objects[name] = bytes.ReplaceAll(s.d.objects[name], []byte(old), []byte(next))
}

// copyTo puts a snapshot under another name, as its manifest says then, too.
func (s *signedPlace) copyTo(m Manifest, base string) ID {
	from, to := mustID(s.t, m.ID), ID{testCluster, base}
	for _, suffix := range []string{suffixSnap, suffixManifest, suffixProof} {
		s.d.objects[to.object(suffix)] = bytes.ReplaceAll(s.d.objects[from.object(suffix)], []byte(from.Base), []byte(to.Base))
	}
	s.edit(Manifest{ID: to.String()}, m.TakenAt.Format(time.RFC3339Nano), to.Time().Format(time.RFC3339Nano))
	s.prove(to)
	return to
}

// prove writes a proof for a manifest as it is now, as anybody can.
func (s *signedPlace) prove(id ID) {
	text, err := json.Marshal(VerifiedRecord{ID: id.String(), ManifestSHA256: sha256Hex(s.d.objects[id.object(suffixManifest)])})
	if err != nil {
		s.t.Fatal(err)
	}
	s.d.objects[id.object(suffixProof)] = text
}

// What somebody who can write to a place does to it: nothing of it is ever chosen, and
// the machine that stored there notices what was done to its last one.
func TestForgedSnapshots(t *testing.T) {
	const later = "20261124T151510Z-ffffffff"
	type attack struct {
		name string
		do   func(*signedPlace)
		// newest is what is chosen by who has the keyring and no state: "now", "old" or
		// "" for none.
		newest string
		// told is what verify says on the machine itself, for whom the last one is as it
		// was where it is nil.
		told error
	}
	attacks := []attack{
		{"nothing", func(*signedPlace) {}, "now", nil},
		{"a newer one that nobody has signed", func(s *signedPlace) { s.take(900, nil, "") }, "now", nil},
		{"a newer one by another key", func(s *signedPlace) { s.take(900, signingKey(2), "") }, "now", nil},
		{"by another key, under the id of this one", func(s *signedPlace) {
			m := s.take(900, signingKey(2), "")
			id := func(k ed25519.PrivateKey) string { return signing.Fingerprint(k.Public().(ed25519.PublicKey)) }
			s.edit(m, id(signingKey(2)), id(s.key))
			s.prove(mustID(t, m.ID))
		}, "now", nil},
		{"by the key of another job", func(s *signedPlace) { s.take(900, signingKey(9), "") }, "now", nil},
		{"by the right key, as another kind", func(s *signedPlace) {
			m := s.take(900, nil, "")
			kind := SignedManifest
			kind.Name = "drill report"
			text, err := kind.Encode(m, s.key)
			if err != nil {
				t.Fatal(err)
			}
			s.d.objects[s.object(m, suffixManifest)] = text
			s.prove(mustID(t, m.ID))
		}, "now", nil},
		{"the signature of another manifest", func(s *signedPlace) {
			m := s.take(900, nil, "")
			good := s.d.objects[s.object(s.now, suffixManifest)]
			text, err := SignedManifest.Encode(m, signingKey(2))
			if err != nil {
				t.Fatal(err)
			}
			cut := func(b []byte) int { return bytes.Index(b, []byte(`"signature"`)) }
			s.d.objects[s.object(m, suffixManifest)] = append(text[:cut(text)], good[cut(good):]...)
			s.prove(mustID(t, m.ID))
		}, "now", nil},
		{"an older one under a newer name", func(s *signedPlace) { s.copyTo(s.old, later) }, "now", nil},
		{"an older one under a newer name, with a higher index", func(s *signedPlace) {
			id := s.copyTo(s.old, later)
			s.edit(Manifest{ID: id.String()}, `"raft_index": 100`, `"raft_index": 900`)
			s.prove(id)
		}, "now", nil},
		{"an older one, edited where it is", func(s *signedPlace) {
			s.edit(s.old, `"raft_index": 100`, `"raft_index": 900`)
			s.prove(mustID(t, s.old.ID))
		}, "now", nil},
		{"the newest, edited", func(s *signedPlace) {
			s.edit(s.now, `"raft_index": 200`, `"raft_index": 900`)
			s.prove(mustID(t, s.now.ID))
		}, "old", ErrMismatch},
		{"the newest, its signature taken off", func(s *signedPlace) {
			text, err := s.now.encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			s.d.objects[s.object(s.now, suffixManifest)] = text
			s.prove(mustID(t, s.now.ID))
		}, "old", ErrMismatch},
		{"two manifests in one file", func(s *signedPlace) {
			text := s.d.objects[s.object(s.now, suffixManifest)]
			s.d.objects[s.object(s.now, suffixManifest)] = append([]byte(`{"Manifest": {}, `), text[1:]...)
			s.prove(mustID(t, s.now.ID))
		}, "old", ErrCorrupt},
		{"the newest deleted", func(s *signedPlace) {
			for _, suffix := range snapshotObjects {
				delete(s.d.objects, s.object(s.now, suffix))
			}
		}, "old", ErrNoSnapshot},
		{"the newest's data deleted", func(s *signedPlace) { delete(s.d.objects, s.now.Snapshot.Name) }, "old", ErrNotFound},
		{"the newest truncated", func(s *signedPlace) {
			s.d.objects[s.now.Snapshot.Name] = s.d.objects[s.now.Snapshot.Name][:100]
		}, "now", ErrTruncated},
		{"the data of two swapped", func(s *signedPlace) {
			a, b := s.old.Snapshot.Name, s.now.Snapshot.Name
			s.d.objects[a], s.d.objects[b] = s.d.objects[b], s.d.objects[a]
		}, "now", errAny},
		{"the newest retired", func(s *signedPlace) {
			s.d.objects[s.object(s.now, suffixRetired)] = []byte("{}")
		}, "old", ErrRetired},
		{"an older one in the newest's place", func(s *signedPlace) {
			for _, suffix := range []string{suffixSnap, suffixManifest, suffixProof} {
				s.d.objects[s.object(s.now, suffix)] = s.d.objects[s.object(s.old, suffix)]
			}
		}, "old", ErrMismatch},
		{"all signatures taken off", func(s *signedPlace) {
			for _, m := range []Manifest{s.old, s.now} {
				text, err := m.encode(nil)
				if err != nil {
					t.Fatal(err)
				}
				s.d.objects[s.object(m, suffixManifest)] = text
				s.prove(mustID(t, m.ID))
			}
		}, "", ErrMismatch},
		{"a rival lineage of the same epoch", func(s *signedPlace) {
			o := s.opts
			s.opts.Lineage = &Lineage{ID: "other"}
			s.take(900, signingKey(2), "")
			s.opts = o
		}, "now", nil},
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			s := newSignedPlace(t)
			a.do(s)
			place := believing{s.d, &Trust{Ring: s.ring}}
			want := map[string]string{"now": s.now.ID, "old": s.old.ID, "": ""}[a.newest]

			newest, err := NewestVerified(t.Context(), place, testCluster)
			if newest.ID != want || (err == nil) != (want != "") {
				t.Errorf("newest verified is %q, %v; want %q", newest.ID, err, want)
			}
			listed, err := ListPlaces(t.Context(), []Destination{place}, testCluster)
			if err != nil {
				t.Fatal(err)
			}
			first, err := NewestFirst(listed, func(p Placed) bool { return p.Verified })
			got := ""
			if len(first) > 0 {
				got = first[0].ID.String()
			}
			if err != nil || got != want {
				t.Errorf("the first to be restored is %q, %v; want %q", got, err, want)
			}
			if want == "" && !errors.Is(Untrusted(listed), ErrUntrusted) {
				t.Errorf("nothing tells why none is chosen: %v", Untrusted(listed))
			}
			// Whatever else is there, prune leaves those of the machine.
			res, err := Prune(t.Context(), PruneOptions{Destination: place, ClusterID: testCluster, Policy: Policy{Hourly: 1, Daily: 1}, DryRun: true, Now: func() time.Time { return testTime.Add(time.Hour) }})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range res.Decisions {
				if d.Entry.ID.String() == want && !d.Keep {
					t.Errorf("prune deletes %s: %s", want, d.Why)
				}
			}

			// The machine itself.
			place.trust.TakeState = s.opts.StateDir
			v := verifyOptions(t, s.keys, place)
			v.TakeStateDir = s.opts.StateDir
			rec, err := Verify(t.Context(), v)
			switch {
			case a.told == nil && (err != nil || rec.ID != s.now.ID):
				t.Errorf("verify: %q, %v; want %q", rec.ID, err, s.now.ID)
			case a.told == errAny && err == nil, a.told != nil && a.told != errAny && !errors.Is(err, a.told):
				t.Errorf("verify: %q, %v; want %v", rec.ID, err, a.told)
			}
			// And one that has stored nothing there.
			v = verifyOptions(t, s.keys, place)
			if rec, err := Verify(t.Context(), v); err == nil && rec.ID != want {
				t.Errorf("verify without a state: %q; want %q", rec.ID, want)
			}
		})
	}
}

var errAny = errors.New("any")

// From before there were keys: by its name and the word alone, and only where it is older
// than what is signed.
func TestUnsignedSnapshots(t *testing.T) {
	s := newSignedPlace(t)
	before, forged := s.take(50, nil, ""), s.take(150, nil, "")
	for _, state := range []string{"", s.opts.StateDir} {
		place := believing{s.d, &Trust{Ring: s.ring, TakeState: state}}
		if state != "" { // what is signed is gone; the machine still knows from where on
			maps.DeleteFunc(s.d.objects, func(name string, _ []byte) bool {
				return strings.HasPrefix(name, s.old.ID) || strings.HasPrefix(name, s.now.ID)
			})
		}
		for _, c := range []struct {
			m     Manifest
			word  bool
			wants error
		}{{before, false, ErrUntrusted}, {before, true, nil}, {forged, false, ErrUntrusted}, {forged, true, ErrForged}} {
			v := verifyOptions(t, s.keys, place)
			v.ID, v.Unsigned = mustID(t, c.m.ID), c.word
			if _, err := Verify(t.Context(), v); !errors.Is(err, c.wants) {
				t.Errorf("state %t: index %d, word %t: %v; want %v", state != "", c.m.RaftIndex, c.word, err, c.wants)
			}
		}
	}
	// Where the machine cannot tell from where on all are signed, the word is not enough.
	if err := os.WriteFile(filepath.Join(s.opts.StateDir, takeStateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := verifyOptions(t, s.keys, believing{s.d, &Trust{Ring: s.ring, TakeState: s.opts.StateDir}})
	v.ID, v.Unsigned = mustID(t, forged.ID), true
	if _, err := Verify(t.Context(), v); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a state that is spoilt: %v", err)
	}
}

// A machine that begins to sign: what it had stored last counts as signed for as long as
// it is that, and the next one is.
func TestFirstSignature(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	key := signingKey(1)
	state, verified := t.TempDir(), t.TempDir()
	place := believing{d, &Trust{Ring: ringOf(key), TakeState: state, VerifyState: verified}}
	take := func(index uint64, key ed25519.PrivateKey) Manifest {
		t.Helper()
		o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{index: index})), place)
		o.StateDir, o.SigningKey = state, key
		o.Now = clock(testTime.Add(time.Duration(index) * time.Minute))
		taken, err := Take(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return taken.Manifest
	}
	verify := func(want Manifest) {
		t.Helper()
		v := verifyOptions(t, k, place)
		v.StateDir, v.TakeStateDir, v.Now = verified, state, clock(testTime.Add(48*time.Hour))
		if rec, err := Verify(t.Context(), v); err != nil || rec.ID != want.ID {
			t.Fatalf("verified %q, %v; want %q", rec.ID, err, want.ID)
		}
		if m, err := NewestVerified(t.Context(), place, testCluster); err != nil || m.ID != want.ID {
			t.Fatalf("newest verified is %q, %v; want %q", m.ID, err, want.ID)
		}
	}
	first := take(10, nil)
	verify(first)
	// Nobody's signature was asked for then; another machine's state says nothing here.
	place.trust.TakeState, place.trust.VerifyState = t.TempDir(), t.TempDir()
	if m, err := NewestVerified(t.Context(), place, testCluster); err == nil {
		t.Errorf("another machine believes %s", m.ID)
	}
	place.trust.TakeState, place.trust.VerifyState = state, verified
	second := take(20, key)
	verify(second)
	s, err := LoadTakeState(state)
	if err != nil || s.FirstSigned[testCluster].ID != second.ID || s.Last["mem"].SignedBy != signing.Fingerprint(key.Public().(ed25519.PublicKey)) {
		t.Errorf("state %+v, %v", s, err)
	}
	take(30, key)
	if s, err := LoadTakeState(state); err != nil || s.FirstSigned[testCluster].ID != second.ID {
		t.Errorf("the first one is %+v, %v", s.FirstSigned, err)
	}
	// A retired key verifies as ever.
	place.trust.Ring.Use(RoleTaker, "box", signingKey(2).Public().(ed25519.PublicKey), testTime)
	v := verifyOptions(t, k, place)
	if rec, err := Verify(t.Context(), v); err != nil || rec.RaftIndex != 30 {
		t.Errorf("after the key was retired: %+v, %v", rec, err)
	}
}

// What somebody puts between the machine's own makes none of them go.
func TestPruneBesideForgedSnapshots(t *testing.T) {
	s := newSignedPlace(t)
	var mine []Manifest
	at := func(hour int, key ed25519.PrivateKey) Manifest {
		s.opts.Now = clock(testTime.Add(time.Duration(hour) * time.Hour))
		return s.take(uint64(1000+hour), key, "") //nolint:gosec // small
	}
	for hour := range 6 {
		mine = append(mine, at(2*hour+1, s.key))
	}
	for hour := range 40 {
		at(hour, nil)
	}
	place := believing{s.d, &Trust{Ring: s.ring}}
	if _, err := Prune(t.Context(), PruneOptions{Destination: place, ClusterID: testCluster, Policy: Policy{Hourly: 6}, Now: func() time.Time { return testTime.Add(50 * time.Hour) }}); err != nil {
		t.Fatal(err)
	}
	for _, m := range mine {
		if _, err := s.d.Stat(t.Context(), m.Snapshot.Name); err != nil {
			t.Errorf("index %d is gone: %v", m.RaftIndex, err)
		}
	}
}

// swapping gives another manifest at the second look.
type swapping struct {
	believing
	name string
	next []byte
	left int
}

func (s *swapping) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == s.name {
		if s.left--; s.left < 0 {
			s.mu.Lock()
			s.objects[name] = s.next
			s.mu.Unlock()
		}
	}
	return s.believing.Get(ctx, name)
}

// A manifest is judged where it is used, not where it was listed.
func TestAManifestThatIsSwappedMeanwhile(t *testing.T) {
	s := newSignedPlace(t)
	id := mustID(t, s.now.ID)
	forged := s.now
	forged.RaftIndex = 900
	text, err := forged.encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for looks := range 4 {
		d := &swapping{believing{s.d, &Trust{Ring: s.ring}}, id.object(suffixManifest), text, looks}
		keep := bytes.Clone(s.d.objects[d.name])
		s.prove(id)
		if m, err := NewestVerified(t.Context(), d, testCluster); err == nil && m.RaftIndex == 900 {
			t.Errorf("after %d looks: the forged one is chosen", looks)
		}
		v := verifyOptions(t, s.keys, d)
		d.left = looks
		if rec, err := Verify(t.Context(), v); err == nil && rec.RaftIndex == 900 {
			t.Errorf("after %d looks: the forged one is good", looks)
		}
		s.d.objects[d.name] = keep
	}
}

func TestTrustFiles(t *testing.T) {
	s := newSignedPlace(t)
	file := filepath.Join(t.TempDir(), "keyring.json")
	newest := func(trust *Trust) error {
		_, err := NewestVerified(t.Context(), believing{s.d, trust}, testCluster)
		return err
	}
	if err := newest(&Trust{Keyring: file}); err != nil {
		t.Errorf("no keyring: %v", err)
	}
	if err := newest(&Trust{Keyring: file, Must: true}); err == nil {
		t.Error("a keyring that was named and is not there asks for nothing")
	}
	text, err := s.ring.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		good bool
	}{{string(text), true}, {"", false}, {"{}", false}, {string(text[:40]), false}, {`{"format": 1, "keys": []}`, false}} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := newest(&Trust{Keyring: file}); (err == nil) != c.good {
			t.Errorf("%.30q: %v", c.text, err)
		}
	}
}
