package front

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A clock that is wrong makes every order fail, and every certificate look
// expired or not yet valid: the CA's own answer tells.
func TestPreflightAsksTheCA(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		off    time.Duration // of the CA's clock from ours
		date   string        // in place of a date; "-" for none
		want   string
	}{
		"agrees":         {200, 0, "", ""},
		"a minute ahead": {200, time.Minute, "", ""},
		"ours is behind": {200, 2*time.Hour + 30*time.Minute, "", "system clock is -2h"},
		"ours is ahead":  {200, -24 * time.Hour, "", "system clock is 24h0m"},
		"no date":        {200, 0, "-", ""},
		"odd date":       {200, 0, "yesterday", ""},
		"overloaded":     {503, 0, "", "503"},
	} {
		t.Run(name, func(t *testing.T) {
			ca := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				switch c.date {
				case "":
					w.Header().Set("Date", time.Now().Add(c.off).UTC().Format(http.TimeFormat))
				case "-":
					w.Header()["Date"] = nil
				default:
					w.Header().Set("Date", c.date)
				}
				w.WriteHeader(c.status)
			}))
			defer ca.Close()
			p := preflight{client: ca.Client()}
			err := p.checkCA(t.Context(), ca.URL)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
		})
	}
}
