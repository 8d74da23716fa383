package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"

	"strongroom.example/config/recipient"
)

var errKilled = errors.New("killed")

// What is wrong with a place for a while.
const (
	placeWell = iota
	placeDown
	placeFull
	placeDenies
	placeHangs
	placeLies // its listing leaves names out
	placeModes
)

// fickle is a place with faults, for one machine's trust. A kill is of the machine: from
// then on no call does anything, and what the jobs' states were at that moment is kept.
type fickle struct {
	*mem
	w *campaign
	m *taker
}

func (f *fickle) Trust() *Trust { return f.m.trust }

// call counts one, and says what comes of it.
func (f *fickle) call(ctx context.Context, put bool) error {
	w := f.w
	w.mu.Lock()
	w.calls++
	if w.calls == w.killAt && !w.killed {
		w.killed = true
		w.atKill = map[string][]byte{}
		for _, file := range f.m.stateFiles() {
			if data, err := os.ReadFile(file); err == nil {
				w.atKill[file] = data
			}
		}
	}
	killed, mode := w.killed, w.mode[f.name]
	w.mu.Unlock()
	switch {
	case killed:
		return errKilled
	case mode == placeDown:
		return fmt.Errorf("%s: %w", f.name, ErrUnreachable)
	case mode == placeDenies:
		return fmt.Errorf("%s: %w", f.name, ErrDenied)
	case mode == placeFull && put:
		return fmt.Errorf("%s: %w", f.name, ErrFull)
	case mode == placeHangs:
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (f *fickle) Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error) {
	f.w.mu.Lock()
	slow := f.w.slow[f.name]
	f.w.mu.Unlock()
	if slow != nil && strings.HasSuffix(name, suffixSnap) {
		<-slow
	}
	if err := f.call(ctx, true); err != nil {
		return ObjectInfo{}, err
	}
	return f.mem.Put(ctx, name, r)
}

func (f *fickle) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := f.call(ctx, false); err != nil {
		return nil, err
	}
	return f.mem.Get(ctx, name)
}

func (f *fickle) Stat(ctx context.Context, name string) (ObjectInfo, error) {
	if err := f.call(ctx, false); err != nil {
		return ObjectInfo{}, err
	}
	return f.mem.Stat(ctx, name)
}

func (f *fickle) Delete(ctx context.Context, name string) error {
	if err := f.call(ctx, false); err != nil {
		return err
	}
	return f.mem.Delete(ctx, name)
}

func (f *fickle) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	if err := f.call(ctx, false); err != nil {
		return nil, err
	}
	all, err := f.mem.List(ctx, prefix)
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.mode[f.name] == placeLies {
		all = slices.DeleteFunc(all, func(ObjectInfo) bool { return f.w.rng.IntN(4) == 0 })
	}
	return all, err
}

// taker is a machine that takes and verifies.
type taker struct {
	vault           storage
	key             ed25519.PrivateKey
	trust           *Trust
	state, verified string
	places          []Destination
}

func (m *taker) stateFiles() []string {
	return []string{filepath.Join(m.state, takeStateFile), filepath.Join(m.verified, verifyStateFile)}
}

// campaign is what is known of the truth.
type campaign struct {
	keys
	t      *testing.T
	dir    string
	rng    *rand.Rand
	stores []*mem
	policy Policy

	real    time.Time     // what a right clock says
	off     time.Duration // how wrong this machine's is
	doubted bool          // and the kernel says so
	made    map[ID]Position
	stored  map[string][]byte // objects as they were made, by name
	m       *taker            // in charge
	old     *taker            // abandoned, and going on; may be nil

	mu     sync.Mutex
	mode   map[string]int
	slow   map[string]chan struct{}
	calls  int
	killAt int
	killed bool
	atKill map[string][]byte

	count map[string]int
}

func (w *campaign) now() time.Time { return w.real.Add(w.off) }

func (w *campaign) doubt() error {
	if w.doubted {
		return ErrClock
	}
	return nil
}

func newCampaign(t *testing.T, seed uint64) *campaign {
	w := &campaign{
		keys: newKeys(t), t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // to be had again
		real: testTime, made: map[ID]Position{}, stored: map[string][]byte{}, policy: Policy{Hourly: 3, Daily: 2},
		mode: map[string]int{}, slow: map[string]chan struct{}{}, count: map[string]int{},
	}
	for i := range 1 + w.rng.IntN(3) {
		d := newMem(fmt.Sprint("place", i))
		d.now = func() time.Time { return w.real }
		w.stores = append(w.stores, d)
	}
	w.m = w.machine(storage{lineage: &Lineage{ID: "first"}}, 1)
	return w
}

func (w *campaign) machine(vault storage, seed byte) *taker {
	m := &taker{vault: vault, key: signingKey(seed)}
	var err error
	for _, dir := range []*string{&m.state, &m.verified} {
		if *dir, err = os.MkdirTemp(w.dir, ""); err != nil {
			w.t.Fatal(err)
		}
	}
	ring := ringOf(signingKey(1))
	for s := byte(2); s <= seed; s++ {
		ring.Use(RoleTaker, "machine"+string('a'+rune(s)), signingKey(s).Public().(ed25519.PublicKey), testTime)
	}
	m.trust = &Trust{Ring: ring, TakeState: m.state, VerifyState: m.verified}
	for _, d := range w.stores {
		m.places = append(m.places, &fickle{d, w, m})
	}
	return m
}

// under runs something that may be killed, and puts the states back as they were then.
func (w *campaign) under(m *taker, do func()) {
	w.mu.Lock()
	w.calls, w.killed, w.killAt = 0, false, 0
	if w.rng.IntN(4) == 0 {
		w.killAt = 1 + w.rng.IntN(40)
	}
	w.mu.Unlock()
	do()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.killed {
		return
	}
	w.count["kills"]++
	for _, file := range m.stateFiles() {
		if data, ok := w.atKill[file]; ok {
			if err := os.WriteFile(file, data, 0o600); err != nil {
				w.t.Fatal(err)
			}
		} else if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Fatal(err)
		}
	}
}

func (w *campaign) take(m *taker) {
	m.vault.index += 1 + w.rng.Uint64N(20)
	o := TakeOptions{
		Source: bytesSource(buildArchive(w.t, archiveSpec{index: m.vault.index, state: randomBytes(200, m.vault.index)})),
		Vault:  VaultInfo{ClusterID: testCluster, Version: "1.21.1"}, Recipients: []recipient.Recipient{w.recipient},
		Destinations: m.places, Lineage: m.vault.lineage, SigningKey: m.key, StateDir: m.state,
		Now: w.now, Doubt: w.doubt, Stall: DefaultStall,
	}
	taken, err := Take(w.t.Context(), o)
	if err != nil && taken.Manifest.ID == "" {
		return
	}
	id := mustID(w.t, taken.Manifest.ID)
	w.made[id] = taken.Manifest.Position()
	w.count["takes"]++
	for _, d := range w.stores {
		for name, data := range d.copy() {
			if _, known := w.stored[name]; !known && strings.HasPrefix(name, id.String()) {
				w.stored[name] = []byte(data)
			}
		}
	}
	for _, held := range taken.Held {
		if !w.intact(w.store(held), id) {
			w.t.Errorf("%s is said to hold %s, and does not", held, id)
		}
	}
}

func (w *campaign) store(name string) *mem {
	return w.stores[slices.IndexFunc(w.stores, func(d *mem) bool { return d.name == name })]
}

// intact says whether a place has a snapshot as it was made.
func (w *campaign) intact(d *mem, id ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, suffix := range []string{suffixSnap, suffixManifest} {
		data, ok := d.objects[id.object(suffix)]
		if !ok || !bytes.Equal(data, w.stored[id.object(suffix)]) {
			return false
		}
	}
	return true
}

// proven are the good copies of a place, oldest first.
func (w *campaign) proven(d *mem) []ID {
	return slices.DeleteFunc(w.withProof(d), func(id ID) bool { return !w.intact(d, id) })
}

// withProof are those that were read back once, the oldest first. What has become of
// one since nobody knows who does not read it again.
func (w *campaign) withProof(d *mem) []ID {
	var out []ID
	for id := range w.made {
		if _, err := Proven(context.Background(), d, id); err == nil {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b ID) int {
		return cmp.Or(w.made[a].Compare(w.made[b]), strings.Compare(a.Base, b.Base))
	})
	return out
}

// hours are how many have a complete snapshot of a machine's in a place.
func (w *campaign) hours(d *mem) int {
	hours := map[time.Time]bool{}
	objects := d.copy()
	for id := range w.made {
		_, there := objects[id.object(suffixSnap)]
		name := id.object(suffixManifest)
		if there && objects[name] == string(w.stored[name]) && !id.Time().After(w.now()) {
			hours[id.Time().Truncate(time.Hour)] = true
		}
	}
	return len(hours)
}

// verify verifies and prunes each place, as the unit does, and holds what came of it
// against the truth.
func (w *campaign) verify(m *taker, during ...string) {
	before, hours, all := map[string][]ID{}, map[string]int{}, map[string]map[string]string{}
	for _, d := range w.stores {
		before[d.name], hours[d.name], all[d.name] = w.proven(d), w.hours(d), d.copy()
	}
	taken, _ := LoadTakeState(m.state)
	good, err := VerifyPlaces(w.t.Context(), m.places, VerifyOptions{
		Identities: []age.Identity{w.identity}, ClusterID: testCluster, StateDir: m.verified, TakeStateDir: m.state,
		Now: w.now, Doubt: w.doubt, Stall: DefaultStall,
		Then: func(ctx context.Context, d Destination, cluster string, good ID) error {
			_, err := Prune(ctx, PruneOptions{Destination: d, ClusterID: cluster, Good: good, Policy: w.policy, Now: w.now, Doubt: w.doubt, TakeStateDir: m.state})
			return err
		},
	})
	w.count["verifications"]++
	w.mu.Lock()
	killed, modes := w.killed, maps.Clone(w.mode)
	w.mu.Unlock()
	for _, d := range w.stores {
		last, lerr := ParseID(taken.Last[d.name].ID)
		after := w.proven(d)
		// Good copies lost.
		if b := before[d.name]; len(b) > 0 {
			newest := b[len(b)-1]
			if len(after) == 0 || w.made[after[len(after)-1]].Compare(w.made[newest]) < 0 {
				w.count["good copies lost"]++
				w.t.Errorf("%s: %s, the newest good copy, is gone", d.name, newest)
			}
			if had, has := hours[d.name], w.hours(d); has < min(had, w.policy.Hourly) {
				w.count["good copies lost"]++
				w.t.Errorf("%s: good copies of %d hours are left of %d", d.name, has, had)
			}
			for _, id := range b {
				if id.Time().After(w.now()) && !slices.Contains(after, id) {
					w.count["good copies lost"]++
					w.t.Errorf("%s: %s, dated after now, is gone", d.name, id)
				}
			}
		}
		now, proofs := d.copy(), w.withProof(d)
		for name := range all[d.name] {
			id, suffix, _ := splitObject(name)
			_, there := now[name]
			switch {
			case there || suffix != suffixSnap:
			case w.doubted:
				w.count["good copies lost"]++
				w.t.Errorf("%s: %s is gone while the clock is in doubt", d.name, id)
			case w.made[id] == (Position{}) || all[d.name][id.object(suffixManifest)] != string(w.stored[id.object(suffixManifest)]):
			case len(proofs) == 0 || w.made[id].Compare(w.made[proofs[len(proofs)-1]]) > 0:
				w.count["good copies lost"]++
				w.t.Errorf("%s: %s is gone, and nothing newer is verified", d.name, id)
			}
		}
		// A proof that proves nothing.
		if rec, ok := good[d.name]; ok {
			w.count["proofs"]++
			id := mustID(w.t, rec.ID)
			if _, own := w.made[id]; !own || !w.intact(d, id) || lerr == nil && id != last {
				w.count["proofs of nothing"]++
				w.t.Errorf("%s: %s is called good; stored last was %s", d.name, id, last)
			}
		}
		// Healthy places left alone.
		if killed || modes[d.name] != placeWell || lerr != nil || !w.intact(d, last) {
			continue
		}
		w.count["healthy places looked at"]++
		if rec, ok := good[d.name]; !ok || rec.ID != last.String() {
			w.count["healthy places left"]++
			w.t.Errorf("%s is well, and %s was not verified: %v (beside %v)", d.name, last, err, during)
		}
		res, err := Prune(context.Background(), PruneOptions{Destination: trusted{d, m.trust}, ClusterID: testCluster, Policy: w.policy, DryRun: true, Now: w.now, Doubt: w.doubt})
		for _, dec := range res.Decisions {
			if !dec.Keep {
				w.count["healthy places left"]++
				w.t.Errorf("%s is well, and %s was not pruned: %v (beside %v)", d.name, dec.Entry.ID, err, during)
			}
		}
	}
}

type trusted struct {
	*mem
	trust *Trust
}

func (d trusted) Trust() *Trust { return d.trust }

// choose is what a restore does: the newest good copy of all that can be asked.
func (w *campaign) choose() (Manifest, bool) {
	listed, _ := ListPlaces(w.t.Context(), w.m.places, testCluster)
	first, err := NewestFirst(listed, func(p Placed) bool { return p.Verified })
	if err != nil {
		w.t.Error(err)
	}
	var want ID
	for _, d := range w.stores {
		if w.mode[d.name] == placeLies {
			want = ID{}
			break
		}
		if p := w.proven(d); w.mode[d.name] <= placeWell || w.mode[d.name] == placeFull {
			if len(p) > 0 && (want == (ID{}) || w.made[p[len(p)-1]].Compare(w.made[want]) > 0) {
				want = p[len(p)-1]
			}
		}
	}
	for _, p := range first {
		d := w.m.places[slices.IndexFunc(w.stores, func(d *mem) bool { return d.name == p.Place })]
		m, err := Proven(w.t.Context(), d, p.ID)
		if err == nil {
			err = checkStored(w.t.Context(), d, m, []age.Identity{w.identity})
		}
		if err != nil {
			continue
		}
		w.count["choices"]++
		if got := mustID(w.t, m.ID); w.made[got] == (Position{}) || want != (ID{}) && w.made[got] != w.made[want] {
			w.count["wrong choices"]++
			w.t.Errorf("%s at %s is chosen, not %s at %s", got, w.made[got], want, w.made[want])
		}
		return m, true
	}
	if want != (ID{}) {
		w.count["wrong choices"]++
		w.t.Errorf("nothing is chosen, and %s is good", want)
	}
	return Manifest{}, false
}

// step does one thing at random.
func (w *campaign) step() {
	w.real = w.real.Add(time.Duration(w.rng.IntN(90)) * time.Minute)
	for _, d := range w.stores { // what is wrong with places comes and goes
		w.mode[d.name] = placeWell
		if w.rng.IntN(4) == 0 {
			w.mode[d.name] = w.rng.IntN(placeModes)
		}
	}
	switch w.rng.IntN(14) {
	case 0: // the clock goes wrong, or right
		w.off, w.doubted = 0, false
		if w.rng.IntN(2) == 0 {
			w.off = time.Duration(w.rng.IntN(40000)-20000) * time.Hour
			w.doubted = w.rng.IntN(2) == 0
		}
	case 1: // one byte rots
		d := w.stores[w.rng.IntN(len(w.stores))]
		if all := slices.Sorted(maps.Keys(d.objects)); len(all) > 0 {
			name := all[w.rng.IntN(len(all))]
			if s, _ := LoadTakeState(w.m.state); w.rng.IntN(2) == 0 && d.objects[s.Last[d.name].ID+suffixSnap] != nil {
				name = s.Last[d.name].ID + suffixSnap
			}
			data := bytes.Clone(d.objects[name])
			data[w.rng.IntN(len(data))] ^= 1 << w.rng.IntN(8)
			d.objects[name] = data
		}
	case 2: // somebody else writes there what is sound in itself, and newer
		d := w.stores[w.rng.IntN(len(w.stores))]
		s := signedPlace{keys: w.keys, t: w.t, d: d, opts: takeOptions(w.t, w.keys, nil, d)}
		s.opts.Now, s.opts.Lineage = clock(w.real.Add(time.Duration(w.rng.IntN(100))*time.Hour)), w.m.vault.lineage
		s.take(1<<40, []ed25519.PrivateKey{nil, signingKey(99)}[w.rng.IntN(2)], "")
		w.count["forgeries"]++
	case 3: // the machine is lost, and rebuilt elsewhere from what is chosen
		if w.m.key.Equal(signingKey(6)) {
			return
		}
		w.killed, w.killAt = false, 0
		m, ok := w.choose()
		if !ok {
			return
		}
		seed := byte(2)
		for !w.m.key.Equal(signingKey(seed - 1)) {
			seed++
		}
		w.old = w.m
		w.m = w.machine(storage{index: m.RaftIndex + 3, lineage: &Lineage{ID: fmt.Sprint("l", seed), Epoch: w.old.vault.lineage.Epoch + 1, Parent: m.Lineage.ID, Left: m.RaftIndex}}, seed)
		w.count["machines rebuilt"]++
	case 4: // the abandoned one goes on
		if w.old != nil {
			w.under(w.old, func() { w.take(w.old) })
		}
	case 5, 6: // a place takes its time; the others are not waited for
		if len(w.stores) < 2 {
			return
		}
		slow, release := w.stores[w.rng.IntN(len(w.stores))].name, make(chan struct{})
		w.mode[slow] = placeWell
		w.mu.Lock()
		w.slow[slow], w.killed, w.killAt = release, false, 0
		w.mu.Unlock()
		done := make(chan struct{})
		m := *w.m
		go func() { defer close(done); w.take(&m) }()
		synctest.Wait()
		w.verifyBeside(slow)
		w.mu.Lock()
		delete(w.slow, slow)
		w.mu.Unlock()
		close(release)
		<-done
		w.m.vault.index = m.vault.index
		w.count["verified beside a slow take"]++
	case 8:
		w.under(w.m, func() { w.take(w.m) }) // and no verification
	case 9:
		w.under(w.m, func() { w.verify(w.m) })
	case 7:
		w.killed, w.killAt = false, 0
		w.choose()
	default:
		w.under(w.m, func() { w.take(w.m) })
		w.under(w.m, func() { w.verify(w.m) })
	}
}

// verifyBeside verifies and prunes while a take is under way in the slow place.
func (w *campaign) verifyBeside(slow string) {
	for _, d := range w.stores {
		for name, data := range d.copy() { // what the take has stored so far
			if id, _, ok := splitObject(name); ok && w.stored[name] == nil {
				if m, err := ParseManifest([]byte(d.copy()[id.object(suffixManifest)])); err == nil && m.Position().Lineage == w.m.vault.lineage.ID && m.RaftIndex < 1<<40 {
					w.made[id], w.stored[name] = m.Position(), []byte(data)
				}
			}
		}
	}
	w.verify(w.m, slow, "taking")
}

// Random places, faults, clocks and kills: no good copy is lost, no healthy place is left
// alone, and no proof proves nothing.
func TestBackupCampaign(t *testing.T) {
	worlds, steps := uint64(16), 40
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		worlds, steps = 500, 80
	}
	total := map[string]int{"good copies lost": 0, "healthy places left": 0, "proofs of nothing": 0, "wrong choices": 0}
	for seed := range worlds {
		synctest.Test(t, func(t *testing.T) {
			w := newCampaign(t, seed)
			for n := range steps {
				if w.step(); t.Failed() {
					t.Fatalf("in world %d at step %d: %v", seed, n, w.count)
				}
			}
			for k, n := range w.count {
				total[k] += n
			}
		})
		if t.Failed() {
			break
		}
	}
	for _, k := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%-30s %d", k, total[k])
	}
	for _, least := range []string{"kills", "forgeries", "machines rebuilt", "verified beside a slow take", "proofs", "choices", "healthy places looked at"} {
		if total[least] < int(worlds) { //nolint:gosec // small
			t.Errorf("%s: only %d", least, total[least])
		}
	}
}
