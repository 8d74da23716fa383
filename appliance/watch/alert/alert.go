// Package alert tells people that a job has failed: by webhook and by e-mail,
// with the last lines of its journal, from which secrets are masked.
//
// It is not a monitoring system: it knows of failures of units, once each. What
// does not happen at all, such as a machine that is gone, is seen from outside,
// by the metrics.
package alert

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"strongroom.example/appliance/base/pause"
)

// Event is one failure, or a test.
type Event struct {
	Unit   string    // "strongroom-snapshot.service"
	Host   string    // of the machine
	Result string    // systemd's word: "exit-code", "timeout", "oom-kill" …
	Status string    // exit status or signal; may be empty
	At     time.Time // when it failed, or was noticed
	Lines  []string  // the unit's last lines, masked by whoever fills them in
	// Unsaid counts the same failures since the last one that was told.
	Unsaid int
	// Mended says that the unit has succeeded since the last message about it: this is
	// another failure, whatever it looks like.
	Mended bool
}

// Name is what machines match on: strongroom.unit.failed.
const Name = "strongroom.unit.failed"

// Subject is one line for people.
func (e Event) Subject() string {
	s := fmt.Sprintf("strongroom on %s: %s failed", e.Host, strings.TrimSuffix(e.Unit, ".service"))
	if e.Result != "" {
		s += " (" + e.Result
		if e.Status != "" {
			s += " " + e.Status
		}
		s += ")"
	}
	return s
}

// Text is the whole message for people.
func (e Event) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nat %s\n", e.Subject(), e.At.UTC().Format(time.RFC3339))
	if e.Unsaid > 0 {
		fmt.Fprintf(&b, "and %d times since the last message about it\n", e.Unsaid)
	}
	if len(e.Lines) > 0 {
		b.WriteString("\nIts last lines:\n")
		for _, l := range e.Lines {
			b.WriteString("  " + l + "\n")
		}
	}
	fmt.Fprintf(&b, "\nLook: strongroom status, journalctl -u %s\n", e.Unit)
	return b.String()
}

// Channel is one way to tell. Its errors hold no secret.
type Channel interface {
	// Name is the channel's, for messages.
	Name() string
	// Send returns once the other side has taken the event.
	Send(ctx context.Context, e Event) error
}

// ErrRefused is a fault that trying again does not mend.
var ErrRefused = errors.New("refused")

// ErrPartly is a message that some have got, and others never will.
var ErrPartly = errors.New("not everybody was told")

// pauses between the tries of a channel: some three minutes in all.
var pauses = []time.Duration{2 * time.Second, 10 * time.Second, 45 * time.Second, 2 * time.Minute}

// Send tells through every channel, each tried again for about three minutes;
// told counts those that worked. wait pauses; nil: it really does.
func Send(ctx context.Context, e Event, channels []Channel, wait func(context.Context, time.Duration) error) (told int, err error) {
	if wait == nil {
		wait = pause.For
	}
	type result struct {
		name string
		err  error
	}
	results := make(chan result, len(channels))
	for _, c := range channels {
		go func() { results <- result{c.Name(), try(ctx, e, c, wait)} }()
	}
	var errs []error
	for range channels {
		r := <-results
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name, r.err))
		}
		if r.err == nil || errors.Is(r.err, ErrPartly) {
			told++
		}
	}
	return told, errors.Join(errs...)
}

func try(ctx context.Context, e Event, c Channel, wait func(context.Context, time.Duration) error) error {
	for n := 0; ; n++ {
		err := c.Send(ctx, e)
		if err == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrPartly) && !errors.Is(err, errLater) || n == len(pauses) {
			return err
		}
		if werr := wait(ctx, pauses[n]); werr != nil {
			return fmt.Errorf("%w (last fault: %w)", werr, err)
		}
	}
}
