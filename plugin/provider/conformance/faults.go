package conformance

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
)

// Faults stands in front of a service and makes chosen requests fail.
type Faults struct {
	next     http.Handler
	classify func(*http.Request) string

	mu     sync.Mutex
	queued map[string][]Fault
	counts map[string]int
	done   map[string]chan struct{}
}

// A Fault is one way for a request to fail.
type Fault struct {
	Name string
	// Process lets the service act before the answer is spoilt.
	Process bool
	// Answer writes what comes instead of the service's own answer.
	Answer func(w http.ResponseWriter, r *http.Request, own *httptest.ResponseRecorder, body []byte)
}

// NewFaults wraps a service. classify names the operation of a request:
// create, list, test, revoke or last_used.
func NewFaults(next http.Handler, classify func(*http.Request) string) *Faults {
	return &Faults{
		next: next, classify: classify, queued: map[string][]Fault{},
		counts: map[string]int{}, done: map[string]chan struct{}{},
	}
}

// Next makes the next request of op fail.
func (f *Faults) Next(op string, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queued[op] = append(f.queued[op], fault)
	f.done[op] = make(chan struct{})
}

// Reached is closed when the queued fault has let the service act, or has
// kept it from acting.
func (f *Faults) Reached(op string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done[op]
}

// Count is how many requests of op have come.
func (f *Faults) Count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// Total is how many requests have come.
func (f *Faults) Total() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.counts {
		n += c
	}
	return n
}

func (f *Faults) take(op string) (Fault, chan struct{}, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[op]++
	q := f.queued[op]
	if len(q) == 0 {
		return Fault{}, nil, false
	}
	f.queued[op] = q[1:]
	return q[0], f.done[op], true
}

// ServeHTTP passes a request on, or spoils it.
func (f *Faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	op := f.classify(r)
	// The form of a query API is read by classify already.
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.Form, r.PostForm = nil, nil
	fault, done, ok := f.take(op)
	if !ok {
		f.next.ServeHTTP(w, r)
		return
	}
	own := httptest.NewRecorder()
	if fault.Process {
		f.next.ServeHTTP(own, r)
	}
	close(done)
	fault.Answer(w, r, own, body)
}

// Status refuses a request with this status, headers and body.
func Status(code int, body string, headers ...string) Fault {
	return Fault{Answer: statusAnswer(code, body, headers)}
}

// StatusAfter lets the service act and answers with this status all the same.
func StatusAfter(code int, body string, headers ...string) Fault {
	return Fault{Process: true, Answer: statusAnswer(code, body, headers)}
}

func statusAnswer(code int, body string, headers []string) func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, _ *httptest.ResponseRecorder, _ []byte) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

// Echo refuses a request and says everything again that it held.
func Echo(code int, shape func(string) string) Fault {
	return Fault{Answer: func(w http.ResponseWriter, r *http.Request, _ *httptest.ResponseRecorder, body []byte) {
		w.WriteHeader(code)
		io.WriteString(w, shape(requestText(r, body)))
	}}
}

// Drop closes the connection without an answer.
func Drop(process bool) Fault {
	return Fault{Process: process, Answer: func(w http.ResponseWriter, _ *http.Request, _ *httptest.ResponseRecorder, _ []byte) {
		panic(http.ErrAbortHandler)
	}}
}

// Hang never answers.
func Hang(process bool) Fault {
	return Fault{Process: process, Answer: func(_ http.ResponseWriter, r *http.Request, _ *httptest.ResponseRecorder, _ []byte) {
		<-r.Context().Done()
	}}
}

// SlowBody sends half the answer and then no more.
func SlowBody() Fault {
	return Fault{Process: true, Answer: func(w http.ResponseWriter, r *http.Request, own *httptest.ResponseRecorder, _ []byte) {
		w.WriteHeader(own.Code)
		io.WriteString(w, half(own.Body.String()))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}}
}

// CutBody promises the whole answer, sends half, and closes.
func CutBody() Fault {
	return Fault{Process: true, Answer: func(w http.ResponseWriter, r *http.Request, own *httptest.ResponseRecorder, _ []byte) {
		w.Header().Set("Content-Length", "100000")
		w.WriteHeader(own.Code)
		io.WriteString(w, half(own.Body.String()))
		panic(http.ErrAbortHandler)
	}}
}

func half(s string) string { return s[:len(s)/2] }

// Replace answers with the service's own status and this body.
func Replace(body string) Fault {
	return Fault{Process: true, Answer: func(w http.ResponseWriter, _ *http.Request, own *httptest.ResponseRecorder, _ []byte) {
		w.WriteHeader(own.Code)
		io.WriteString(w, body)
	}}
}

// Truncate answers with half of what the service says, as if it were all.
func Truncate() Fault {
	return Fault{Process: true, Answer: func(w http.ResponseWriter, _ *http.Request, own *httptest.ResponseRecorder, _ []byte) {
		w.WriteHeader(own.Code)
		io.WriteString(w, half(own.Body.String()))
	}}
}

// Huge answers without end.
func Huge() Fault {
	return Fault{Process: true, Answer: func(w http.ResponseWriter, _ *http.Request, own *httptest.ResponseRecorder, _ []byte) {
		w.WriteHeader(own.Code)
		for block := strings.Repeat("x", 64<<10); ; {
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
	}}
}
