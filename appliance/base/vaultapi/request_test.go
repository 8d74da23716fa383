package vaultapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// hangUp takes the request, and ends the connection without an answer.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// halfAnswer breaks off.
func halfAnswer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	_, _ = w.Write([]byte(`{"data":`))
}

// What is repeated, and what is uncertain, for each way that a call ends.
func TestRepeats(t *testing.T) {
	calls := map[string]func(context.Context, *Client) error{
		"read":  func(ctx context.Context, c *Client) error { _, err := c.Read(ctx, "a/b"); return err },
		"list":  func(ctx context.Context, c *Client) error { _, err := c.List(ctx, "a/b"); return err },
		"raw":   func(ctx context.Context, c *Client) error { _, err := c.Raw(ctx, "a/b", nil); return err },
		"write": func(ctx context.Context, c *Client) error { _, err := c.Write(ctx, "a/b", nil); return err },
		"patch": func(ctx context.Context, c *Client) error {
			_, err := c.Patch(ctx, "a/b", map[string]any{})
			return err
		},
		"delete": func(ctx context.Context, c *Client) error { return c.Delete(ctx, "a/b") },
		"wrap":   func(ctx context.Context, c *Client) error { _, err := c.Wrap(ctx, "a/b", nil, time.Minute); return err },
		"unwrap": func(ctx context.Context, c *Client) error { _, err := c.Unwrap(ctx, "token"); return err },
		"login":  func(ctx context.Context, c *Client) error { return c.LoginAppRole(ctx, "a", "b") },
		"child token": func(ctx context.Context, c *Client) error {
			_, err := c.ChildToken(ctx, "a", time.Minute, "default")
			return err
		},
		"unchanged": func(ctx context.Context, c *Client) error { _, err := c.Unchanged(ctx, "a/b", "x"); return err },
		"seal":      func(ctx context.Context, c *Client) error { _, err := c.SealStatus(ctx); return err },
		"root": func(ctx context.Context, c *Client) error {
			_, err := c.GenerateRoot(ctx, nil)
			return err
		},
	}
	reads := map[string]bool{"read": true, "list": true, "raw": true, "seal": true, "unchanged": true}
	for name, c := range map[string]struct {
		answer    http.HandlerFunc
		read      int  // how often a read is sent
		uncertain bool // of a change
	}{
		"no answer":          {hangUp, 3, true},
		"half an answer":     {halfAnswer, 3, true},
		"another's answer":   {answers(200, "<html>hello</html>"), 1, true},
		"an internal error":  {answers(500, `{"errors":["internal error"]}`), 3, true},
		"the front's":        {answers(502, ""), 3, true},
		"its time-out":       {answers(504, ""), 3, true},
		"sealed":             {answers(503, `{"errors":["Vault is sealed"]}`), 3, false},
		"too many":           {answers(429, `{"errors":["quota"]}`), 3, false},
		"denied":             {answers(403, `{"errors":["permission denied"]}`), 1, false},
		"a mistake":          {answers(400, `{"errors":["missing x"]}`), 1, false},
		"nothing is mounted": {answers(404, `{"errors":["no handler for route \"a/b\". route entry not found."]}`), 1, false},
	} {
		for what, call := range calls {
			if name == "another's answer" && (what == "raw" || what == "root") {
				continue // one has any form, one begins with what has no answer
			}
			t.Run(name+"/"+what, func(t *testing.T) {
				s := serve(t, c.answer)
				err := call(t.Context(), client(t, Options{Address: s.URL, Token: "t"}))
				if err == nil {
					t.Fatal("no error")
				}
				want, uncertain := 1, c.uncertain
				if reads[what] {
					want, uncertain = c.read, false
				}
				if n := len(s.requests()); n != want {
					t.Errorf("sent %d times, want %d: %v", n, want, err)
				}
				if IsUncertain(err) != uncertain {
					t.Errorf("uncertain is %t: %v", IsUncertain(err), err)
				}
				if IsNoAnswer(err) && IsRefusal(err) {
					t.Errorf("both: %v", err)
				}
			})
		}
	}
	t.Run("once", func(t *testing.T) {
		s := serve(t, hangUp)
		if err := calls["read"](t.Context(), client(t, Options{Address: s.URL, Token: "t"}).Once(0)); err == nil || len(s.requests()) != 1 {
			t.Errorf("sent %d times: %v", len(s.requests()), err)
		}
	})
}

// A write to nobody is repeated, as it was never sent, and never uncertain.
func TestNeverSent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s := serve(t, answers(204, ""))
	c := client(t, Options{Address: "http://" + address, Token: "t"})
	c.pause = func(context.Context, time.Duration) error { // and now somebody is there
		c.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, strings.TrimPrefix(s.URL, "http://"))
		}
		return nil
	}
	if _, err := c.Write(t.Context(), "a/b", map[string]any{"x": "y"}); err != nil || len(s.requests()) != 1 {
		t.Errorf("%d requests, %v", len(s.requests()), err)
	}
	c = client(t, Options{Address: "http://" + address, Token: "t"})
	if _, err := c.Write(t.Context(), "a/b", nil); err == nil || IsUncertain(err) || !IsNoAnswer(err) {
		t.Errorf("nobody there: %v", err)
	}
	// A caller who leaves does not wait for the repeats.
	ctx, cancel := context.WithCancel(t.Context())
	c.pause = func(context.Context, time.Duration) error { cancel(); return ctx.Err() }
	if _, err := c.Read(ctx, "a/b"); err == nil {
		t.Error("no error")
	}
}

// A write that nobody waited for may have been done.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	s := serve(t, func(http.ResponseWriter, *http.Request) { cancel(); <-left })
	defer close(left)
	_, err := client(t, Options{Address: s.URL, Token: "t"}).Write(ctx, "a/b", map[string]any{"x": strings.Repeat("y", 100)})
	if !IsUncertain(err) || !errors.Is(err, context.Canceled) || len(s.requests()) != 1 {
		t.Errorf("%d requests: %v", len(s.requests()), err)
	}
}

// One that is in progress when its time is over is told so, and not begun again.
func TestTimeout(t *testing.T) {
	for timeout := 20 * time.Millisecond; ; timeout *= 2 {
		s := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		c := client(t, Options{Address: s.URL, Token: "t", Timeout: timeout})
		_, err := c.Read(t.Context(), "a/b")
		seen := len(s.requests())
		if !errors.Is(err, context.DeadlineExceeded) || seen > 1 {
			t.Fatalf("%d requests: %v", seen, err)
		}
		if seen == 1 {
			return
		}
		// On a busy machine its time was over before it was in progress.
	}
}

func TestAnswers(t *testing.T) {
	const wrapped = `{"data":null,"wrap_info":{"token":"w","ttl":60,"creation_time":"2026-01-02T03:04:05Z","creation_path":"a/b"}}`
	read := func(ctx context.Context, c *Client) error { _, err := c.Read(ctx, "a/b"); return err }
	list := func(ctx context.Context, c *Client) error { _, err := c.List(ctx, "a/b"); return err }
	write := func(ctx context.Context, c *Client) error { _, err := c.Write(ctx, "a/b", nil); return err }
	seal := func(ctx context.Context, c *Client) error { _, err := c.SealStatus(ctx); return err }
	token := func(ctx context.Context, c *Client) error {
		_, err := c.ChildToken(ctx, "a", time.Minute, "default")
		return err
	}
	for name, c := range map[string]struct {
		status int
		body   string
		call   func(context.Context, *Client) error
		is     func(error) bool
	}{
		"data":                        {200, `{"data":{"a":1}}`, read, isNil},
		"data without a field":        {200, `{"data":{}}`, read, isNil},
		"no content":                  {204, ``, read, isNoData},
		"null":                        {200, `{"data":null}`, read, isNoData},
		"an empty object":             {200, `{}`, read, isNoData},
		"an empty body":               {200, ``, read, isForeign},
		"a wrapped answer":            {200, wrapped, read, func(err error) bool { return errors.Is(err, ErrWrapped) }},
		"a wrapped list":              {200, wrapped, list, func(err error) bool { return errors.Is(err, ErrWrapped) }},
		"a wrapped write":             {200, wrapped, write, func(err error) bool { return errors.Is(err, ErrWrapped) }},
		"nothing there":               {404, `{"errors":[]}`, read, IsNotFound},
		"nothing there, with a word":  {404, `{"errors":["there is no key of this name"]}`, read, IsNotFound},
		"nothing there, not a word":   {404, "JSON", read, IsNotFound},
		"another's, not a word":       {404, "", read, isForeign},
		"a deleted version":           {404, `{"data":{"data":null,"metadata":{"version":1}}}`, read, IsNotFound},
		"nothing mounted":             {404, `{"errors":["no handler for route \"a/b\". route entry not found."]}`, read, IsUnsupported},
		"unknown to this version":     {404, `{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}`, read, IsUnsupported},
		"unsupported operation":       {405, `{"errors":["1 error occurred:\n\t* unsupported operation\n\n"]}`, read, IsUnsupported},
		"another's 404":               {404, `404 page not found`, read, isForeign},
		"another's 404, in JSON":      {404, `{"message":"none"}`, read, isForeign},
		"an empty list":               {404, `{"errors":[]}`, list, isNil},
		"a list where nothing is":     {404, `{"errors":["no handler for route \"a/b\". route entry not found."]}`, list, IsUnsupported},
		"a list that this lacks":      {404, `{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}`, list, IsUnsupported},
		"another's list":              {404, `404 page not found`, list, isForeign},
		"a list without names":        {200, `{"data":{}}`, list, isOther},
		"a list of no content":        {204, ``, list, isOther},
		"a list of what is no name":   {200, `{"data":{"keys":["a",1]}}`, list, isOther},
		"a list of names":             {200, `{"data":{"keys":["a","b/"]}}`, list, isNil},
		"a write without an answer":   {204, ``, write, isNil},
		"a write to nobody":           {404, `{"errors":[]}`, write, IsNotFound},
		"denied":                      {403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, read, IsDenied},
		"somebody else was faster":    {400, `{"errors":["check-and-set parameter did not match the current version"]}`, write, IsChanged},
		"another mistake":             {400, `{"errors":["x"]}`, write, func(err error) bool { return IsBadRequest(err) && !IsChanged(err) }},
		"a seal":                      {200, `{"sealed":true,"type":"shamir"}`, seal, isNil},
		"a seal without a word":       {200, `{"type":"shamir"}`, seal, isNoData},
		"a seal of no type":           {200, `{"sealed":true}`, seal, isNoData},
		"a token":                     {200, `{"auth":{"client_token":"t"}}`, token, isNil},
		"a token that is none":        {200, `{"auth":{"client_token":""}}`, token, isOther},
		"no token":                    {200, `{"data":{}}`, token, isOther},
		"a status that Vault has not": {202, `{"data":{}}`, read, IsRefusal},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if c.body == "JSON" {
					w.Header().Set("Content-Type", "application/json")
					c.body = ""
				}
				answers(c.status, c.body)(w, r)
			})
			err := c.call(t.Context(), client(t, Options{Address: s.URL, Token: "t"}))
			if !c.is(err) {
				t.Errorf("error: %v", err)
			}
			if IsNotFound(err) && IsUnsupported(err) {
				t.Errorf("both: %v", err)
			}
		})
	}
	for name, c := range map[string]struct {
		status int
		body   string
		want   bool
		is     func(error) bool
	}{
		"it is":         {304, "", true, isNil},
		"it is not":     {200, `{"data":{"key":"x"}}`, false, isNil},
		"nothing there": {404, `{"errors":[]}`, false, IsNotFound},
		"no content":    {204, "", false, isNoData},
		"wrapped":       {200, wrapped, false, isNoData},
		"denied":        {403, `{"errors":["permission denied"]}`, false, IsDenied},
	} {
		t.Run("unchanged/"+name, func(t *testing.T) {
			s := serve(t, answers(c.status, c.body))
			got, err := client(t, Options{Address: s.URL, Token: "t"}).Unchanged(t.Context(), "a/b", `"e"`)
			if got != c.want || !c.is(err) || s.requests()[0].Header.Get("If-None-Match") != `"e"` {
				t.Errorf("%t, %v", got, err)
			}
		})
	}
	t.Run("wrap", func(t *testing.T) {
		s := serve(t, answers(200, wrapped))
		w, err := client(t, Options{Address: s.URL, Token: "t"}).Wrap(t.Context(), "a/b", nil, time.Minute)
		if err != nil || w.Token != "w" || w.TTL != time.Minute || w.Path != "a/b" || w.Created.IsZero() {
			t.Errorf("%v, %v", w, err)
		}
		if h := s.requests()[0].Header.Get("X-Vault-Wrap-TTL"); h != "1m0s" {
			t.Errorf("asked for %q", h)
		}
	})
	t.Run("wrap that is not wrapped", func(t *testing.T) {
		s := serve(t, answers(200, `{"data":{"secret_id":"canary-secret"}}`))
		if _, err := client(t, Options{Address: s.URL, Token: "t"}).Wrap(t.Context(), "a/b", nil, time.Minute); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v", err)
		}
	})
}

func isNil(err error) bool    { return err == nil }
func isNoData(err error) bool { return errors.Is(err, ErrNoData) }
func isForeign(err error) bool {
	return errors.Is(err, ErrNotVault) && !IsNotFound(err) && !IsUnsupported(err)
}
func isOther(err error) bool { return err != nil && !IsRefusal(err) }
