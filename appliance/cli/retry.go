package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
)

// retries are the further tries of a job whose fault may pass.
type retries struct {
	n     int
	after time.Duration
	// wait gives the context's cause when that ends first.
	wait func(context.Context, time.Duration) error
}

func (r *retries) add(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&r.n, "retries", 0, "try so many times again where that may help, such as when a place is out of reach")
	f.DurationVar(&r.after, "retry-after", 2*time.Minute, "wait so long before another try")
}

// do runs a job until it succeeds, fails for a reason that does not pass, or has
// had its tries. Each failure but the last is told to the journal.
func (r *retries) do(ctx context.Context, c *cobra.Command, job string, mayPass func(error) bool, run func() error) error {
	for n := 0; ; n++ {
		err := run()
		if err == nil || n >= r.n || !mayPass(err) || ctx.Err() != nil {
			return err
		}
		journal(c, journalWarning, "%s: %v; it is tried again in %v", job, err, r.after)
		if ended := r.wait(ctx, r.after); ended != nil {
			return errors.Join(err, ended)
		}
	}
}
