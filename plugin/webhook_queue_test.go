package apikeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// storedEvents are the keys under which events wait.
func (w *world) storedEvents() []string {
	w.t.Helper()
	var out []string
	hooks, err := w.storage.List(context.Background(), eventsPrefix)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, hook := range hooks {
		ids, err := w.storage.List(context.Background(), eventsPrefix+hook)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, ids...)
	}
	return out
}

// die ends the process as far as webhooks go: nothing more is delivered.
func (w *world) die() { w.b.hooks.close() }

// held makes deliveries of the present process wait for ever after a try.
func (w *world) held() {
	w.b.hooks.pause = func(ctx context.Context, _ time.Duration) { <-ctx.Done() }
}

func TestWaitingEventsOutliveARestart(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.localKey("k", nil)
	w.hook(r, nil)
	w.held()
	r.status.Store(503)
	const events = 5
	for range events {
		w.write("rotate/k", nil)
		w.clock.advance(time.Second)
	}
	first := r.next(t)
	if n := len(w.storedEvents()); n != events {
		t.Fatalf("%d events are stored, want %d", n, events)
	}
	w.die()
	r.status.Store(200)
	w.start()
	w.b.tick(t.Context())
	var versions []string
	for range events {
		got := r.next(t)
		if len(versions) == 0 && got.event.ID != first.event.ID {
			t.Errorf("the first event came back as another one: %s, before %s", got.event.ID, first.event.ID)
		}
		versions = append(versions, got.event.Data["version"])
	}
	if want := []string{"2", "3", "4", "5", "6"}; !slices.Equal(versions, want) {
		t.Errorf("versions %v came, want %v", versions, want)
	}
	w.eventually(func() bool { return len(w.storedEvents()) == 0 })
}

func TestFencedEngineDeliversNothingOld(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.localKey("k", nil)
	w.hook(r, nil)
	w.held()
	r.status.Store(503)
	w.write("rotate/k", nil)
	r.next(t)
	w.die()
	w.start()
	w.b.fence.mu.Lock()
	w.b.fence.reason = "restored"
	w.b.fence.mu.Unlock()
	w.tick()
	if !w.b.hooks.behind.Load() || w.deliveries()["waiting"] != 0 {
		t.Errorf("the queue was read behind the fence: %v", w.deliveries())
	}
}

func TestDeletedWebhookLeavesNoEvents(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("crash %v", crash), func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			r := newReceiver(t)
			w.localKey("k", nil)
			w.hook(r, nil)
			w.held()
			r.status.Store(503)
			w.write("rotate/k", nil)
			r.next(t)
			if crash {
				w.storage.setFault(func(op, key string, after bool) error {
					if op == "delete" && key != webhookPrefix+"h" {
						return errCrash
					}
					return nil
				})
			}
			if _, err := w.do(opDelete, "webhooks/h", nil); crash != errors.Is(err, errCrash) {
				t.Fatalf("delete: %v", err)
			}
			w.die()
			w.storage.setFault(nil)
			if crash {
				w.start()
				w.tick()
			}
			if left := w.storedEvents(); len(left) != 0 {
				t.Errorf("%v are left", left)
			}
		})
	}
}

func TestChangedWebhookKeepsItsQueue(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.localKey("k", nil)
	w.hook(r, nil)
	w.held()
	r.status.Store(503)
	w.write("rotate/k", nil)
	first := r.next(t)
	r.status.Store(200)
	w.write("webhooks/h", map[string]any{"secret": hookSecret + hookSecret})
	if again := r.next(t); again.event.ID != first.event.ID {
		t.Errorf("%+v", again.event)
	}
	w.tick()
	w.eventually(func() bool { return len(w.storedEvents()) == 0 })
}

func TestEventThatCannotBeStoredIsDelivered(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.localKey("k", nil)
	w.hook(r, nil)
	w.storage.setFault(func(op, key string, after bool) error {
		if strings.HasPrefix(key, eventsPrefix) {
			return errors.New("storage is full")
		}
		return nil
	})
	w.write("rotate/k", nil)
	if got := r.next(t).event.Type; got != "rotate" {
		t.Errorf("%s", got)
	}
}

func TestQueueIsBoundedInStorageToo(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.localKey("k", nil)
	w.hook(r, nil)
	w.held()
	r.status.Store(503)
	for range hookQueue + 7 {
		w.b.emit(t.Context(), "rotate", "k")
	}
	if n := len(w.storedEvents()); n != hookQueue {
		t.Errorf("%d events are stored, want %d", n, hookQueue)
	}
	if got := w.deliveries(); got["dropped"] != int64(7) || got["waiting"] != hookQueue {
		t.Errorf("%v", got)
	}
	w.die()
}

// The process stops before and after every write. Whatever became current must
// be told of, at least once, and always under the same id.
func TestEventsOutliveACrashAtEveryPoint(t *testing.T) {
	const name = "app/k"
	for n := 1; ; n += stride() {
		w := newWorld(t, remoteCaps())
		r := newReceiver(t)
		w.remoteKey(name, nil)
		w.hook(r, map[string]any{"events": "rotate"})
		cr := &crasher{at: n}
		w.storage.setFault(cr.storage)
		w.remote.setFault(cr.service)
		ids := map[string]string{}
		take := func() {
			for len(r.got) > 0 {
				e := (<-r.got).event
				version := e.Data["version"]
				if before, ok := ids[version]; ok && before != e.ID {
					t.Errorf("point %d (%s): version %s came under two ids", n, cr.where, version)
				}
				ids[version] = e.ID
			}
		}
		for range 3 {
			if _, err := w.do(logical.UpdateOperation, "rotate/"+name, nil); err != nil {
				break
			}
			w.settle(cr)
			w.clock.advance(time.Minute)
		}
		hit := cr.hit()
		w.die()
		w.storage.setFault(nil)
		w.remote.setFault(nil)
		w.start()
		for range 6 {
			w.pass(10 * time.Minute)
		}
		w.eventually(func() bool { return len(w.storedEvents()) == 0 })
		take()
		rec, err := (store{w.storage}).key(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rec.Life.Versions {
			v := &rec.Life.Versions[i]
			if v.Number == 1 || v.Promoted.IsZero() { // the first one was before the webhook
				continue
			}
			if ids[fmt.Sprint(v.Number)] == "" {
				t.Errorf("point %d (%s): nobody was told of version %d", n, cr.where, v.Number)
			}
		}
		w.die()
		r.Close()
		if !hit {
			if n < 30 {
				t.Errorf("only %d points were reached", n)
			}
			return
		}
	}
}

// After a crash the queue is read from storage while the key's next step tells of
// the same event again, at another time: both get into the queue and into storage,
// and neither may stay there.
func TestAnEventThatIsToldTwiceLeavesNothing(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.hook(r, nil)
	w.die()
	d, h := w.b.hooks, w.b.hooks.hooks["h"]
	before := hookEvent{ID: "0a", Type: "rotate", Time: w.clock.Wall()}
	again := before
	again.Time = before.Time.Add(time.Minute)
	st := store{w.storage}
	if err := errors.Join(st.putEvent(t.Context(), "h", &before), st.putEvent(t.Context(), "h", &again)); err != nil {
		t.Fatal(err)
	}
	if !h.reserve(again) {
		t.Fatal("no place in the queue")
	}
	if twice := h.insert([]hookEvent{before}); len(twice) != 0 {
		t.Fatalf("%v is known already", twice)
	}
	h.push(again)
	d.forget(t.Context(), h, before)
	if left := w.storedEvents(); len(left) != 0 || !h.idle() {
		t.Errorf("%v are left in storage, %d in the queue", left, len(h.waiting()))
	}
}

// settle waits until the receiver has what was sent, or the process is dead.
func (w *world) settle(cr *crasher) {
	w.eventually(func() bool {
		return cr.isDead() || w.b.hooks.hooks["h"].idle()
	})
}

func (h *hook) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.queue)+h.coming == 0
}

func FuzzStoredEvent(f *testing.F) {
	f.Add([]byte(`{"format":1,"data":{"id":"0a","type":"rotate","time":"2026-03-01T12:00:00Z","mount":"m","key":"k","data":{"version":"2"}}}`))
	f.Add([]byte(`{"format":1,"data":{"time":"0001-01-01T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var e hookEvent
		if decodeEntry("event/h/x", raw, &e) != nil {
			return
		}
		h := &hook{wake: make(chan struct{}, 1)}
		if again := h.insert([]hookEvent{e}); len(again) != 0 || len(h.queue) != 1 {
			t.Errorf("%q: the queue holds %d", raw, len(h.queue))
		}
		if key := eventKey("h", &e); !strings.HasPrefix(key, eventsPrefix+"h/") {
			t.Errorf("%q lies at %q", raw, key)
		}
	})
}

// A receiver for whose events there was no room is told how many it has missed.
func TestMissedEventsAreTold(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.localKey("k", nil)
	w.hook(r, map[string]any{"events": "rotate"})
	w.b.hooks.mu.Lock()
	h := w.b.hooks.hooks["h"]
	w.b.hooks.mu.Unlock()
	h.mu.Lock()
	h.missed = 42
	h.mu.Unlock()
	w.write("rotate/k", nil)
	if got := r.next(t).event.Type; got != "rotate" {
		t.Errorf("%s", got)
	}
	if got := r.next(t).event; got.Type != "missed" || got.Data["count"] != "42" || got.ID == "" {
		t.Errorf("%+v", got)
	}
	w.eventually(func() bool { return len(w.storedEvents()) == 0 })
}
