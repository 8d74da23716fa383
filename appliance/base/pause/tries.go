package pause

import (
	"context"
	"errors"
	"time"
)

// Tries are those of a job whose fault may pass.
type Tries struct {
	More  int           // further ones, after the first
	After time.Duration // the wait before each of them
	// MayPass says whether another try may do better than this error.
	MayPass func(error) bool
	// Failed is told of each failure that another try follows; may be nil.
	Failed func(error)
	// Wait is For when nil.
	Wait func(context.Context, time.Duration) error
}

// Do runs a job until it succeeds, fails for a reason that does not pass, or has
// had its tries. Its last error is given, with the context's cause where that has
// ended the wait.
func (t Tries) Do(ctx context.Context, run func(context.Context) error) error {
	wait := t.Wait
	if wait == nil {
		wait = For
	}
	for n := 0; ; n++ {
		err := run(ctx)
		if err == nil || n >= t.More || !t.MayPass(err) || ctx.Err() != nil {
			return err
		}
		if t.Failed != nil {
			t.Failed(err)
		}
		if ended := wait(ctx, t.After); ended != nil {
			return errors.Join(err, ended)
		}
	}
}
