package daemon

import (
	"bytes"
	"io"
	"os"
)

// priorities are those of syslog(3), by the level that stands in a line of ours:
// slog's text and zap's JSON.
var priorities = []struct{ text, json, prefix []byte }{
	{[]byte("level=ERROR "), []byte(`{"level":"error"`), []byte("<3>")},
	{nil, []byte(`{"level":"dpanic"`), []byte("<2>")},
	{nil, []byte(`{"level":"panic"`), []byte("<2>")},
	{nil, []byte(`{"level":"fatal"`), []byte("<2>")},
	{[]byte("level=WARN "), []byte(`{"level":"warn"`), []byte("<4>")},
	{[]byte("level=DEBUG "), []byte(`{"level":"debug"`), []byte("<7>")},
}

// Journal is w for lines of a log, one a Write, which begin with the level. In the
// journal they have its priority (sd-daemon(3)), so that `journalctl -p warning` finds
// them; elsewhere they are as they are.
func Journal(w io.Writer) io.Writer {
	if os.Getenv("JOURNAL_STREAM") == "" {
		return w
	}
	return journal{w}
}

type journal struct{ w io.Writer }

// Write implements io.Writer.
func (j journal) Write(line []byte) (int, error) {
	for _, p := range priorities {
		if p.text != nil && bytes.HasPrefix(line, p.text) || bytes.HasPrefix(line, p.json) {
			n, err := j.w.Write(append(bytes.Clone(p.prefix), line...))
			return max(n-len(p.prefix), 0), err
		}
	}
	return j.w.Write(line)
}
