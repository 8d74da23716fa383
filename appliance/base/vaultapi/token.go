package vaultapi

import (
	"context"
	"errors"
	"fmt"
)

// LoginAppRole logs in at auth/approle and makes every later call use the
// token that comes back.
func (c *Client) LoginAppRole(ctx context.Context, roleID, secretID string) error {
	s, err := c.api.Logical().WriteWithContext(ctx, "auth/approle/login", map[string]any{
		"role_id": roleID, "secret_id": secretID,
	})
	if err != nil {
		return fmt.Errorf("log in by AppRole: %w", err)
	}
	if s == nil || s.Auth == nil || s.Auth.ClientToken == "" {
		return errors.New("log in by AppRole: the answer holds no token")
	}
	c.api.SetToken(s.Auth.ClientToken)
	return nil
}

// RevokeSelf ends the token in use.
func (c *Client) RevokeSelf(ctx context.Context) error {
	if err := c.api.Auth().Token().RevokeSelfWithContext(ctx, ""); err != nil {
		return fmt.Errorf("revoke own token: %w", err)
	}
	return nil
}
