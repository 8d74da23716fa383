package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/mask"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/config"
)

// alertOf makes a failed backup job loud: the journal gets it with the priority
// of an error, the webhook is told, and the error goes on to become the exit
// code. It does nothing without an error.
func alertOf(c *cobra.Command, b config.Backup, job string, failure error) error {
	if failure == nil {
		return nil
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		for line := range strings.Lines(failure.Error()) {
			journal(c, journalError, "%s failed: %s", job, strings.TrimSuffix(line, "\n"))
		}
	}
	if off, err := c.Flags().GetBool("no-alert"); b.WebhookFile == "" || err == nil && off {
		return failure
	}
	// The job may have failed because its time was up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), 15*time.Second)
	defer cancel()
	if err := callWebhook(ctx, b.WebhookFile, job, failure); err != nil {
		// Said beside the failure, and never in its place.
		fmt.Fprintf(c.ErrOrStderr(), "strongroom: the webhook was not told: %v\n", err)
	}
	return failure
}

func callWebhook(ctx context.Context, file, job string, failure error) error {
	data, err := credential.Read(file)
	if err != nil {
		return err
	}
	hook, err := alert.NewWebhook(string(data))
	if err != nil {
		return fmt.Errorf("webhook file %q: %w", file, err)
	}
	host := hostName()
	text := mask.Text(failure.Error(), string(data))
	err = hook.Post(ctx, alert.Body{
		Text:  fmt.Sprintf("strongroom on %s: %s failed: %s", host, job, text),
		Event: "strongroom." + strings.ReplaceAll(job, " ", ".") + ".failed",
		Host:  host, Error: text, Time: time.Now().UTC(),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", hook.Name(), err)
	}
	return nil
}
