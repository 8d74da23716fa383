package cli

import (
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/pause"
)

// retries are the further tries of a job whose fault may pass.
type retries struct {
	n     int
	after time.Duration
}

func (r *retries) add(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&r.n, "retries", 0, "try so many times again where that may help, such as when a place is out of reach")
	f.DurationVar(&r.after, "retry-after", 2*time.Minute, "wait so long before another try")
}

// tries tell the journal of each failure but the last. The job says which may pass.
func (r *retries) tries(c *cobra.Command, job string) pause.Tries {
	return pause.Tries{More: r.n, After: r.after, Failed: func(err error) {
		journal(c, journalWarning, "%s: %v; it is tried again in %v", job, err, r.after)
	}}
}
