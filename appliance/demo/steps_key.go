package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"
)

// keyName is app/environment/name, as a policy would grant it.
const keyName = "demo/production/billing"

// key is what a client reads. value is secret.
type key struct {
	value    string
	version  int
	etag     string
	cacheTTL time.Duration
}

func (r *run) issueKey(ctx context.Context) (string, error) {
	logical := r.user.API().Logical()
	if _, err := logical.WriteWithContext(ctx, "apikeys/providers/internal", map[string]any{"type": "generated"}); err != nil {
		return "", fmt.Errorf("make provider: %w", err)
	}
	if _, err := logical.WriteWithContext(ctx, "apikeys/keys/"+keyName, map[string]any{"provider": "internal"}); err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	k, err := r.readKey(ctx, 0)
	if err != nil {
		return "", err
	}
	r.firstKey = k
	return fmt.Sprintf("%s, version %d, read through the front; it may be cached for %s", keyName, k.version, span(k.cacheTTL)), nil
}

func (r *run) rotateKey(ctx context.Context) (string, error) {
	if _, err := r.user.API().Logical().WriteWithContext(ctx, "apikeys/rotate/"+keyName, nil); err != nil {
		return "", fmt.Errorf("rotate: %w", err)
	}
	now, err := r.readKey(ctx, 0)
	if err != nil {
		return "", err
	}
	if now.version != r.firstKey.version+1 || now.value == r.firstKey.value {
		return "", fmt.Errorf("after the rotation version %d is current, want another key as version %d", now.version, r.firstKey.version+1)
	}
	old, err := r.readKey(ctx, r.firstKey.version)
	if err != nil {
		return "", fmt.Errorf("read version %d in its grace period: %w", r.firstKey.version, err)
	}
	if old.value != r.firstKey.value {
		return "", fmt.Errorf("version %d is not the key that it was", old.version)
	}
	for _, k := range []key{now, old} {
		if err := r.verifyKey(ctx, k); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("version %d is current; version %d is still valid, for %s more", now.version, old.version, span(old.cacheTTL)), nil
}

// verifyKey asks Vault, as the service that takes these keys would, whether
// the key is valid.
func (r *run) verifyKey(ctx context.Context, k key) error {
	s, err := r.user.API().Logical().WriteWithContext(ctx, "apikeys/verify/"+keyName, map[string]any{"key": k.value})
	if err != nil {
		return fmt.Errorf("verify version %d: %w", k.version, err)
	}
	if s == nil || s.Data["valid"] != true {
		return fmt.Errorf("version %d does not verify, and it should", k.version)
	}
	return nil
}

func (r *run) conditionalRead(ctx context.Context) (string, error) {
	k, err := r.readKey(ctx, 0)
	if err != nil {
		return "", err
	}
	c, err := r.user.API().Clone()
	if err != nil {
		return "", fmt.Errorf("conditional read: %w", err)
	}
	c.SetToken(r.user.API().Token())
	c.AddHeader("If-None-Match", k.etag)
	// Raw, because a parsed answer does not tell its status.
	resp, err := c.Logical().ReadRawWithContext(ctx, "apikeys/creds/"+keyName)
	if err != nil {
		return "", fmt.Errorf("conditional read: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotModified {
		return "", fmt.Errorf("conditional read with the current ETag answers %d, want 304", resp.StatusCode)
	}
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 {
		return "", fmt.Errorf("the 304 has a body: %w", err)
	}
	return fmt.Sprintf("If-None-Match: %s → HTTP 304, no secret in it", k.etag), nil
}

// readKey reads a version of the key through the front; 0 is the current one.
func (r *run) readKey(ctx context.Context, version int) (key, error) {
	query := map[string][]string{}
	if version != 0 {
		query["version"] = []string{strconv.Itoa(version)}
	}
	s, err := r.user.API().Logical().ReadWithDataWithContext(ctx, "apikeys/creds/"+keyName, query)
	if err != nil {
		return key{}, fmt.Errorf("read %q: %w", keyName, err)
	}
	if s == nil {
		return key{}, fmt.Errorf("read %q: there is no such key", keyName)
	}
	var k key
	var errs [4]error
	k.value, errs[0] = text(s, "key")
	k.etag, errs[1] = text(s, "etag")
	k.version, errs[2] = number(s, "version")
	var seconds int
	seconds, errs[3] = number(s, "cache_ttl")
	k.cacheTTL = time.Duration(seconds) * time.Second
	return k, errors.Join(errs[:]...)
}

// span is a duration for a person: days where it is days.
func span(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
	return d.Round(time.Second).String()
}

// text is a string field of an answer. The error never shows the value.
func text(s *api.Secret, field string) (string, error) {
	if s != nil {
		if v, ok := s.Data[field].(string); ok && v != "" {
			return v, nil
		}
	}
	return "", fmt.Errorf("the answer has no %q", field)
}

// number is an integer field of an answer.
func number(s *api.Secret, field string) (int, error) {
	n, ok := s.Data[field].(json.Number)
	if !ok {
		return 0, fmt.Errorf("the answer has no number %q", field)
	}
	i, err := n.Int64()
	if err != nil {
		return 0, fmt.Errorf("the answer's %q is no integer: %w", field, err)
	}
	return int(i), nil
}
