package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// fanout streams one object to several destinations at once. A destination
// that fails or stalls is dropped and the others go on. Nothing appears
// anywhere before commit.
type fanout struct {
	legs  []*leg
	stall time.Duration
}

// leg is the stream to one destination.
type leg struct {
	dest   Destination
	cancel context.CancelCauseFunc
	pw     *io.PipeWriter
	pr     *io.PipeReader
	done   chan struct{} // closed when Put has returned
	putErr error         // Put's, once done is closed

	mu  sync.Mutex
	err error // why the leg was dropped
}

// newFanout starts a Put of name in each destination. stall is how long one
// may take no byte, or take to finish, before it is dropped.
func newFanout(ctx context.Context, dests []Destination, name string, stall time.Duration) *fanout {
	f := &fanout{stall: stall}
	for _, d := range dests {
		l := &leg{dest: d, done: make(chan struct{})}
		l.pr, l.pw = io.Pipe()
		lctx, cancel := context.WithCancelCause(ctx)
		l.cancel = cancel
		go func() {
			defer close(l.done)
			_, l.putErr = d.Put(lctx, name, l.pr)
			// A Put that ends early must not leave the writer waiting.
			if l.putErr != nil {
				l.pr.CloseWithError(l.putErr)
			}
		}()
		f.legs = append(f.legs, l)
	}
	return f
}

// drop ends a leg for good; the first reason stays.
func (l *leg) drop(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	// Wrapped, because a bare io.EOF here would be the end of a whole object to
	// the one who reads it.
	err = fmt.Errorf("upload given up: %w", err)
	l.pw.CloseWithError(err)
	l.pr.CloseWithError(err)
	l.cancel(err)
}

func (l *leg) dropped() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Write gives p to every destination that is still there. It fails when none
// is left.
func (f *fanout) Write(p []byte) (int, error) {
	left := 0
	for _, l := range f.legs {
		if l.dropped() != nil {
			continue
		}
		watch := time.AfterFunc(f.stall, func() {
			l.drop(fmt.Errorf("%s: %w: took nothing for %s", l.dest.Name(), ErrStalled, f.stall))
		})
		_, err := l.pw.Write(p)
		watch.Stop()
		if err != nil {
			l.drop(err)
			continue
		}
		left++
	}
	if left == 0 {
		return 0, fmt.Errorf("%w: %w", ErrNoDestination, f.errors())
	}
	return len(p), nil
}

// commit tells the destinations that the object is whole and returns those
// that hold it, with the errors of the others.
func (f *fanout) commit() ([]Destination, error) {
	for _, l := range f.legs {
		if l.dropped() == nil {
			l.pw.Close() // the commit point: from here on Put may succeed
		}
	}
	return f.wait()
}

// abort makes every Put fail with err and waits for them.
func (f *fanout) abort(err error) {
	for _, l := range f.legs {
		l.drop(err)
	}
	_, _ = f.wait() // they all fail with err, which the caller has
}

func (f *fanout) wait() ([]Destination, error) {
	var held []Destination
	for _, l := range f.legs {
		l.finish(f.stall)
		if l.dropped() == nil {
			held = append(held, l.dest)
		}
	}
	return held, f.errors()
}

// finish waits for Put to return, at most for stall, and once more as long
// after it was cancelled. A Put stuck in the kernel is left behind: the process
// is about to end anyway.
func (l *leg) finish(stall time.Duration) {
	defer l.cancel(nil)
	for range 2 {
		timer := time.NewTimer(stall)
		select {
		case <-l.done:
			timer.Stop()
			if l.putErr != nil {
				l.drop(l.putErr)
			}
			return
		case <-timer.C:
			l.drop(fmt.Errorf("%s: %w: did not finish within %s", l.dest.Name(), ErrStalled, stall))
		}
	}
}

func (f *fanout) errors() error {
	var errs []error
	for _, l := range f.legs {
		if err := l.dropped(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
