package alert

import (
	"context"
	"strings"
	"time"
)

// Failed is the failure of a unit, as systemd tells of it to the unit that
// OnFailure= starts (systemd.exec(5), $MONITOR_SERVICE_RESULT and others), and the
// run that failed; that is empty where nothing is told of this unit.
func Failed(unit, host string, at time.Time, getenv func(string) string) (e Event, invocation string) {
	e = Event{Unit: unit, Host: host, At: at, Result: "failed"}
	if getenv("MONITOR_UNIT") != unit {
		return e, ""
	}
	if r := getenv("MONITOR_SERVICE_RESULT"); r != "" {
		e.Result, e.Status = r, getenv("MONITOR_EXIT_STATUS")
	}
	// systemd 252 says so of an exit status that isn't 0.
	if e.Result == "success" {
		e.Result = "exit-code"
	}
	return e, getenv("MONITOR_INVOCATION_ID")
}

// WithJournal adds the unit's last n lines, in which known secrets are masked; a
// journal that can't be read is told of in their place.
func (e Event) WithJournal(ctx context.Context, invocation string, n int, known ...string) Event {
	if n <= 0 {
		return e
	}
	lines, err := Journal(ctx, e.Unit, invocation, n, known...)
	if err != nil {
		lines = []string{"(the journal could not be read: " + err.Error() + ")"}
	}
	e.Lines = lines
	return e
}

// IsUnit keeps options and patterns out of journalctl's arguments.
func IsUnit(s string) bool {
	return s != "" && len(s) < 256 && s[0] != '-' && strings.Contains(s, ".") &&
		strings.Trim(s, `abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.@\`) == ""
}
