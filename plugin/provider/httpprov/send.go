package httpprov

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/safehttp"
)

const (
	userAgent   = "strongroom-apikeys"
	maxBodySent = 256 << 10 // bytes
)

// rendered is a request with every reference filled in.
type rendered struct {
	*http.Request
	body  []byte
	masks *masker
}

// render fills in r. A fault here is the key's parameters', or a value that
// fits no header or path: nothing was sent.
func (r *request) render(s scope, dry bool) (*rendered, error) {
	out := &rendered{masks: &masker{}}
	for ref, v := range s {
		if text, ok := v.(string); ok && secret(ref) {
			out.masks.add(text, url.QueryEscape(text), url.PathEscape(text))
		}
	}
	text, err := r.url.render(s, escapeSegment)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme+"://"+u.Host+"/" != r.base {
		return nil, errors.New("url: the path is unusable")
	}
	if len(r.query) > 0 {
		q, err := values("query", r.query, s)
		if err != nil {
			return nil, err
		}
		u.RawQuery = q.Encode()
	}
	contentType, err := r.body.render(s, out)
	if err != nil {
		return nil, err
	}
	out.Request, err = http.NewRequest(r.method, u.String(), bytes.NewReader(out.body))
	if err != nil {
		return nil, errors.New("the request cannot be built")
	}
	out.Header.Set("Accept", "application/json")
	out.Header.Set("User-Agent", userAgent)
	if contentType != "" {
		out.Header.Set("Content-Type", contentType)
	}
	set := func(name, value string) error {
		if hasControl(value) || strings.TrimSpace(value) != value {
			return fmt.Errorf("headers.%s: holds a control character, or blanks at an end", name)
		}
		out.Header.Set(name, value)
		return nil
	}
	for _, h := range r.headers {
		value, present, err := h.value.renderOptional(s)
		if err != nil {
			return nil, fmt.Errorf("headers.%s: %w", h.name, err)
		}
		if !present {
			continue
		}
		if err := set(h.name, value); err != nil {
			return nil, err
		}
	}
	if err := r.auth.set(s, set, out.masks, dry); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	return out, nil
}

func values(where string, pairs []pair, s scope) (url.Values, error) {
	q := url.Values{}
	for _, p := range pairs {
		text, present, err := p.value.renderOptional(s)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", where, p.name, err)
		}
		if present {
			q.Set(p.name, text)
		}
	}
	return q, nil
}

func (b body) render(s scope, out *rendered) (contentType string, err error) {
	switch b.kind {
	case "json":
		v, _, err := b.json.build(s)
		if err != nil {
			return "", fmt.Errorf("json: %w", err)
		}
		if out.body, err = json.Marshal(v); err != nil {
			return "", errors.New("json: cannot be written")
		}
		contentType = "application/json"
	case "form", "multipart":
		q, err := values(b.kind, b.form, s)
		if err != nil {
			return "", err
		}
		if b.kind == "form" {
			out.body, contentType = []byte(q.Encode()), "application/x-www-form-urlencoded"
			break
		}
		if contentType, err = multipartBody(q, out); err != nil {
			return "", err
		}
	}
	if b.contentType != "" {
		contentType = b.contentType
	}
	if len(out.body) > maxBodySent {
		return "", fmt.Errorf("the body has %d bytes, at most %d are allowed", len(out.body), maxBodySent)
	}
	return contentType, nil
}

func multipartBody(q url.Values, out *rendered) (string, error) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.WriteField(name, q.Get(name)); err != nil {
			return "", errors.New("multipart: cannot be written")
		}
	}
	if err := w.Close(); err != nil {
		return "", errors.New("multipart: cannot be written")
	}
	out.body = buf.Bytes()
	return w.FormDataContentType(), nil
}

// send is sendOnce with an access token, where auth wants one. A token that was
// kept may have been ended by the service meanwhile: then a request that may
// be repeated is sent once more, with a new one.
func (p *Provider) send(ctx context.Context, r *request, s scope, move func(*url.URL) error, unsure bool) (*safehttp.Response, *masker, error) {
	o := r.auth.oauth
	if o == nil {
		return p.sendOnce(ctx, r, s, move, unsure)
	}
	for {
		token, fresh, err := p.access(ctx, o, r.op, s)
		if err != nil {
			return nil, nil, err
		}
		s[refAccess] = token
		res, masks, err := p.sendOnce(ctx, r, s, move, unsure)
		if err != nil || res.Status != http.StatusUnauthorized {
			return res, masks, err
		}
		o.forget(token)
		switch {
		case fresh:
			return res, masks, nil
		case unsure:
			return nil, nil, &provider.Error{Op: r.op, Kind: provider.KindTransient, Status: res.Status,
				Msg: "the service no longer takes the access token; the next request asks for another"}
		}
	}
}

// sendOnce performs one request. unsure tells that a lost answer leaves the
// outcome open, as it does for create; reading and revoking can simply be done
// again.
func (p *Provider) sendOnce(ctx context.Context, r *request, s scope, move func(*url.URL) error, unsure bool) (*safehttp.Response, *masker, error) {
	fault := func(kind provider.Kind, msg string, err error) error {
		return &provider.Error{Op: r.op, Kind: kind, Msg: msg, Err: err}
	}
	out, err := r.render(s, false)
	if err != nil {
		return nil, nil, fault(provider.KindRejected, err.Error(), nil)
	}
	if move != nil {
		if err := move(out.URL); err != nil {
			return nil, nil, fault(provider.KindTransient, err.Error(), nil)
		}
	}
	res, err := p.client.Do(ctx, out.Request)
	if err == nil {
		return res, out.masks, nil
	}
	var e *safehttp.Error
	kind := provider.KindTransient
	if !errors.As(err, &e) || e.Sent && unsure {
		kind = provider.KindUncertain
	}
	pe := &provider.Error{Op: r.op, Kind: kind, Msg: err.Error()}
	if e != nil {
		pe.Status, pe.Err = e.Status, e.Err
	}
	return nil, nil, pe
}

// said is the service's own words, masked.
func (p *Provider) said(body []byte, masks *masker) string {
	if p.message == nil {
		return ""
	}
	doc, err := decode(body)
	if err != nil {
		return ""
	}
	text := p.message.text(doc)
	if text == "" {
		return ""
	}
	return strconv.Quote(masks.message(text))
}

// retryAfter reads Retry-After or else the service's own header, which holds
// seconds or a Unix time.
func retryAfter(h http.Header, own string, now time.Time) time.Duration {
	if text := h.Get("Retry-After"); text != "" || own == "" {
		return safehttp.RetryAfter(text, now)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(h.Get(own)), 10, 64)
	if err == nil && n > 1e9 { // a time since 1970, not a wait of 30 years
		n -= now.Unix()
	}
	if err != nil || n < 0 || n > int64(safehttp.MaxRetryAfter/time.Second) {
		return 0
	}
	return time.Duration(n) * time.Second
}
