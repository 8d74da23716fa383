// Package daemon is how a daemon gets on with its service manager: log lines for
// the journal, sd_notify(3), the watchdog, and the socket it is given. Without a
// service manager each of them does the plain thing, or nothing.
//
// It does not start or stop anything.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Log writes a daemon's log lines. Under systemd they go to the journal, with their
// priorities; it has the time already.
func Log(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(Journal(w), opts))
}

// Ready tells systemd, or whoever listens on $NOTIFY_SOCKET, that the daemon
// serves. Without one it does nothing.
func Ready(log *slog.Logger) { notify(log, daemon.SdNotifyReady) }

// Stopping tells it that the daemon ends.
func Stopping(log *slog.Logger) { notify(log, daemon.SdNotifyStopping) }

func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("service manager not notified", "state", state, "error", err)
	}
}

// Watchdog tells systemd twice in its watchdog interval that healthy has held,
// until ctx ends. A daemon that only sits there is killed and started again.
// Without WatchdogSec= in the unit it does nothing.
func Watchdog(ctx context.Context, log *slog.Logger, healthy func(context.Context) error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog is off", "error", err)
	}
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	watch(ctx, log, tick.C, interval/4, healthy)
}

// watch asks at each tick; an answer may take at most limit.
func watch(ctx context.Context, log *slog.Logger, tick <-chan time.Time, limit time.Duration, healthy func(context.Context) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		check, cancel := context.WithTimeout(ctx, limit)
		err := healthy(check)
		cancel()
		if err != nil {
			log.Error("self-check failed", "error", err)
			continue
		}
		notify(log, daemon.SdNotifyWatchdog)
	}
}

// Why there is not exactly one socket. What to do is for whoever has the flag.
var (
	ErrNoSocket    = errors.New("no socket: none is named, and systemd passes none")
	ErrManySockets = errors.New("exactly one socket in all is wanted")
)

// Listener is the stream socket that systemd passes, or what listen makes of own
// where it passes none: ErrManySockets for both, or for several, ErrNoSocket for
// neither. A datagram socket is one that is not served, and so a fault, too.
func Listener(own string, listen func(own string) (net.Listener, error)) (net.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	ln, err := choose(passed, own, listen)
	for _, l := range passed {
		if l != nil && l != ln {
			_ = l.Close() // nobody will serve it
		}
	}
	return ln, err
}

// choose is Listener behind the environment; passed holds nil for what is no
// stream.
func choose(passed []net.Listener, own string, listen func(own string) (net.Listener, error)) (net.Listener, error) {
	switch {
	case len(passed) == 1 && passed[0] != nil && own == "":
		return passed[0], nil
	case len(passed) > 0:
		if slices.Contains(passed, nil) {
			return nil, fmt.Errorf("%w: of the %d that systemd passes one is no stream", ErrManySockets, len(passed))
		}
		return nil, fmt.Errorf("%w: systemd passes %d, and %q is named", ErrManySockets, len(passed), own)
	case own == "":
		return nil, ErrNoSocket
	}
	return listen(own)
}
