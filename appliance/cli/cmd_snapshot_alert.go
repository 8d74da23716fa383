package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom/config"
)

// alert makes a failed backup job loud: the journal gets it with the priority
// of an error, the webhook is told, and the error goes on to become the exit
// code. It does nothing without an error.
func alert(c *cobra.Command, b config.Backup, job string, failure error) error {
	if failure == nil {
		return nil
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		for line := range strings.Lines(failure.Error()) {
			journal(c, journalError, "%s failed: %s", job, strings.TrimSuffix(line, "\n"))
		}
	}
	if b.WebhookFile == "" {
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

// Priorities of the journal, syslog(3).
const (
	journalError   = 3
	journalWarning = 4
)

// journal writes one line with a priority, where the journal takes them
// (sd-daemon(3)), and plainly where a person reads it.
func journal(c *cobra.Command, priority int, format string, args ...any) {
	prefix := "strongroom: "
	if os.Getenv("JOURNAL_STREAM") != "" {
		prefix = fmt.Sprintf("<%d>", priority)
	}
	fmt.Fprintf(c.ErrOrStderr(), prefix+format+"\n", args...)
}

// webhookBody is understood by chat services (text) and by machines.
type webhookBody struct {
	Text  string    `json:"text"`
	Event string    `json:"event"` // "strongroom.snapshot.take.failed"
	Host  string    `json:"host"`
	Error string    `json:"error"`
	Time  time.Time `json:"time"`
}

func callWebhook(ctx context.Context, file, job string, failure error) error {
	data, err := readCredential(file)
	if err != nil {
		return err
	}
	target, err := url.Parse(strings.TrimSpace(string(data)))
	if err != nil || target.Host == "" || (target.Scheme != "https" && target.Scheme != "http") {
		// Not quoted: the URL may hold a secret.
		return fmt.Errorf("webhook file %q: want one line with a URL", file)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	body, err := json.Marshal(webhookBody{
		Text:  fmt.Sprintf("strongroom on %s: %s failed: %s", host, job, failure),
		Event: "strongroom." + strings.ReplaceAll(job, " ", ".") + ".failed",
		Host:  host, Error: failure.Error(), Time: time.Now().UTC(),
	})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return errors.New("webhook: bad request")
	}
	req.Header.Set("Content-Type", "application/json")
	// A redirect would carry the message, and the URL, to somebody else.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL
		}
		return fmt.Errorf("webhook at %s: %w", target.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("webhook at %s: %s", target.Host, resp.Status)
	}
	return nil
}
