package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

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

// hostName is this machine's, for what is told to people.
func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}
