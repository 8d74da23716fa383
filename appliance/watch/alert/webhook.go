package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Webhook tells by an HTTP POST of JSON.
type Webhook struct {
	url    *url.URL
	client *http.Client
}

var _ Channel = (*Webhook)(nil)

// webhookTimeout is that of one try.
const webhookTimeout = 15 * time.Second

// NewWebhook takes the URL as it is in a file. The error doesn't quote it: it
// tends to hold a secret.
func NewWebhook(text string) (*Webhook, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("want one line with a URL, https://…")
	}
	// A redirect would carry the message, and the URL, to somebody else.
	stop := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Webhook{u, &http.Client{CheckRedirect: stop, Timeout: webhookTimeout}}, nil
}

// Name is without the URL's path, which is what keeps strangers out.
func (w *Webhook) Name() string { return "webhook at " + w.url.Host }

// Body is what a webhook is sent: text is what chat services show, the rest is
// for machines.
type Body struct {
	Text   string    `json:"text"`
	Event  string    `json:"event"`
	Host   string    `json:"host"`
	Unit   string    `json:"unit,omitempty"`
	Result string    `json:"result,omitempty"`
	Status string    `json:"status,omitempty"`
	Error  string    `json:"error,omitempty"`
	Lines  []string  `json:"lines,omitempty"`
	Unsaid int       `json:"unsaid,omitempty"`
	Time   time.Time `json:"time"`
}

// Send implements Channel.
func (w *Webhook) Send(ctx context.Context, e Event) error {
	return w.Post(ctx, Body{
		Text: e.Text(), Event: Name, Host: e.Host, Unit: e.Unit, Result: e.Result, Status: e.Status,
		Lines: e.Lines, Unsaid: e.Unsaid, Time: e.At.UTC(),
	})
}

// Post sends one body, once. Answers from 400 to 499 are ErrRefused, but 408 and
// 429.
func (w *Webhook) Post(ctx context.Context, b Body) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(text))
	if err != nil {
		return errors.New("bad request")
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL
		}
		return err
	}
	defer resp.Body.Close()
	switch s := resp.StatusCode; {
	case s < 300:
		return nil
	case s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s", ErrRefused, resp.Status)
	default:
		return errors.New(resp.Status)
	}
}
