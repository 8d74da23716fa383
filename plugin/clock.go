package apikeys

import (
	"context"
	"sync"
	"time"

	"strongroom.example/plugin/lifecycle"
)

// Clock is the machine's two clocks. Monotonic counts from any fixed point and
// never jumps.
type Clock interface {
	// Wall is the time of day; it may jump.
	Wall() time.Time
	// Monotonic is the time since some fixed moment; it never goes back.
	Monotonic() time.Duration
}

type systemClock struct{ start time.Time }

// SystemClock is the real one.
func SystemClock() Clock { return systemClock{start: time.Now()} }

func (c systemClock) Wall() time.Time          { return time.Now().UTC().Round(0) }
func (c systemClock) Monotonic() time.Duration { return time.Since(c.start) }

// clockSaveEvery is how often the engine's time is stored. A clock that jumps
// back while nothing runs is noticed where it jumps further than this.
const clockSaveEvery = 10 * time.Minute

// engineClock is the time that the engine lives by; see lifecycle.Timeline.
type engineClock struct {
	clock Clock

	mu    sync.Mutex
	line  lifecycle.Timeline
	saved time.Time
}

func newEngineClock(clock Clock) *engineClock {
	return &engineClock{clock: clock, line: lifecycle.StartTimeline(time.Time{}, clock.Wall(), clock.Monotonic())}
}

// now is the engine's time.
func (c *engineClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.Observe(c.clock.Wall(), c.clock.Monotonic())
}

// resume goes on from the time that an earlier run has stored.
func (c *engineClock) resume(ctx context.Context, st store) error {
	var rec clockRecord
	if _, err := st.get(ctx, clockKey, &rec); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = lifecycle.StartTimeline(rec.Last, c.clock.Wall(), c.clock.Monotonic())
	c.saved = rec.Last
	return nil
}

// save stores the engine's time, where the last time is long enough ago.
func (c *engineClock) save(ctx context.Context, st store, force bool) error {
	now := c.now()
	c.mu.Lock()
	due := force || now.Sub(c.saved) >= clockSaveEvery || now.Before(c.saved)
	c.mu.Unlock()
	if !due {
		return nil
	}
	if err := st.put(ctx, clockKey, clockRecord{Last: now}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saved = now
	return nil
}

// accept believes the wall clock from now on.
func (c *engineClock) accept() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.Accept(c.clock.Wall(), c.clock.Monotonic())
}

func (c *engineClock) state() (lifecycle.ClockState, time.Duration) {
	c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.State()
}
