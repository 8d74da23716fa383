package lifecycle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Bounds of a rotation policy.
const (
	MinPeriod = 30 * time.Second
	MaxPeriod = 10 * 365 * 24 * time.Hour
	MinGrace  = 5 * time.Second
	MaxGrace  = 365 * 24 * time.Hour
	MinWindow = time.Minute
	MaxWindow = 31 * 24 * time.Hour
	MaxJitter = 31 * 24 * time.Hour
	// maxCronBytes bounds an expression; the longest sensible one is far shorter.
	maxCronBytes = 256
)

// Policy says when a key is rotated: after a period, or at the times of a cron
// expression. Build it with NewPolicy.
type Policy struct {
	period   time.Duration
	schedule cron.Schedule
	location *time.Location
	window   time.Duration
	jitter   time.Duration
	disabled bool
}

// PolicySpec is a policy as an operator writes it.
type PolicySpec struct {
	Period   time.Duration // used when Cron is empty
	Cron     string        // minute, hour, day of month, month, day of week
	TimeZone string        // IANA name for Cron; empty: UTC
	Window   time.Duration // with Cron: how long after its time a rotation may start; 0: any time
	Jitter   time.Duration // spread; at most a tenth of the period, or the window's half
	Disabled bool          // never by itself
}

// NewPolicy checks spec and reports every fault at once.
func NewPolicy(spec PolicySpec) (*Policy, error) {
	p := &Policy{period: spec.Period, window: spec.Window, jitter: spec.Jitter, disabled: spec.Disabled}
	var errs []error
	if spec.Jitter < 0 || spec.Jitter > MaxJitter {
		errs = append(errs, fmt.Errorf("jitter %s: must be from 0 to %s", spec.Jitter, MaxJitter))
	}
	if spec.Cron == "" {
		if spec.Period < MinPeriod || spec.Period > MaxPeriod {
			errs = append(errs, fmt.Errorf("rotation_period %s: must be from %s to %s", spec.Period, MinPeriod, MaxPeriod))
		}
		if spec.TimeZone != "" {
			errs = append(errs, fmt.Errorf("time_zone %q: only has a meaning with rotation_schedule", spec.TimeZone))
		}
		if spec.Window != 0 {
			errs = append(errs, fmt.Errorf("rotation_window %s: only has a meaning with rotation_schedule", spec.Window))
		}
		return p, errors.Join(errs...)
	}
	if spec.Window != 0 && (spec.Window < MinWindow || spec.Window > MaxWindow) {
		errs = append(errs, fmt.Errorf("rotation_window %s: must be from %s to %s", spec.Window, MinWindow, MaxWindow))
	}
	var err error
	if p.schedule, err = parseCron(spec.Cron); err != nil {
		errs = append(errs, err)
	}
	if p.location, err = loadZone(spec.TimeZone); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if p.nextScheduled(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("rotation_schedule %q: never comes true", spec.Cron)
	}
	return p, nil
}

func parseCron(expr string) (cron.Schedule, error) {
	if len(expr) > maxCronBytes {
		return nil, fmt.Errorf("rotation_schedule: %d bytes are too many, at most %d", len(expr), maxCronBytes)
	}
	if strings.HasPrefix(expr, "TZ=") || strings.HasPrefix(expr, "CRON_TZ=") {
		return nil, fmt.Errorf("rotation_schedule %q: write the zone in time_zone", expr)
	}
	if strings.HasPrefix(expr, "@every") {
		return nil, fmt.Errorf("rotation_schedule %q: write an interval as rotation_period", expr)
	}
	schedule, err := cron.ParseStandard(expr)
	if err != nil {
		return nil, fmt.Errorf("rotation_schedule %q: %w", expr, err)
	}
	return schedule, nil
}

// loadZone knows IANA names only. "Local" is refused, because it would mean
// something else on every machine that restores the storage.
func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if name == "Local" {
		return nil, fmt.Errorf("time_zone %q: write an IANA name such as Europe/Berlin", name)
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time_zone %q: not an IANA time zone: %w", name, err)
	}
	return loc, nil
}

// Scheduled tells whether a cron expression decides.
func (p *Policy) Scheduled() bool { return p.schedule != nil }

// Windowed tells whether a rotation may only start for a while after its time.
func (p *Policy) Windowed() bool { return p.schedule != nil && p.window > 0 }

// Disabled tells whether nothing happens by itself.
func (p *Policy) Disabled() bool { return p.disabled }

// Next is the time of the rotation that follows one at last, for the key that
// seed stands for: the same arguments always give the same time. The zero time
// means never. Jitter makes a periodic rotation earlier, never later, so that
// no key outlives its period; a scheduled one later, within its window.
func (p *Policy) Next(last time.Time, seed uint64) time.Time {
	if p.disabled {
		return time.Time{}
	}
	if p.schedule == nil {
		return last.Add(p.period - spread(min(p.jitter, p.period/10), seed))
	}
	if at := p.nextScheduled(last); !at.IsZero() {
		return at.Add(p.offset(seed))
	}
	return time.Time{}
}

// offset is by how much a scheduled rotation comes later than its time.
func (p *Policy) offset(seed uint64) time.Duration {
	limit := p.jitter
	if p.window > 0 {
		limit = min(limit, p.window/2)
	}
	return spread(limit, seed)
}

// nextScheduled walks the expression in local wall time, as people mean it,
// and then finds the instant: a time that a clock change skips is taken right
// after the gap, one that comes twice is taken the first time.
func (p *Policy) nextScheduled(after time.Time) time.Time {
	wall := wallClock(after.In(p.location))
	for range 1000 { // a repeated hour holds at most 60 candidates that lie before after
		wall = p.schedule.Next(wall)
		if wall.IsZero() {
			return wall
		}
		if at := instant(wall, p.location); at.After(after) {
			return at
		}
	}
	return time.Time{}
}

// wallClock is what the clock on the wall shows, as if it were UTC.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// instant is the first moment at which the clock on the wall in loc shows wall
// or, where it never does, the end of the gap.
func instant(wall time.Time, loc *time.Location) time.Time {
	// The offsets in force a day before and a day after bracket any change.
	_, before := wall.Add(-24 * time.Hour).In(loc).Zone()
	_, after := wall.Add(24 * time.Hour).In(loc).Zone()
	early := wall.Add(-time.Duration(max(before, after)) * time.Second)
	late := wall.Add(-time.Duration(min(before, after)) * time.Second)
	for _, at := range []time.Time{early, late} {
		if wallClock(at.In(loc)).Equal(wall) {
			return at.UTC()
		}
	}
	// In the gap: the change lies between early and late.
	lo, hi := early, late
	_, offset := lo.In(loc).Zone()
	for hi.Sub(lo) > time.Second {
		mid := lo.Add(hi.Sub(lo) / 2)
		if _, o := mid.In(loc).Zone(); o == offset {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi.Truncate(time.Second).UTC()
}

// NextOpen is Next, or, where the window of that time has closed before now, the
// first time whose window has not.
func (p *Policy) NextOpen(last, now time.Time, seed uint64) (at time.Time, missed bool) {
	at = p.Next(last, seed)
	if at.IsZero() || !p.Windowed() || !now.After(at.Add(p.window)) {
		return at, false
	}
	return p.Next(now.Add(-p.window-p.offset(seed)-1), seed), true
}

// Seed is the number that spreads the rotations of different keys, and of the
// successive versions of one key.
func Seed(uid string, version int) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(uid)) // a hash never fails
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(version)))
	return mix(h.Sum64())
}

// mix spreads the bits (the finalizer of SplitMix64), because FNV's upper bits
// of similar inputs are similar.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func spread(limit time.Duration, seed uint64) time.Duration {
	if limit <= 0 {
		return 0
	}
	return time.Duration(seed % uint64(limit)).Truncate(time.Second)
}

// Backoff is the pause after the given number of failures in a row, counted
// from 1: it doubles from base up to limit, and seed takes up to half of it
// away, so that keys that failed together don't come back together.
func Backoff(failures int, base, limit time.Duration, seed uint64) time.Duration {
	d := base
	for i := 1; i < failures && d < limit; i++ {
		d *= 2
	}
	d = min(d, limit)
	return d - spread(d/2, mix(seed+uint64(failures)))
}
