package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLog(t *testing.T) {
	for _, tt := range []struct {
		name, journal string
		timed         bool
	}{{"in the journal", "8:1", false}, {"on a terminal", "", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("JOURNAL_STREAM", tt.journal)
			var out bytes.Buffer
			Log(&out).Info("ready", "at", 7, slog.Group("of", "time", "kept"))
			if got := strings.HasPrefix(out.String(), "time="); got != tt.timed {
				t.Errorf("a time: %t, want %t: %s", got, tt.timed, &out)
			}
			if !strings.Contains(out.String(), `msg=ready at=7 of.time=kept`) {
				t.Errorf("%s", &out)
			}
		})
	}
}

// What the journal filters by is the level of the line.
func TestJournalPriorities(t *testing.T) {
	lines := []struct{ line, prefix string }{
		{`{"level":"info","msg":"x"}`, ""}, {`{"level":"warn","msg":"x"}`, "<4>"}, {`{"level":"error","msg":"x"}`, "<3>"},
		{`{"level":"fatal","msg":"x"}`, "<2>"}, {`{"level":"debug","msg":"x"}`, "<7>"}, {`{"msg":"{\"level\":\"error\""}`, ""},
		{`level=INFO msg=x`, ""}, {`level=WARN msg=x`, "<4>"}, {`level=ERROR msg=x`, "<3>"}, {`msg="level=ERROR "`, ""}, {"", ""},
	}
	for _, inJournal := range []bool{true, false} {
		t.Run(strconv.FormatBool(inJournal), func(t *testing.T) {
			t.Setenv("JOURNAL_STREAM", map[bool]string{true: "8:1"}[inJournal])
			for _, l := range lines {
				var out bytes.Buffer
				want := l.line
				if inJournal {
					want = l.prefix + want
				}
				if n, err := Journal(&out).Write([]byte(l.line)); n != len(l.line) || err != nil || out.String() != want {
					t.Errorf("%q: %q, %d, %v", l.line, &out, n, err)
				}
			}
		})
	}
	t.Setenv("JOURNAL_STREAM", "8:1")
	var out bytes.Buffer
	Log(&out).Error("refused")
	if !strings.HasPrefix(out.String(), "<3>level=ERROR msg=refused") {
		t.Errorf("%q", &out)
	}
}

// manager plays systemd: it gives what it is told.
func manager(t *testing.T) (hear func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		buf := make([]byte, 256)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	hear := manager(t)
	log := slog.New(slog.DiscardHandler)
	Ready(log)
	if got := hear(); got != "READY=1" {
		t.Error(got)
	}
	Stopping(log)
	if got := hear(); got != "STOPPING=1" {
		t.Error(got)
	}
	// Who can't be told is no reason to end, and is said.
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	var out bytes.Buffer
	Ready(Log(&out))
	if !strings.Contains(out.String(), "not notified") {
		t.Errorf("%q", &out)
	}
	// And without a service manager there is nobody to tell.
	t.Setenv("NOTIFY_SOCKET", "")
	out.Reset()
	Ready(Log(&out))
	if out.Len() > 0 {
		t.Errorf("%q", &out)
	}
}

// At each tick the daemon is asked, and systemd is told only when it is well. An
// answer that takes too long is none.
func TestWatch(t *testing.T) {
	hear := manager(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	tick, asked, ended := make(chan time.Time), 0, make(chan struct{})
	go func() {
		defer close(ended)
		watch(ctx, Log(&out), tick, time.Millisecond, func(ctx context.Context) error {
			switch asked++; asked {
			case 2:
				return errors.New("the key is damaged")
			case 3:
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
	}()
	tick <- time.Time{}
	if got := hear(); got != "WATCHDOG=1" {
		t.Error(got)
	}
	for range 3 {
		tick <- time.Time{}
	}
	if got := hear(); got != "WATCHDOG=1" {
		t.Error(got)
	}
	cancel()
	<-ended
	if n := strings.Count(out.String(), "self-check failed"); n != 2 || asked != 4 || !strings.Contains(out.String(), "the key is damaged") {
		t.Errorf("asked %d times, failed %d times: %s", asked, n, &out)
	}
}

func TestWatchdog(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("WATCHDOG_PID", "")
	never := func(context.Context) error { t.Error("asked without a watchdog"); return nil }
	Watchdog(t.Context(), log, never) // returns
	t.Setenv("WATCHDOG_USEC", "soon")
	var out bytes.Buffer
	Watchdog(t.Context(), Log(&out), never)
	if !strings.Contains(out.String(), "watchdog is off") {
		t.Errorf("%q", &out)
	}
	hear := manager(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Watchdog(ctx, log, func(context.Context) error { return nil })
	}()
	for range 2 {
		if got := hear(); got != "WATCHDOG=1" {
			t.Error(got)
		}
	}
	cancel()
	<-ended
}

type socket struct{ net.Listener }

func TestChoose(t *testing.T) {
	one, two, made := &socket{}, &socket{}, &socket{}
	taken := errors.New("address already in use")
	for _, tt := range []struct {
		name   string
		passed []net.Listener
		own    string
		fails  error
		want   net.Listener
		err    error
	}{
		{"systemd's", []net.Listener{one}, "", nil, one, nil},
		{"our own", nil, "/run/s", nil, made, nil},
		{"our own, taken", nil, "/run/s", taken, nil, taken},
		{"none", nil, "", nil, nil, ErrNoSocket},
		{"both", []net.Listener{one}, "/run/s", nil, nil, ErrManySockets},
		{"several", []net.Listener{one, two}, "", nil, nil, ErrManySockets},
		{"a datagram socket", []net.Listener{nil}, "", nil, nil, ErrManySockets},
		{"a datagram socket beside", []net.Listener{one, nil}, "", nil, nil, ErrManySockets},
		{"a datagram socket, and our own", []net.Listener{nil}, "/run/s", nil, nil, ErrManySockets},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := choose(tt.passed, tt.own, func(own string) (net.Listener, error) {
				if own != tt.own {
					t.Errorf("it listens on %q", own)
				}
				if tt.fails != nil {
					return nil, tt.fails
				}
				return made, nil
			})
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// Without systemd the environment passes nothing.
func TestListener(t *testing.T) {
	t.Setenv("LISTEN_PID", "")
	t.Setenv("LISTEN_FDS", "")
	ln, err := Listener("127.0.0.1:0", func(own string) (net.Listener, error) { return net.Listen("tcp", own) })
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if _, err := Listener("", nil); !errors.Is(err, ErrNoSocket) {
		t.Error(err)
	}
}
