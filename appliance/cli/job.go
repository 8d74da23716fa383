package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/config"
)

// spareMemory trades a little CPU for memory: backups run beside Vault on a
// small machine, and stream.
func spareMemory() {
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(32 << 20)
	debug.FreeOSMemory()
	// Where that fails the job is larger by these pages, and otherwise well.
	if err := kms.DropStartupPages(); err != nil {
		slog.Debug("startup pages stay", "error", err)
	}
}

// stateDir is the flag's, systemd's, or the installed place.
func stateDir(flag, installed string) string {
	if flag != "" {
		return flag
	}
	// systemd gives several with colons between them; the first is the job's.
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	return installed
}

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
	hook, secrets, err := alert.OpenWebhook(b.WebhookFile, credential.Read)
	if err == nil {
		err = hook.JobFailed(ctx, job, hostName(), time.Now(), failure, secrets...)
	}
	if err != nil {
		// Said beside the failure, and never in its place.
		fmt.Fprintf(c.ErrOrStderr(), "strongroom: the webhook was not told: %v\n", err)
	}
	return failure
}
