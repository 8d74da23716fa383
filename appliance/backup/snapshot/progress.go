package snapshot

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// mover is a Destination that knows how many bytes it has taken and given so far.
// Where an object is sent in parts, or read back, nobody else can tell.
type mover interface {
	Moved() int64
}

// watched does something with a place for as long as bytes move between the two,
// however slowly. Once none has for the time of stall, the context of what is done
// ends, with ErrStalled. What does not end then, since it is stuck in the kernel, is
// left behind after as long again: the process is about to end anyway.
func watched(ctx context.Context, d Destination, stall time.Duration, do func(context.Context, func(io.Reader) io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var read atomic.Int64
	moved := func() int64 {
		n := read.Load()
		if m, ok := d.(mover); ok {
			n += m.Moved()
		}
		return n
	}
	done := make(chan error, 1)
	go func() { done <- do(ctx, func(r io.Reader) io.Reader { return &counted{r, &read} }) }()

	last, quiet := moved(), 0
	tick := time.NewTicker(max(stall/looks, 1))
	defer tick.Stop()
	// Both ends of a context leave it the same time to tidy up.
	for left := 2 * looks; ; {
		select {
		case err := <-done:
			if stalled := context.Cause(ctx); err != nil && stalled != nil {
				return fmt.Errorf("%w: %w", stalled, err)
			}
			return err
		case <-tick.C:
		}
		if ctx.Err() != nil {
			if left--; left == 0 {
				return fmt.Errorf("%s: it does not end: %w", d.Name(), context.Cause(ctx))
			}
			continue
		}
		if now := moved(); now != last {
			last, quiet = now, 0
		} else if quiet++; quiet > looks {
			cancel(fmt.Errorf("%s: %w: nothing moved for %s", d.Name(), ErrStalled, stall))
		}
	}
}

// looks is how often one looks within the time of a stall.
const looks = 20

// counted counts what is read.
type counted struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
