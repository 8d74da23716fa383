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

// logAccess writes one line about a request: who, what, how it ended. Never a
// header, the query or the body; and no token that stands in a path.
func logAccess(log *zap.Logger, r *http.Request, w *recorder, took time.Duration, fault string) {
	fields := []zap.Field{
		zap.String("client", remoteAddr(r.RemoteAddr).String()),
		zap.String("method", clip(r.Method, 16)),
		zap.String("path", clip(withoutTokens(r.URL.EscapedPath()), 512)),
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
