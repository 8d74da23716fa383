package vaultapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Paths are without "v1/". None may have a part that is empty, "." or "..".

// Read gives the data at path. Where there is nothing the error is IsNotFound.
func (c *Client) Read(ctx context.Context, path string) (Data, error) {
	return c.ReadWith(ctx, path, nil)
}

// ReadWith is Read with a query.
func (c *Client) ReadWith(ctx context.Context, path string, query url.Values) (Data, error) {
	a, err := c.call(ctx, request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return nil, err
	}
	if a.Data == nil {
		return nil, fmt.Errorf("GET %s: %w", path, ErrNoData)
	}
	return a.Data, nil
}

// ReadInto decodes the data at path into v, as encoding/json does.
func (c *Client) ReadInto(ctx context.Context, path string, query url.Values, v any) error {
	data, err := c.ReadWith(ctx, path, query)
	if err != nil {
		return err
	}
	if err := data.Into(v); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// Raw gives an answer that has a form of its own, such as metrics.
func (c *Client) Raw(ctx context.Context, path string, query url.Values) ([]byte, error) {
	r := request{method: http.MethodGet, path: path, query: query}
	status, body, err := c.do(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, refusal(r, status, body)
	}
	return body, nil
}

// Unchanged says whether what is at path is still what it was when it came with
// etag; no data comes with the answer then. https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
func (c *Client) Unchanged(ctx context.Context, path, etag string) (bool, error) {
	r := request{method: http.MethodGet, path: path, etag: etag}
	status, body, err := c.do(ctx, r)
	if err != nil || status == http.StatusNotModified {
		return err == nil, err
	}
	a, err := parse(r, status, body)
	if err == nil && a.Data == nil {
		err = fmt.Errorf("GET %s: %w", path, ErrNoData)
	}
	return false, err
}

// List gives the names directly below path; folders end in "/". It is empty
// only if whoever answers there says so: Vault has no other way to say "none"
// than a 404 without a word.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	names, _, err := c.ListInfo(ctx, path)
	return names, err
}

// ListInfo is List with what some paths tell of each name.
func (c *Client) ListInfo(ctx context.Context, path string) (names []string, info Data, err error) {
	a, err := c.call(ctx, request{method: http.MethodGet, path: path, query: url.Values{"list": {"true"}}})
	if IsNotFound(err) && len(Reasons(err)) == 0 {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if names, err = a.Data.Strings("keys"); err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", path, err)
	}
	if a.Data.Has("key_info") {
		if info, err = a.Data.Map("key_info"); err != nil {
			return nil, nil, fmt.Errorf("list %s: %w", path, err)
		}
	}
	return names, info, nil
}

// Write sends data, which may be nil. Most writes are answered without data,
// which is nil then; whoever needs some gets an error when taking it.
func (c *Client) Write(ctx context.Context, path string, data map[string]any) (Data, error) {
	a, err := c.call(ctx, write(path, data))
	return a.Data, err
}

// WriteWarned is Write, with what Vault says about it beside the answer.
func (c *Client) WriteWarned(ctx context.Context, path string, data map[string]any) (answer Data, warnings []string, err error) {
	a, err := c.call(ctx, write(path, data))
	return a.Data, a.Warnings, err
}

func write(path string, data map[string]any) request {
	r := request{method: http.MethodPut, path: path}
	if data != nil {
		r.body = data
	}
	return r
}

// Patch merges data into what is at path, by RFC 7396.
func (c *Client) Patch(ctx context.Context, path string, data map[string]any) (Data, error) {
	a, err := c.call(ctx, request{method: http.MethodPatch, path: path, body: data, patch: true})
	return a.Data, err
}

// Delete removes what is at path. That nothing is there is no error.
func (c *Client) Delete(ctx context.Context, path string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: path})
	if IsNotFound(err) {
		return nil
	}
	return err
}

// Lease is a secret with a lifetime. Data is secret.
type Lease struct {
	ID       string
	Duration time.Duration
	Data     Data
}

// ReadLease reads a path whose answer has a lease; each time makes a new one,
// so that it is not repeated, and may be uncertain as a write is.
func (c *Client) ReadLease(ctx context.Context, path string) (Lease, error) {
	a, err := c.Once(0).call(ctx, request{method: http.MethodGet, path: path})
	if err != nil {
		return Lease{}, err
	}
	if a.Data == nil || a.LeaseID == "" {
		return Lease{}, fmt.Errorf("GET %s: %w", path, ErrNoData)
	}
	return Lease{ID: a.LeaseID, Duration: time.Duration(a.LeaseDuration) * time.Second, Data: a.Data}, nil
}

// Wrapped is an answer of Vault's that can be fetched once. Token is secret.
type Wrapped struct {
	Token   string
	TTL     time.Duration
	Created time.Time
	Path    string // the request that made it
}

// Wrap writes, and has the answer kept by Vault for ttl, to be fetched once
// with the token that comes back.
func (c *Client) Wrap(ctx context.Context, path string, data map[string]any, ttl time.Duration) (Wrapped, error) {
	if ttl <= 0 {
		return Wrapped{}, fmt.Errorf("wrap the answer of %s for %s: must be more than nothing", path, ttl)
	}
	r := write(path, data)
	r.wrap = ttl
	a, err := c.call(ctx, r)
	if err != nil {
		return Wrapped{}, err
	}
	w := a.WrapInfo
	if w.Token == "" {
		return Wrapped{}, fmt.Errorf("PUT %s: the answer is wrapped without a token", path)
	}
	return Wrapped{Token: w.Token, TTL: time.Duration(w.TTL) * time.Second, Created: w.CreationTime, Path: w.CreationPath}, nil
}

// Unwrap fetches what Wrap left. It works once, and needs no other token. When
// it is uncertain, what was wrapped may be gone.
func (c *Client) Unwrap(ctx context.Context, token string) (Data, error) {
	if token == "" {
		return nil, errors.New("unwrap: no token")
	}
	a, err := c.call(ctx, request{method: http.MethodPut, path: "sys/wrapping/unwrap", token: token})
	if err != nil {
		return nil, err
	}
	if a.Data == nil {
		return nil, fmt.Errorf("PUT sys/wrapping/unwrap: %w", ErrNoData)
	}
	return a.Data, nil
}

// Login sends credentials to path and makes every later call use the token that
// comes back. https://developer.hashicorp.com/vault/api-docs/auth
func (c *Client) Login(ctx context.Context, path string, data map[string]any) error {
	token, err := c.newToken(ctx, path, data)
	if err == nil {
		c.SetToken(token)
	}
	return err
}

// newToken writes where the answer is a token.
func (c *Client) newToken(ctx context.Context, path string, data map[string]any) (string, error) {
	a, err := c.call(ctx, write(path, data))
	if err != nil {
		return "", err
	}
	if a.Auth == nil || a.Auth.ClientToken == "" {
		return "", errors.New("the answer holds no token")
	}
	return a.Auth.ClientToken, nil
}
