package alert

import (
	"context"
	"fmt"
	"strings"
	"time"

	"strongroom.example/appliance/base/mask"
)

// JobFailed tells once, and from within a job, that it has failed. job is its
// verb, such as "snapshot take"; known are secrets to be hidden. Its errors hold
// no secret.
func (w *Webhook) JobFailed(ctx context.Context, job, host string, at time.Time, failure error, known ...string) error {
	text := mask.Text(failure.Error(), known...)
	err := w.Post(ctx, Body{
		Text:  fmt.Sprintf("strongroom on %s: %s failed: %s", host, job, text),
		Event: "strongroom." + strings.ReplaceAll(job, " ", ".") + ".failed",
		Host:  host, Error: text, Time: at.UTC(),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", w.Name(), err)
	}
	return nil
}
