package restore

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
	"strongroom.example/config/recipient"
)

// fakeVault answers what a restore asks, and can fail anywhere.
type fakeVault struct {
	t *testing.T

	mu       sync.Mutex
	calls    []string
	got      []byte // the archive that came
	restored bool
	waits    []string // what max_wait was set to
	sealed   int      // how many polls it is sealed for after the restore
	failsAt  int      // one of these polls is answered with 500

	// What may be set before the start.
	health    string                                        // body of sys/health
	snapshot  func(http.ResponseWriter, *http.Request) bool // answers in its place
	keepsOld  bool                                          // never forgets the marker
	mounts    int                                           // status of sys/mounts, 200 when 0
	reconcile string                                        // data of apikeys/reconcile
	broken    bool                                          // reconcile answers 500
	nodes     []snapshot.Server                             // raft's; none: it is alone
}

const activeHealth = `{"initialized":true,"sealed":false,"standby":false,"version":"1.21.1","cluster_id":"one"}`

func (f *fakeVault) start(t *testing.T) *vaultapi.Client {
	t.Helper()
	c, err := vaultapi.New(vaultapi.Options{Address: f.startWith(t, f), Token: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// startWith has h answer for it, and gives its address.
func (f *fakeVault) startWith(t *testing.T, h http.Handler) string {
	t.Helper()
	f.t = t
	if f.health == "" {
		f.health = activeHealth
	}
	dir, err := os.MkdirTemp("", "fv-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener = l
	srv.Start()
	t.Cleanup(func() { srv.Close(); _ = os.RemoveAll(dir) })
	return "unix://" + filepath.Join(dir, "s")
}

func (f *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	f.mu.Lock()
	defer f.mu.Unlock()
	if path != "sys/seal-status" && path != "sys/health" && path != "sys/storage/raft/configuration" && path != "auth/token/lookup-self" {
		f.calls = append(f.calls, r.Method+" "+path)
	}
	answer := func(status int, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
	switch path {
	case "sys/health":
		answer(200, f.health)
	case "sys/storage/raft/configuration":
		var servers []map[string]any
		for _, n := range f.nodes {
			servers = append(servers, map[string]any{"node_id": n.ID, "address": n.Address})
		}
		body, _ := json.Marshal(map[string]any{"data": map[string]any{"config": map[string]any{"servers": servers}}})
		answer(200, string(body))
	case "sys/seal-status":
		if f.restored && f.sealed != 0 {
			f.sealed--
			if f.failsAt > 0 && f.sealed == f.failsAt {
				answer(500, `{"errors":["internal"]}`)
				return
			}
			answer(200, `{"sealed":true,"initialized":true,"type":"transit"}`)
			return
		}
		answer(200, `{"sealed":false,"initialized":true,"type":"transit"}`)
	case "auth/token/create":
		answer(200, `{"auth":{"client_token":"marker"}}`)
	case "auth/token/revoke-self":
		answer(204, "")
	case "auth/token/lookup-self":
		if f.restored && !f.keepsOld {
			answer(403, `{"errors":["permission denied"]}`)
			return
		}
		answer(200, `{"data":{}}`)
	case "sys/storage/raft/snapshot", "sys/storage/raft/snapshot-force":
		if f.snapshot != nil && f.snapshot(w, r) {
			return
		}
		f.got, _ = io.ReadAll(r.Body)
		f.restored = true
		answer(204, "")
	case "sys/mounts":
		if f.mounts != 0 {
			answer(f.mounts, `{"errors":["permission denied"]}`)
			return
		}
		answer(200, `{"data":{"apikeys/":{"type":"`+machine.PluginName+`"},"secret/":{"type":"kv"}}}`)
	case "apikeys/config":
		if r.Method == http.MethodGet {
			now := "60"
			if len(f.waits) > 0 {
				now = f.waits[len(f.waits)-1]
			}
			answer(200, `{"data":{"max_wait":`+now+`}}`)
			return
		}
		var set struct {
			MaxWait json.Number `json:"max_wait"`
		}
		if err := json.NewDecoder(r.Body).Decode(&set); err != nil {
			f.t.Error(err)
		}
		f.waits = append(f.waits, set.MaxWait.String())
		answer(204, "")
	case "apikeys/reconcile":
		if r.Method == http.MethodPut {
			// The client waits for 60 s, and an engine looks at its watch
			// between two keys only.
			var in struct {
				MaxSeconds int `json:"max_seconds"`
			}
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.MaxSeconds < 1 || in.MaxSeconds > 30 {
				f.t.Errorf("reconcile for %d s, %v", in.MaxSeconds, err)
			}
			if f.broken {
				answer(500, `{"errors":["internal"]}`)
				return
			}
		}
		answer(200, `{"data":`+f.reconcile+`}`)
	default:
		f.t.Errorf("unexpected request %s %s", r.Method, path)
		answer(404, `{"errors":[]}`)
	}
}

// testArchive is a small sound raft snapshot.
func testArchive(t *testing.T) []byte {
	t.Helper()
	return archiveOf(t, []byte("state"))
}

func archiveOf(t *testing.T, state []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	meta := fmt.Appendf(nil, `{"Index":7,"Term":1,"Size":%d}`, len(state))
	sums := fmt.Appendf(nil, "%x  meta.json\n%x  state.bin\n", sha256.Sum256(meta), sha256.Sum256(state))
	for _, m := range []struct {
		name string
		data []byte
	}{{"meta.json", meta}, {"state.bin", state}, {"SHA256SUMS", sums}} {
		if err := tw.WriteHeader(&tar.Header{Name: m.name, Mode: 0o600, Size: int64(len(m.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), gz.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

type bytesSource []byte

func (s bytesSource) Snapshot(_ context.Context, w io.Writer) error {
	_, err := w.Write(s)
	return err
}

// store is a directory with snapshots of cluster "one".
type store struct {
	dest *snapshot.Dir
	path string
	id   *age.X25519Identity
	opts snapshot.TakeOptions
}

func newStore(t *testing.T) store {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipient.Parse(id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	s := store{path: t.TempDir(), id: id}
	if s.dest, err = snapshot.NewDir(s.path); err != nil {
		t.Fatal(err)
	}
	s.opts = snapshot.TakeOptions{
		Source: bytesSource(testArchive(t)), Vault: snapshot.VaultInfo{ClusterID: "one", Version: "1.21.1"},
		Recipients: []recipient.Recipient{r}, Destinations: []snapshot.Destination{s.dest}, StateDir: t.TempDir(),
	}
	return s
}

func (s store) take(t *testing.T, at time.Time, verify bool) snapshot.ID {
	t.Helper()
	s.opts.Now = func() time.Time { return at }
	taken, err := snapshot.Take(t.Context(), s.opts)
	if err != nil {
		t.Fatal(err)
	}
	id, err := snapshot.ParseID(taken.Manifest.ID)
	if err != nil {
		t.Fatal(err)
	}
	if verify {
		_, err := snapshot.Verify(t.Context(), snapshot.VerifyOptions{
			Destination: s.dest, Identities: []age.Identity{s.id}, ClusterID: "one", ID: id, StateDir: t.TempDir(),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// checked is a snapshot that is ready to be restored.
func checked(t *testing.T) *Checked {
	t.Helper()
	return checkedOf(t, testArchive(t))
}

func checkedOf(t *testing.T, archive []byte) *Checked {
	t.Helper()
	s := newStore(t)
	s.opts.Source = bytesSource(archive)
	c, err := ByID(t.Context(), []snapshot.Destination{s.dest}, s.take(t, time.Now(), false))
	if err != nil {
		t.Fatal(err)
	}
	k, err := Fetch(t.Context(), c, []age.Identity{s.id}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

const reconciled = `{"done":true,"fenced":false,"keys":3,"checked":3,"renewed":1,"problems":{},"finished_time":"2026-11-24T15:15:00Z"}`

func refuse(status int, text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"errors":["`+text+`"]}`)
		return true
	}
}

func TestRun(t *testing.T) {
	hangUp := func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
		return true
	}
	tests := []struct {
		name     string
		vault    *fakeVault
		keep     bool // with a Keep that fails
		patience time.Duration
		want     error
		restored bool
		epoch    int64
		ends     string // the last call, polls left out
	}{
		{"done", &fakeVault{sealed: 3}, false, time.Minute, nil, true, 5, "PUT apikeys/reconcile"},
		{"done, after a bad answer", &fakeVault{sealed: 20, failsAt: 5}, false, time.Minute, nil, true, 5, "PUT apikeys/reconcile"},
		{"an engine without a word on its end", &fakeVault{reconcile: `{"fenced":true,"keys":3,"checked":3,"renewed":1,"problems":{}}`}, false, time.Minute, ErrUnfinished, true, 5, "PUT apikeys/reconcile"},
		{"not initialised", &fakeVault{health: `{"initialized":false,"sealed":true}`}, false, time.Minute, ErrNotReady, false, 4, ""},
		{"sealed", &fakeVault{health: `{"initialized":true,"sealed":true}`}, false, time.Minute, ErrNotReady, false, 4, ""},
		{"standby", &fakeVault{health: `{"initialized":true,"standby":true}`}, false, time.Minute, ErrNotReady, false, 4, ""},
		{"what is replaced cannot be kept", &fakeVault{}, true, time.Minute, snapshot.ErrTruncated, false, 4, ""},
		{"another seal", &fakeVault{snapshot: refuse(400, "could not verify hash file, possibly the snapshot is using a different autoseal key")},
			false, time.Minute, ErrOtherSeal, false, 4, "PUT auth/token/revoke-self"},
		{"no permission", &fakeVault{snapshot: refuse(403, "permission denied")}, false, time.Minute, errAny, false, 4, "PUT auth/token/revoke-self"},
		// Nobody knows whether Vault had it: no engine may act before a reconcile.
		{"cut off", &fakeVault{snapshot: hangUp}, false, time.Minute, ErrUnclear, false, 5, "POST sys/storage/raft/snapshot"},
		{"sealed for good", &fakeVault{sealed: -1}, false, time.Second, ErrSealed, true, 5, "POST sys/storage/raft/snapshot"},
		{"never restored", &fakeVault{keepsOld: true}, false, 200 * time.Millisecond, context.DeadlineExceeded, true, 5, "POST sys/storage/raft/snapshot"},
		{"the token is gone", &fakeVault{mounts: 403}, false, time.Minute, ErrTokenGone, true, 5, "GET sys/mounts"},
		{"an engine fails", &fakeVault{broken: true}, false, time.Minute, ErrUnfinished, true, 5, "PUT apikeys/reconcile"},
		{"a key cannot be checked", &fakeVault{reconcile: `{"done":false,"fenced":true,"keys":2,"checked":1,"renewed":0,"problems":{"app/x":"unreachable"},"finished_time":"2026-11-24T15:15:00Z"}`},
			false, time.Minute, ErrProblems, true, 5, "PUT apikeys/reconcile"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.vault.reconcile == "" {
				tt.vault.reconcile = reconciled
			}
			k, epoch := checked(t), filepath.Join(t.TempDir(), "epoch.json")
			if err := os.WriteFile(epoch, []byte(`{"installation_id":"x","epoch":4}`), 0o640); err != nil {
				t.Fatal(err)
			}
			o := Options{Snapshot: k, Vault: tt.vault.start(t), EpochFile: epoch, Patience: tt.patience, Poll: time.Millisecond}
			if tt.keep {
				keep := newStore(t).opts
				keep.Source = bytesSource(nil)
				o.Keep = &keep
			}
			res, err := Run(t.Context(), o)
			tt.vault.mu.Lock()
			defer tt.vault.mu.Unlock()
			if tt.want == errAny && err == nil || tt.want != errAny && !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if res.Restored != tt.restored {
				t.Errorf("restored %t, want %t", res.Restored, tt.restored)
			}
			if got := readEpoch(t, epoch); got != tt.epoch {
				t.Errorf("epoch %d, want %d", got, tt.epoch)
			}
			if calls := tt.vault.calls; len(calls) > 0 && calls[len(calls)-1] != tt.ends || len(calls) == 0 && tt.ends != "" {
				t.Errorf("calls %q, want %q last", calls, tt.ends)
			}
			// Waits are ended before Vault gets the snapshot, and allowed again
			// where it has refused it.
			refused := tt.want == ErrOtherSeal || tt.name == "no permission"
			switch set := strings.Join(tt.vault.waits, " "); {
			case refused && set != "0 60":
				t.Errorf("max_wait was set to %q, want 0 and back to 60", set)
			case tt.restored && tt.vault.mounts == 0 && set != "0":
				t.Errorf("max_wait was set to %q, want 0", set)
			}
			if tt.restored && !bytes.Equal(tt.vault.got, testArchive(t)) {
				t.Errorf("Vault got %d other bytes", len(tt.vault.got))
			}
		})
	}
}

var errAny = errors.New("any error")

func readEpoch(t *testing.T, path string) int64 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Installation string `json:"installation_id"`
		Epoch        int64  `json:"epoch"`
	}
	if err := json.Unmarshal(data, &e); err != nil || e.Installation != "x" {
		t.Fatalf("%s, %v", data, err)
	}
	return e.Epoch
}

// What an engine leaves out is no zero, and not "all is well".
func TestReconcileReadsEveryField(t *testing.T) {
	var whole map[string]any
	if err := json.Unmarshal([]byte(reconciled), &whole); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"done", "fenced", "keys", "checked", "renewed"} {
		left := maps.Clone(whole)
		delete(left, field)
		text, err := json.Marshal(left)
		if err != nil {
			t.Fatal(err)
		}
		f := &fakeVault{reconcile: string(text)}
		if _, err := Reconcile(t.Context(), f.start(t)); err == nil || !strings.Contains(err.Error(), `"`+field+`"`) {
			t.Errorf("without %s: %v", field, err)
		}
	}
}

// Vault answers before it has begun: whoever restarts it then gets what it had.
func TestHandOverWaitsUntilItIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		f        *fakeVault
		patience time.Duration
		want     error
		last     string
	}{
		"sealed on its way": {&fakeVault{sealed: 3}, time.Minute, nil, "POST sys/storage/raft/snapshot"},
		"never restored":    {&fakeVault{keepsOld: true}, 200 * time.Millisecond, context.DeadlineExceeded, "POST sys/storage/raft/snapshot"},
		"refused":           {&fakeVault{snapshot: refuse(403, "permission denied")}, time.Minute, errAny, "PUT auth/token/revoke-self"},
	} {
		t.Run(name, func(t *testing.T) {
			err := HandOver(t.Context(), c.f.start(t), strings.NewReader("the archive"), c.patience)
			c.f.mu.Lock()
			defer c.f.mu.Unlock()
			if (err == nil) != (c.want == nil) || c.want != nil && c.want != errAny && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if c.f.sealed != 0 || c.f.calls[len(c.f.calls)-1] != c.last {
				t.Errorf("sealed for %d polls more, calls %q", c.f.sealed, c.f.calls)
			}
		})
	}
}

func TestRunWithForceOnAStockVault(t *testing.T) {
	f := &fakeVault{reconcile: reconciled}
	res, err := Run(t.Context(), Options{Snapshot: checked(t), Vault: f.start(t), Force: true, EpochFile: "/nonexistent/epoch", Patience: time.Minute, Poll: time.Millisecond})
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || res.EpochRaised || !slices.Contains(f.calls, "POST sys/storage/raft/snapshot-force") {
		t.Errorf("result %+v, calls %q, %v", res, f.calls, err)
	}
}

func TestRaiseEpochRefusesWhatItCannotRead(t *testing.T) {
	for _, text := range []string{"", "{", `{"epoch":1}`, `{"installation_id":"x","epoch":-1}`} {
		path := filepath.Join(t.TempDir(), "epoch.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f := &fakeVault{}
		_, err := Run(t.Context(), Options{Snapshot: checked(t), Vault: f.start(t), EpochFile: path, Patience: time.Minute})
		after, rerr := os.ReadFile(path)
		if err == nil || f.restored || rerr != nil || string(after) != text {
			t.Errorf("%q: %v, restored %t, now %q", text, err, f.restored, after)
		}
	}
}

func TestEpochKeepsItsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "epoch.json")
	if err := os.WriteFile(path, []byte(`{"installation_id":"x","epoch":4}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := raiseEpoch(path, "", nil, 0); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

// The next copy is tried: another place's of the same snapshot, then older ones, and
// that is told. What is not of a copy ends it.
func TestFirst(t *testing.T) {
	now := time.Now().UTC()
	spoil := func(t *testing.T, s store, id snapshot.ID) {
		t.Helper()
		name := filepath.Join(s.path, id.String()+".snap.age")
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		bad    func(t *testing.T, a, b store, older, newest snapshot.ID)
		wanted func(w *Wanted, older, newest snapshot.ID)
		dir    string // for the download, where not the test's
		other  bool   // the wrong key
		from   int    // the place that it comes from in the end
		older  bool
		notes  int
		err    error
	}{
		"well": {from: 0},
		"one rotten byte in the first place": {
			bad: func(t *testing.T, a, _ store, _, newest snapshot.ID) { spoil(t, a, newest) }, from: 1, notes: 1,
		},
		"the same by its name": {
			bad:    func(t *testing.T, a, _ store, _, newest snapshot.ID) { spoil(t, a, newest) },
			wanted: func(w *Wanted, _, newest snapshot.ID) { w.ID = newest }, from: 1, notes: 1,
		},
		"the object is gone": {
			bad: func(t *testing.T, a, _ store, _, newest snapshot.ID) {
				if err := os.Remove(filepath.Join(a.path, newest.String()+".snap.age")); err != nil {
					t.Fatal(err)
				}
			}, from: 1,
		},
		"the newest is rotten everywhere": {
			bad:  func(t *testing.T, a, b store, _, newest snapshot.ID) { spoil(t, a, newest); spoil(t, b, newest) },
			from: 0, older: true, notes: 2,
		},
		"all is": {
			bad: func(t *testing.T, a, b store, older, newest snapshot.ID) {
				for _, s := range []store{a, b} {
					spoil(t, s, newest)
					spoil(t, s, older)
				}
			}, err: snapshot.ErrCorrupt,
		},
		"by its name none else will do": {
			bad:    func(t *testing.T, a, b store, _, newest snapshot.ID) { spoil(t, a, newest); spoil(t, b, newest) },
			wanted: func(w *Wanted, _, newest snapshot.ID) { w.ID = newest }, err: snapshot.ErrCorrupt,
		},
		"a place that is away": {
			wanted: func(w *Wanted, _, _ snapshot.ID) { w.Places = append([]snapshot.Destination{away{}}, w.Places...) }, from: 1, notes: 1,
		},
		"the wrong key":           {other: true, err: snapshot.ErrWrongIdentity},
		"no room on this machine": {dir: "/nonexistent", err: os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newStore(t), newStore(t)
			b.id, b.opts.Recipients = a.id, a.opts.Recipients
			a.opts.Destinations = append(a.opts.Destinations, b.dest)
			var ids []snapshot.ID
			for i := range 2 {
				id := a.take(t, now.Add(time.Duration(i-2)*time.Hour), true)
				ids = append(ids, id)
				_, err := snapshot.Verify(t.Context(), snapshot.VerifyOptions{
					Destination: b.dest, Identities: []age.Identity{a.id}, ClusterID: "one", ID: id, StateDir: t.TempDir(),
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			a.take(t, now, false) // newer, and not verified
			w := Wanted{Places: []snapshot.Destination{a.dest, b.dest}, Cluster: "one"}
			if tc.bad != nil {
				tc.bad(t, a, b, ids[0], ids[1])
			}
			if tc.wanted != nil {
				tc.wanted(&w, ids[0], ids[1])
			}
			dir, key := t.TempDir(), a.id
			if tc.dir != "" {
				dir = tc.dir
			}
			if tc.other {
				key = newStore(t).id
			}
			tried := 0
			var k *Checked
			c, others, err := First(t.Context(), w, func(c Choice) (err error) {
				tried++
				k, err = Fetch(t.Context(), c, []age.Identity{key}, dir)
				return err
			})
			if tc.err != nil {
				// The wrong key is tried on one snapshot, and no room is no copy's
				// fault.
				if most := map[bool]int{true: 2, false: 4}[tc.other]; !errors.Is(err, tc.err) || tried > most || tc.dir != "" && tried != 1 {
					t.Errorf("%v after %d tries, want %v", err, tried, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			want := ids[1]
			if tc.older {
				want = ids[0]
			}
			if c.Manifest.ID != want.String() || c.Destination != w.Places[tc.from] || c.Older != tc.older || c.VerifiedAt.IsZero() {
				t.Errorf("%s of %s, older %t", c.Manifest.ID, c.Destination.Name(), c.Older)
			}
			if notes := Notes(c, others); len(notes) != tc.notes {
				t.Errorf("notes %q", notes)
			}
		})
	}
	if _, _, err := First(t.Context(), Wanted{Places: []snapshot.Destination{newStore(t).dest}, Cluster: "one"}, nil); !errors.Is(err, snapshot.ErrNoSnapshot) {
		t.Errorf("got %v, want %v", err, snapshot.ErrNoSnapshot)
	}
}

// Whatever is changed in the store is found before anything else is done, and
// what changes after the check makes no difference.
func TestFetch(t *testing.T) {
	s := newStore(t)
	id := s.take(t, time.Now(), true)
	c, err := ByID(t.Context(), []snapshot.Destination{s.dest}, id)
	if err != nil || c.VerifiedAt.IsZero() {
		t.Fatal(c, err)
	}
	file, work := filepath.Join(s.path, c.Manifest.Snapshot.Name), t.TempDir()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	k, err := Fetch(t.Context(), c, []age.Identity{s.id}, work)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("it left %d files, %v", len(left), err)
	}
	for _, bad := range [][]byte{whole[:len(whole)-1], append(bytes.Clone(whole), 0), append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1), nil} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Fetch(t.Context(), c, []age.Identity{s.id}, work); !archiveFault(err) {
			t.Errorf("%d of %d bytes: %v", len(bad), len(whole), err)
		}
	}
	var got []byte
	err = k.Open(t.Context(), func(r io.Reader) (err error) { got, err = io.ReadAll(r); return err })
	if err != nil || !bytes.Equal(got, testArchive(t)) {
		t.Errorf("what was checked is now %d bytes, %v", len(got), err)
	}
	other := newStore(t)
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Fetch(t.Context(), c, []age.Identity{other.id}, work); !errors.Is(err, snapshot.ErrWrongIdentity) {
		t.Errorf("got %v, want %v", err, snapshot.ErrWrongIdentity)
	}
}
