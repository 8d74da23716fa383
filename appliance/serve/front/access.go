package front

import (
	"net/http"
	"regexp"
	"sync"
	"time"

	"go.uber.org/zap"
)

// tokenShape finds Vault's and OpenBao's tokens (https://developer.hashicorp.com/vault/docs/concepts/tokens):
// old clients put them into paths.
const tokenShape = `\b(hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}`

var tokenPattern = regexp.MustCompile(tokenShape)

// journalBytes is how much of a minute's journal requests may take that come to
// nothing, or that anybody may make: there every unit's words stand, and older ones go.
const journalBytes = 64 << 10

// recordBytes is what a record takes beside what the request says.
const recordBytes = 360

// journal holds strangers' records to that.
type journal struct {
	now func() time.Time

	mu      sync.Mutex
	began   time.Time // of the minute
	used    int
	omitted int
}

// take says whether there is room for so many bytes, and how many records of the
// minute before had none.
func (j *journal) take(bytes int) (room bool, omitted int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if now := j.now(); now.Sub(j.began) >= time.Minute {
		j.began, j.used, omitted, j.omitted = now, 0, j.omitted, 0
	}
	if j.used+bytes > journalBytes {
		j.omitted++
		return false, omitted
	}
	j.used += bytes
	return true, omitted
}

// record writes what has become of a request; of those that come to nothing, or need
// no token, as many as the journal has room for.
func (g *gate) record(r *http.Request, w *recorder, took time.Duration, fault string) {
	if !w.known || w.status < 200 || w.status >= 400 {
		room, omitted := g.journal.take(recordBytes + min(len(r.URL.Path), pathBytes) + len(fault))
		if omitted > 0 {
			g.log.Warn("requests without a record, as there were too many that came to nothing, in one minute", zap.Int("requests", omitted))
		}
		if !room {
			return
		}
	}
	logAccess(g.log, r, w, took, fault)
}

// pathBytes is how much of a path is written down.
const pathBytes = 512

// logAccess writes one line about a request: who, what, how it ended. Never a
// header, the query or the body; and no token that stands in a path.
func logAccess(log *zap.Logger, r *http.Request, w *recorder, took time.Duration, fault string) {
	fields := []zap.Field{
		zap.String("client", remoteAddr(r.RemoteAddr).String()),
		zap.String("method", clip(r.Method, 16)),
		zap.String("path", clip(withoutTokens(r.URL.EscapedPath()), pathBytes)),
		zap.String("proto", r.Proto),
		zap.Int("status", w.status),
		zap.Int64("bytes", w.bytes),
		zap.Duration("took", took),
	}
	if fault != "" {
		log.Warn("request", append(fields, zap.String("fault", withoutTokens(fault)))...)
		return
	}
	log.Info("request", fields...)
}

func withoutTokens(s string) string { return tokenPattern.ReplaceAllString(s, "[token]") }

func clip(s string, limit int) string {
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}

// syncSet is a set for several goroutines. The zero value is empty.
type syncSet[T comparable] struct {
	mu  sync.Mutex
	set map[T]struct{}
}

// add says whether v is new.
func (s *syncSet[T]) add(v T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.set[v]; ok {
		return false
	}
	if s.set == nil {
		s.set = map[T]struct{}{}
	}
	s.set[v] = struct{}{}
	return true
}

// remove says whether v was there.
func (s *syncSet[T]) remove(v T) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.set[v]
	delete(s.set, v)
	return ok
}
