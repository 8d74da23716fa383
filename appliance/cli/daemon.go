package cli

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// daemonLog writes a daemon's log lines to standard error, where the journal
// takes them; under systemd the journal has the time already.
func daemonLog() *slog.Logger {
	opts := &slog.HandlerOptions{}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}

// notify tells systemd, or whoever listens on $NOTIFY_SOCKET, about a state.
// Without one it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("service manager not notified", "state", state, "error", err)
	}
}

// watchdog tells systemd twice in its watchdog interval that healthy has held,
// until ctx ends. A daemon that only sits there is killed and started again.
// Without WatchdogSec= in the unit it does nothing.
func watchdog(ctx context.Context, log *slog.Logger, healthy func(context.Context) error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog is off", "error", err)
	}
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		check, cancel := context.WithTimeout(ctx, interval/4)
		err := healthy(check)
		cancel()
		if err != nil {
			log.Error("self-check failed", "error", err)
			continue
		}
		notify(log, daemon.SdNotifyWatchdog)
	}
}
