package apikeys

import (
	"context"
	"errors"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/generated"
	"strongroom.example/plugin/provider/httpprov"
)

// testClock is moved by hand. Waits of the engine use real timers, so tests
// that wait end the wait by an event, not by time.
type testClock struct {
	mu   sync.Mutex
	wall time.Time
	mono time.Duration
}

func newTestClock() *testClock {
	return &testClock{wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func (c *testClock) Wall() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.wall }

func (c *testClock) Monotonic() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.mono }

// advance lets time pass.
func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.mono = c.wall.Add(d), c.mono+d
}

// jump moves the wall clock alone.
func (c *testClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall = c.wall.Add(d)
}

// testRand is reproducible and safe for concurrent use.
type testRand struct {
	mu  sync.Mutex
	src *mathrand.ChaCha8
}

func newTestRand() *testRand { return &testRand{src: mathrand.NewChaCha8([32]byte{7})} }

func (r *testRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Read(p)
}

var _ provider.Provider = (*serviceClient)(nil)

// faultyStorage fails the nth operation, before or after its effect.
type faultyStorage struct {
	logical.Storage
	mu    sync.Mutex
	reads int
	puts  []string
	fault func(op, key string, after bool) error
}

func (f *faultyStorage) hook(op, key string, after bool) error {
	f.mu.Lock()
	fault := f.fault
	if !after {
		if op == "get" {
			f.reads++
		} else {
			f.puts = append(f.puts, op+" "+key)
		}
	}
	f.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(op, key, after)
}

func (f *faultyStorage) setFault(fault func(op, key string, after bool) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *faultyStorage) readCount() int { f.mu.Lock(); defer f.mu.Unlock(); return f.reads }

func (f *faultyStorage) writes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.puts)
}

func (f *faultyStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := f.hook("get", key, false); err != nil {
		return nil, err
	}
	return f.Storage.Get(ctx, key)
}

func (f *faultyStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	if err := f.hook("put", e.Key, false); err != nil {
		return err
	}
	if err := f.Storage.Put(ctx, e); err != nil {
		return err
	}
	return f.hook("put", e.Key, true)
}

func (f *faultyStorage) Delete(ctx context.Context, key string) error {
	if err := f.hook("delete", key, false); err != nil {
		return err
	}
	if err := f.Storage.Delete(ctx, key); err != nil {
		return err
	}
	return f.hook("delete", key, true)
}

// world is an engine and what it stands in.
type world struct {
	t       testing.TB
	clock   *testClock
	storage *faultyStorage
	remote  *service
	epoch   string
	changed string
	rand    io.Reader
	events  *eventLog
	sys     *testSystem
	b       *backend
	// others are further types of providers.
	others map[string]provider.Factory
}

// testSystem lets tests change what kind of node this is.
type testSystem struct {
	*logical.StaticSystemView
}

type eventLog struct {
	mu    sync.Mutex
	types []string
}

func (e *eventLog) SendEvent(_ context.Context, kind logical.EventType, _ *logical.EventData) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.types = append(e.types, string(kind))
	return nil
}

func (e *eventLog) has(kind string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.types, kind)
}

func newWorld(t testing.TB, caps provider.Capabilities) *world {
	t.Helper()
	clock := newTestClock()
	w := &world{
		t: t, clock: clock, storage: &faultyStorage{Storage: &logical.InmemStorage{}}, remote: newService(clock, caps),
		rand: newTestRand(), events: &eventLog{}, sys: &testSystem{&logical.StaticSystemView{}},
	}
	w.start()
	return w
}

// start builds the engine as a new process would. The old one, if there is
// one, just stops existing.
func (w *world) start() {
	w.t.Helper()
	if err := w.tryStart(); err != nil {
		w.t.Fatalf("start: %v", err)
	}
}

func (w *world) tryStart() error {
	types := map[string]provider.Factory{"generated": generated.New, "remote": w.remote.factory, "http": httpprov.New}
	maps.Copy(types, w.others)
	factory := Factory(Options{
		Providers: types,
		Version:   "v1.2.3", Clock: w.clock, Rand: w.rand, EpochFile: w.epoch, ChangedFile: w.changed,
	})
	lb, err := factory(context.Background(), &logical.BackendConfig{
		StorageView: w.storage, System: w.sys, Logger: hclog.NewNullLogger(), EventsSender: w.events,
	})
	if err != nil {
		return err
	}
	w.b = lb.(*backend)
	return lb.Initialize(context.Background(), &logical.InitializationRequest{Storage: w.storage})
}

// do sends a request and gives the answer; an error response is an error.
func (w *world) do(op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	return w.doWith(op, path, data, nil)
}

func (w *world) doWith(op logical.Operation, path string, data map[string]any, headers map[string][]string) (*logical.Response, error) {
	if data == nil {
		data = map[string]any{}
	}
	resp, err := w.b.HandleRequest(context.Background(), &logical.Request{
		Operation: op, Path: path, Data: data, Storage: w.storage, Headers: headers,
	})
	if err != nil {
		return resp, err
	}
	if resp != nil && resp.IsError() {
		return resp, &badRequest{resp.Error().Error()}
	}
	return resp, nil
}

// badRequest is a 400.
type badRequest struct{ msg string }

func (b *badRequest) Error() string { return b.msg }

func (w *world) write(path string, data map[string]any) *logical.Response {
	w.t.Helper()
	resp, err := w.do(logical.UpdateOperation, path, data)
	if err != nil {
		w.t.Fatalf("write %s: %v", path, err)
	}
	return resp
}

func (w *world) read(path string, data map[string]any) map[string]any {
	w.t.Helper()
	resp, err := w.do(logical.ReadOperation, path, data)
	if err != nil {
		w.t.Fatalf("read %s: %v", path, err)
	}
	if resp == nil {
		w.t.Fatalf("read %s: not found", path)
	}
	return resp.Data
}

// refused wants a 400 whose text holds every part.
func (w *world) refused(op logical.Operation, path string, data map[string]any, parts ...string) {
	w.t.Helper()
	_, err := w.do(op, path, data)
	var bad *badRequest
	if !errors.As(err, &bad) {
		w.t.Fatalf("%s %s: want a 400, got %v", op, path, err)
	}
	for _, p := range parts {
		if !strings.Contains(bad.msg, p) {
			w.t.Errorf("%s %s: the message lacks %q: %s", op, path, p, bad.msg)
		}
	}
}

// tick lets the scheduler work until nothing is due any more.
func (w *world) tick() {
	for range 1000 {
		w.b.tick(context.Background())
		w.b.running.Wait()
		rotate, review, check := w.b.index.dueCount(w.b.clock.now().Unix())
		if rotate+review+check == 0 {
			return
		}
		if !w.progress() {
			return
		}
	}
	w.t.Fatal("the scheduler does not come to rest")
}

func (w *world) progress() bool {
	return len(w.b.wake) > 0 && func() bool { <-w.b.wake; return true }()
}

// pass moves the clock and ticks.
func (w *world) pass(d time.Duration) {
	w.clock.advance(d)
	w.tick()
}

// remoteKey defines a key at the fake service.
func (w *world) remoteKey(name string, extra map[string]any) {
	w.t.Helper()
	if w.b.providers.record("svc") == nil {
		w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": 0})
	}
	data := map[string]any{"provider": "svc"}
	for k, v := range extra {
		data[k] = v
	}
	w.write("keys/"+name, data)
}

// localKey defines a key that Vault makes.
func (w *world) localKey(name string, extra map[string]any) {
	w.t.Helper()
	if w.b.providers.record("gen") == nil {
		w.write("providers/gen", map[string]any{"type": "generated"})
	}
	data := map[string]any{"provider": "gen"}
	for k, v := range extra {
		data[k] = v
	}
	w.write("keys/"+name, data)
}
