package vaultapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswer bounds an answer, in bytes: twice what Vault takes in one request.
const maxAnswer = 64 << 20

// request is one call.
type request struct {
	method, path string
	query        url.Values
	body         any    // JSON; nil for none
	patch        bool   // body is a merge patch
	token        string // in place of the client's
	etag         string // answer with data only if it is not this
	wrap         time.Duration
}

// changes says whether the call may change something.
func (r request) changes() bool { return r.method != http.MethodGet }

// do makes a call and reads the whole answer. It repeats what may be repeated.
func (c *Client) do(ctx context.Context, r request) (status int, body []byte, err error) {
	var payload []byte
	if r.body != nil {
		if payload, err = json.Marshal(r.body); err != nil {
			return 0, nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
		defer clear(payload)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for n := 0; ; n++ {
		var sent bool
		status, body, sent, err = c.once(ctx, r, payload)
		again := err != nil && !sent && unreached(err) || upgrading(status, body)
		if !r.changes() {
			again = again || err != nil && sent || status == http.StatusTooManyRequests || status >= 500 && status != http.StatusNotImplemented
		}
		if again && n < c.repeats && ctx.Err() == nil {
			if c.pause(ctx, time.Duration(n+1)*time.Second) == nil {
				continue
			}
		}
		if err != nil {
			err = fmt.Errorf("%s %s: %w", r.method, r.path, err)
			if sent && r.changes() {
				err = fmt.Errorf("%w: %w", err, errUncertain)
			}
		}
		return status, body, err
	}
}

// upgrading is a KV of version 2 that was mounted just now: it has done nothing yet.
func upgrading(status int, body []byte) bool {
	return status == http.StatusBadRequest && bytes.Contains(body, []byte("Upgrading from non-versioned to versioned data"))
}

// unreached says that nobody was there to take a request.
func unreached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && !errors.Is(err, ErrClear)
}

// once makes one attempt. sent says that the server may have got it.
func (c *Client) once(ctx context.Context, r request, payload []byte) (status int, body []byte, sent bool, err error) {
	var in io.Reader
	if payload != nil {
		in = bytes.NewReader(payload)
	}
	resp, sent, err := c.send(ctx, r, in)
	if err != nil {
		return 0, nil, sent, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	if err == nil && len(body) == 0 && resp.StatusCode == http.StatusNotFound && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		body = []byte(`{"errors":[]}`) // some engines say it so, as KV of a path without metadata
	}
	return resp.StatusCode, body, true, err
}

// send sends one request and gives the answer, whatever its status.
func (c *Client) send(ctx context.Context, r request, body io.Reader) (resp *http.Response, sent bool, err error) {
	u := *c.base
	if slices.ContainsFunc(strings.Split(strings.TrimSuffix(r.path, "/"), "/"), func(s string) bool { return s == "" || s == "." || s == ".." }) {
		return nil, false, errors.New("a path may have no part that is empty, . or .. (and begin with none)")
	}
	u.Path = path.Join("/", u.Path, "v1", r.path)
	u.RawQuery = r.query.Encode()
	var got atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, false, err
	}
	// Vault's own listener and its agents take it as the sign of a client that
	// means it: https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent#requiring-the-vault-request-header
	req.Header.Set("X-Vault-Request", "true")
	if r.patch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	token := r.token
	if token == "" {
		token = c.Token()
	}
	if strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return nil, false, errors.New("the token holds a blank or another character that no token has")
	}
	if token == "" && needsToken(r.method, r.path) {
		return nil, false, ErrNoToken
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	if r.etag != "" {
		req.Header.Set("If-None-Match", r.etag)
	}
	if r.wrap > 0 {
		req.Header.Set("X-Vault-Wrap-TTL", r.wrap.String())
	}
	resp, err = c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // which repeats the method and the URL
			err = u.Err
		}
		return nil, got.Load(), noAnswer{err}
	}
	return resp, true, nil
}

// answer is Vault's envelope.
// https://developer.hashicorp.com/vault/api-docs#the-http-api
type answer struct {
	Errors        []string `json:"errors"`
	Warnings      []string `json:"warnings"`
	Data          Data     `json:"data"`
	LeaseID       string   `json:"lease_id"`
	LeaseDuration int64    `json:"lease_duration"` // seconds
	WrapInfo      *struct {
		Token        string    `json:"token"`
		TTL          int64     `json:"ttl"` // seconds
		CreationTime time.Time `json:"creation_time"`
		CreationPath string    `json:"creation_path"`
	} `json:"wrap_info"`
	Auth *struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
}

// call makes a call whose answer has Vault's envelope; with 204 it is empty.
func (c *Client) call(ctx context.Context, r request) (answer, error) {
	status, body, err := c.do(ctx, r)
	if err != nil {
		return answer{}, err
	}
	a, err := parse(r, status, body)
	if err != nil {
		return answer{}, err
	}
	if (a.WrapInfo != nil) != (r.wrap > 0) {
		if r.wrap > 0 {
			return answer{}, fmt.Errorf("%s %s: the answer is not wrapped", r.method, r.path)
		}
		return answer{}, fmt.Errorf("%s %s: %w", r.method, r.path, ErrWrapped)
	}
	return a, nil
}

// parse reads an answer, or the refusal that it is.
func parse(r request, status int, body []byte) (answer, error) {
	if status == http.StatusNoContent {
		return answer{}, nil
	}
	if status != http.StatusOK {
		return answer{}, refusal(r, status, body)
	}
	var a answer
	if err := decode(body, &a); err != nil {
		err = fmt.Errorf("%s %s: %w: %w", r.method, r.path, ErrNotVault, err)
		if r.changes() {
			err = fmt.Errorf("%w: %w", err, errUncertain)
		}
		return answer{}, err
	}
	return a, nil
}

// refusal is the error of any status but 200 and 204.
func refusal(r request, status int, body []byte) error {
	e := &Error{Method: r.method, Path: r.path, Status: status}
	var a answer
	e.foreign = decode(body, &a) != nil || a.Errors == nil && a.Data == nil
	e.Errors, e.Data = a.Errors, a.Data
	var err error = e
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		// A standby that lost the leader, or a front that lost Vault.
		if r.changes() {
			err = fmt.Errorf("%w: %w", e, errUncertain)
		}
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		e.Errors, e.foreign = []string{"another node leads: ask that one, or try again"}, false
	}
	return err
}

// decode takes one JSON value, numbers as they are. Errors quote nothing.
func decode(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		var t *json.UnmarshalTypeError
		if errors.As(err, &t) {
			return fmt.Errorf("%q is of another type", t.Field)
		}
		return errors.New("it is no JSON")
	}
	return nil
}
