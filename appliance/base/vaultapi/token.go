package vaultapi

import (
	"context"
	"fmt"
	"time"
)

// LoginAppRole logs in at auth/approle and makes every later call use the
// token that comes back.
func (c *Client) LoginAppRole(ctx context.Context, roleID, secretID string) error {
	if err := c.Login(ctx, "auth/approle/login", map[string]any{"role_id": roleID, "secret_id": secretID}); err != nil {
		return fmt.Errorf("log in by AppRole: %w", err)
	}
	return nil
}

// LoginUserpass logs in at auth/userpass and makes every later call use the
// token that comes back.
func (c *Client) LoginUserpass(ctx context.Context, user, password string) error {
	return c.LoginUserpassAt(ctx, "userpass", user, password)
}

// LoginUserpassAt is LoginUserpass where a userpass is mounted elsewhere.
func (c *Client) LoginUserpassAt(ctx context.Context, mount, user, password string) error {
	if err := c.Login(ctx, "auth/"+mount+"/login/"+user, map[string]any{"password": password}); err != nil {
		return fmt.Errorf("log in as %q: %w", user, err)
	}
	return nil
}

// ChildToken makes a token that ends with the one in use, and after ttl at the
// latest. It is secret.
func (c *Client) ChildToken(ctx context.Context, name string, ttl time.Duration, policies ...string) (string, error) {
	token, err := c.newToken(ctx, "auth/token/create", map[string]any{
		"display_name": name, "ttl": ttl.String(), "policies": policies, "renewable": false,
	})
	if err != nil {
		return "", fmt.Errorf("make a token for %q: %w", name, err)
	}
	return token, nil
}

// LookupSelf is what Vault knows of the token in use.
func (c *Client) LookupSelf(ctx context.Context) (Data, error) {
	return c.Read(ctx, "auth/token/lookup-self")
}

// LookupAccessor is what Vault knows of another token, ErrTokenGone if it has
// ended.
func (c *Client) LookupAccessor(ctx context.Context, accessor string) (Data, error) {
	return c.byAccessor(ctx, "auth/token/lookup-accessor", accessor)
}

// RevokeAccessor ends another token; ErrTokenGone if it has ended by itself.
func (c *Client) RevokeAccessor(ctx context.Context, accessor string) error {
	_, err := c.byAccessor(ctx, "auth/token/revoke-accessor", accessor)
	return err
}

func (c *Client) byAccessor(ctx context.Context, path, accessor string) (Data, error) {
	data, err := c.Write(ctx, path, map[string]any{"accessor": accessor})
	// 403 of older versions, 404 or 400 of newer: only its words tell it from a
	// policy that forbids the question.
	if Says(err, "invalid accessor") {
		return nil, fmt.Errorf("%w: %w", ErrTokenGone, err)
	}
	return data, err
}

// RevokeSelf ends the token in use.
func (c *Client) RevokeSelf(ctx context.Context) error {
	if _, err := c.Write(ctx, "auth/token/revoke-self", nil); err != nil {
		return fmt.Errorf("revoke own token: %w", err)
	}
	return nil
}

// Capabilities are what the token may do at path.
func (c *Client) Capabilities(ctx context.Context, path string) ([]string, error) {
	data, err := c.Write(ctx, "sys/capabilities-self", map[string]any{"paths": []string{path}})
	if err != nil {
		return nil, err
	}
	return data.Strings(path)
}
