package safehttp

import (
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                                0,
		"0":                               0,
		"120":                             2 * time.Minute,
		" 7 ":                             7 * time.Second,
		"-5":                              0,
		"1.5":                             0,
		"soon":                            0,
		"9223372036854775807":             MaxRetryAfter,
		"99999999999999999999":            0,
		"Tue, 24 Nov 2026 15:01:30 GMT":   90 * time.Second,
		"Tue, 24 Nov 2026 14:59:00 GMT":   0,
		"Tue, 24 Nov 2099 14:59:00 GMT":   MaxRetryAfter,
		"Tuesday, 24-Nov-26 15:00:10 GMT": 10 * time.Second,
	} {
		if got := RetryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
