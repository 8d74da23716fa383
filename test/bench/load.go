// Package bench measures the programs as they are built, against a peer in the
// same run. It is run by make bench; machines are noisy, so what counts is the
// ratio.
package bench

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// request is what is sent over and over.
type request struct {
	method string // "": GET
	body   string
	path   string // with its query, from /v1/ on
	header string // one more line, without its end; may be empty
	status int    // what it must answer
}

// load is what one connection sends and how it judges the answer.
type load struct {
	socket string
	tls    *tls.Config // with one, socket is the host:port of a server that speaks TLS
	token  string
	conns  int
}

// result of one run.
type result struct {
	count     int
	perSecond float64
	p50       time.Duration
}

// run sends r over l.conns connections, one request at a time on each, for d.
func (l load) run(ctx context.Context, r request, d time.Duration) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var wg sync.WaitGroup
	times := make([][]time.Duration, l.conns)
	errs := make([]error, l.conns)
	began := time.Now()
	for i := range l.conns {
		wg.Go(func() { times[i], errs[i] = l.one(ctx, r) })
	}
	wg.Wait()
	took := time.Since(began)
	var all []time.Duration
	for i := range times {
		if errs[i] != nil {
			return result{}, errs[i]
		}
		all = append(all, times[i]...)
	}
	if len(all) == 0 {
		return result{}, fmt.Errorf("GET %s: no answer within %v", r.path, d)
	}
	slices.Sort(all)
	return result{count: len(all), perSecond: float64(len(all)) / took.Seconds(), p50: all[len(all)/2]}, nil
}

// one keeps one connection busy until ctx ends.
func (l load) one(ctx context.Context, r request) ([]time.Duration, error) {
	var times []time.Duration
	began := time.Now()
	err := l.series(func() (request, bool) {
		now := time.Now()
		times = append(times, now.Sub(began))
		began = now
		return r, len(times) == 1 || ctx.Err() == nil // each sends one at least
	})
	if err != nil {
		return nil, err
	}
	return times[1:], nil // the first is the time to the first request
}

// series sends what next gives over one connection, each after the answer to
// the one before, and judges the answers.
func (l load) series(next func() (request, bool)) error {
	conn, err := l.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		r, ok := next()
		if !ok {
			return nil
		}
		if _, err := io.WriteString(conn, l.text(r)); err != nil {
			return err
		}
		if err := r.judge(in); err != nil {
			return err
		}
	}
}

// judge reads the answer to r.
func (r request) judge(in *bufio.Reader) error {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err != nil {
		return err
	}
	if resp.StatusCode != r.status {
		return fmt.Errorf("%s answers %d, want %d", r.path, resp.StatusCode, r.status)
	}
	return nil
}

// dial waits where thousands come at once and the listen queue is full.
func (l load) dial() (conn net.Conn, err error) {
	if l.tls != nil {
		return tls.Dial("tcp", l.socket, l.tls)
	}
	for range 500 {
		if conn, err = net.Dial("unix", l.socket); err == nil {
			return conn, nil
		}
		<-time.After(20 * time.Millisecond)
	}
	return nil, err
}

func (l load) text(r request) string {
	text := cmp.Or(r.method, http.MethodGet) + " /v1/" + r.path + " HTTP/1.1\r\nHost: vault\r\nX-Vault-Request: true\r\nX-Vault-Token: " + l.token + "\r\n"
	if r.header != "" {
		text += r.header + "\r\n"
	}
	if r.body != "" {
		text += fmt.Sprintf("Content-Length: %d\r\n", len(r.body))
	}
	return text + "\r\n" + r.body
}

// median of an odd number of values.
func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
