package demo

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
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
	if _, err := r.user.Write(ctx, "apikeys/providers/internal", map[string]any{"type": "generated"}); err != nil {
		return "", fmt.Errorf("make provider: %w", err)
	}
	if _, err := r.user.Write(ctx, "apikeys/keys/"+keyName, map[string]any{"provider": "internal"}); err != nil {
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
	if _, err := r.user.Write(ctx, "apikeys/rotate/"+keyName, nil); err != nil {
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
	data, err := r.user.Write(ctx, "apikeys/verify/"+keyName, map[string]any{"key": k.value})
	var valid bool
	if err == nil {
		valid, err = data.Bool("valid")
	}
	if err != nil {
		return fmt.Errorf("verify version %d: %w", k.version, err)
	}
	if !valid {
		return fmt.Errorf("version %d does not verify, and it should", k.version)
	}
	return nil
}

func (r *run) conditionalRead(ctx context.Context) (string, error) {
	k, err := r.readKey(ctx, 0)
	if err != nil {
		return "", err
	}
	unchanged, err := r.user.Unchanged(ctx, "apikeys/creds/"+keyName, k.etag)
	if err != nil {
		return "", fmt.Errorf("conditional read: %w", err)
	}
	if !unchanged {
		return "", errors.New("a conditional read with the current ETag is answered with the key, want 304")
	}
	return fmt.Sprintf("If-None-Match: %s → HTTP 304, no secret in it", k.etag), nil
}

// readKey reads a version of the key through the front; 0 is the current one.
func (r *run) readKey(ctx context.Context, version int) (key, error) {
	query := url.Values{}
	if version != 0 {
		query.Set("version", strconv.Itoa(version))
	}
	data, err := r.user.ReadWith(ctx, "apikeys/creds/"+keyName, query)
	if err != nil {
		return key{}, fmt.Errorf("read %q: %w", keyName, err)
	}
	var k key
	var errs [4]error
	var n, seconds int64
	k.value, errs[0] = data.Text("key")
	k.etag, errs[1] = data.Text("etag")
	n, errs[2] = data.Number("version")
	seconds, errs[3] = data.Number("cache_ttl")
	k.version, k.cacheTTL = int(n), time.Duration(seconds)*time.Second
	return k, errors.Join(errs[:]...)
}

// span is a duration for a person: days where it is days.
func span(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
	return d.Round(time.Second).String()
}
