package apikeys

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

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

type systemClock struct{}

// SystemClock is the real one.
func SystemClock() Clock { return systemClock{} }

func (systemClock) Wall() time.Time { return time.Now().UTC().Round(0) }

// Monotonic counts a suspension of the machine too (CLOCK_BOOTTIME), as the wall
// clock does.
func (systemClock) Monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("the kernel has no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// clockSaveEvery is how often the engine's time is stored. A clock that jumps
// back while nothing runs is noticed where it jumps further than this. Twice as
// long after the last time may the run before have lived, and so much may versions
// be dated ahead that are made soon after a restart.
const clockSaveEvery = lifecycle.ClockSlack

// engineClock is the time that the engine lives by; see lifecycle.Timeline.
type engineClock struct {
	clock Clock

	mu    sync.Mutex
	line  lifecycle.Timeline
	saved time.Time
	// earlier is until when the run before may have lived.
	earlier time.Time
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
	if c.saved = rec.Last; !rec.Last.IsZero() {
		c.earlier = rec.Last.Add(2 * clockSaveEvery)
	}
	return nil
}

// before is until when, by the engine's time, the run before may have lived: the
// time that it stored last is older. Zero: there was none, or nobody knows.
func (c *engineClock) before() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.earlier
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
	c.earlier = time.Time{} // it was by another clock
}

func (c *engineClock) state() (lifecycle.ClockState, time.Duration) {
	c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.State()
}
