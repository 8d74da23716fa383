package apikeys

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// What a webhook still has to be told lies in storage, one entry for each
// event and webhook, from the moment that the change is stored until the
// receiver has taken the event or all tries are used up. So a restart delivers
// what was waiting, and at worst something twice, under the same id. Only the
// active node of the primary writes and reads it.

// send stores an event for every webhook that wants it and queues it. It waits
// for storage, never for a receiver. Where storage fails the event is
// delivered all the same, unless the process ends before.
func (d *dispatcher) send(ctx context.Context, e hookEvent) {
	for name, h := range d.wanting(e.Type) {
		if !h.reserve(e) {
			continue
		}
		if err := d.storage().putEvent(ctx, name, &e); err != nil {
			d.warn("an event could not be stored; it is lost if the engine ends before it is delivered", "webhook", name, "type", e.Type, "error", err)
		}
		h.push(e)
	}
}

func (d *dispatcher) wanting(kind string) map[string]*hook {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]*hook{}
	for name, h := range d.hooks {
		if h.rec.wants(kind) {
			out[name] = h
		}
	}
	return out
}

func (d *dispatcher) storage() store {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.st
}

// reserve takes a place in the queue, unless it is full or has the event.
func (h *hook) reserve(e hookEvent) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hasLocked(e.ID) {
		return false
	}
	if len(h.queue)+h.coming >= hookQueue {
		h.dropped++
		h.missed++
		return false
	}
	h.coming++
	return true
}

func (h *hook) hasLocked(id string) bool {
	return slices.ContainsFunc(h.queue, func(e hookEvent) bool { return e.ID == id })
}

// push puts an event into the place that was reserved for it.
func (h *hook) push(e hookEvent) {
	h.mu.Lock()
	h.coming--
	h.queue = append(h.queue, e)
	h.mu.Unlock()
	h.wakeUp()
}

func (h *hook) wakeUp() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// first is the event to deliver next.
func (h *hook) first() (hookEvent, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		return hookEvent{}, false
	}
	return h.queue[0], true
}

func (h *hook) waiting() []hookEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.queue)
}

// forget drops an event that has been dealt with, under every time at which it was
// told of. Where storage keeps it, the receiver gets it again after the next start.
func (d *dispatcher) forget(ctx context.Context, h *hook, e hookEvent) {
	told := slices.DeleteFunc(h.waiting(), func(have hookEvent) bool { return have.ID != e.ID })
	for i := range told {
		if err := d.storage().removeEvent(context.WithoutCancel(ctx), h.rec.Name, &told[i]); err != nil {
			d.warn("an event that was delivered could not be removed; it will be delivered again after the next start", "webhook", h.rec.Name, "error", err)
		}
	}
	h.mu.Lock()
	h.queue = slices.DeleteFunc(h.queue, func(have hookEvent) bool {
		return slices.ContainsFunc(told, func(t hookEvent) bool { return t.ID == have.ID && t.Time.Equal(have.Time) })
	})
	missed := 0
	if len(h.queue)+h.coming < hookQueue/2 {
		missed, h.missed = h.missed, 0
	}
	h.mu.Unlock()
	if missed > 0 {
		d.tellMissed(context.WithoutCancel(ctx), h, e, missed)
	}
}

// tellMissed says, once there is room again, how many events there was none for, so
// that the receiver reads status in place of them.
func (d *dispatcher) tellMissed(ctx context.Context, h *hook, last hookEvent, missed int) {
	sum := sha256.Sum256([]byte("missed\x00" + last.ID))
	e := hookEvent{ID: hex.EncodeToString(sum[:])[:eventIDLength], Type: "missed", Time: d.clock.Wall(), Mount: last.Mount,
		Data: map[string]string{"count": itoa(missed)}}
	d.warn("there was no room for events of a webhook", "webhook", h.rec.Name, "count", missed)
	if !h.reserve(e) {
		return
	}
	if err := d.storage().putEvent(ctx, h.rec.Name, &e); err != nil {
		d.warn("an event could not be stored; it is lost if the engine ends before it is delivered", "webhook", h.rec.Name, "type", e.Type, "error", err)
	}
	h.push(e)
}

// catchUp queues the events that an earlier run has left in storage, before
// those of this one, and removes those of webhooks that are gone.
func (d *dispatcher) catchUp(ctx context.Context) error {
	if !d.behind.CompareAndSwap(true, false) {
		return nil
	}
	if err := d.readQueues(ctx); err != nil {
		d.behind.Store(true)
		return err
	}
	return nil
}

func (d *dispatcher) readQueues(ctx context.Context) error {
	st := d.storage()
	names, err := st.eventHooks(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		events, err := st.events(ctx, name)
		if err != nil {
			return err
		}
		d.mu.Lock()
		h, broken := d.hooks[name], d.broken[name] != ""
		d.mu.Unlock()
		if broken {
			continue
		}
		if h == nil {
			if err := st.removeEvents(ctx, name); err != nil {
				return err
			}
			continue
		}
		for _, e := range h.insert(events) {
			if err := st.removeEvent(ctx, name, &e); err != nil {
				return err
			}
		}
	}
	return nil
}

// insert adds stored events that the queue does not have, in the order of
// time. It gives those that the queue has under another time: the same event,
// told of again after a crash.
func (h *hook) insert(events []hookEvent) (twice []hookEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		if i := slices.IndexFunc(h.queue, func(have hookEvent) bool { return have.ID == e.ID }); i >= 0 {
			if !h.queue[i].Time.Equal(e.Time) {
				twice = append(twice, e)
			}
			continue
		}
		h.queue = append(h.queue, e)
	}
	slices.SortStableFunc(h.queue, func(a, b hookEvent) int { return a.Time.Compare(b.Time) })
	h.wakeUp()
	return twice
}
