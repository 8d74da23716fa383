package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/systembus"
)

// ErrClock means that this machine's clock is not to be believed.
var ErrClock = errors.New("this machine's clock is in doubt")

// ClockSkew is how far clocks that are right may be apart.
const ClockSkew = time.Minute

// clockDoubt says why this machine's clock is not to be believed; nil where nothing
// speaks against it. Where the kernel does not tell, as in a container, what this
// machine has stored last must not lie after now.
func clockDoubt(takeState string, now time.Time, kernel func() (synchronised, known bool)) error {
	if synchronised, known := kernel(); known {
		if !synchronised {
			return fmt.Errorf("%w: the kernel says that it is not synchronised", ErrClock)
		}
		return nil
	}
	if takeState == "" {
		return nil
	}
	s, err := LoadTakeState(takeState)
	if err != nil {
		return nil //nolint:nilerr // the taking job's to report
	}
	for place, last := range s.Last {
		if last.TakenAt.After(now.Add(ClockSkew)) {
			return fmt.Errorf("%w: it says %s, and %s in %s was stored before, at %s", ErrClock,
				now.UTC().Format(time.RFC3339), last.ID, place, last.TakenAt.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// kernelClock is what the kernel says of its clock. In a container it is the host's, and
// where no systemd has booted nobody is there to synchronise it.
func kernelClock() (synchronised, known bool) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return false, false
	}
	if _, err := os.Stat("/run/systemd/container"); err == nil {
		return false, false
	}
	const unsynchronised = 0x40 // STA_UNSYNC
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	const timeError = 5 // TIME_ERROR
	if err == nil {
		return state != timeError && t.Status&unsynchronised == 0, true
	}
	// The job's sandbox hides it.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	synchronised, err = systembus.ClockSynchronised(ctx)
	return synchronised, err == nil
}

// fillClock is for options without a clock. Who gives one, as tests do, answers for it.
func fillClock(now *func() time.Time, doubt *func() error, takeState string) {
	if *doubt == nil {
		*doubt = func() error { return nil }
		if *now == nil {
			*doubt = func() error { return ClockDoubt(takeState, time.Now()) }
		}
	}
	if *now == nil {
		*now = time.Now
	}
}

// ClockDoubt is why this machine's clock is not to be believed at now; nil where nothing
// speaks against it. takeState is the folder of the taking job's state; may be empty.
func ClockDoubt(takeState string, now time.Time) error {
	return clockDoubt(takeState, now, kernelClock)
}
