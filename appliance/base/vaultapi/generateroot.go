package vaultapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/api"
)

// ErrFewShares is returned by GenerateRoot when the recovery keys are fewer than
// Vault asks for.
var ErrFewShares = errors.New("too few recovery keys")

// GenerateRoot makes a root token with the recovery keys of a Vault that
// unseals itself, and returns it. An attempt that is under way is given up.
// https://developer.hashicorp.com/vault/api-docs/system/generate-root
func (c *Client) GenerateRoot(ctx context.Context, shares []string) (token string, err error) {
	sys := c.api.Sys()
	if err := sys.GenerateRootCancelWithContext(ctx); err != nil {
		return "", fmt.Errorf("make a root token: %w", err)
	}
	status, err := sys.GenerateRootInitWithContext(ctx, "", "")
	if err != nil {
		return "", fmt.Errorf("make a root token: %w", err)
	}
	defer func() {
		if err != nil {
			// Nobody else could go on with it: the one-time password is lost.
			err = errors.Join(err, sys.GenerateRootCancelWithContext(context.WithoutCancel(ctx)))
		}
	}()
	if len(shares) < status.Required {
		return "", fmt.Errorf("make a root token: %w: %d of the %d that Vault asks for", ErrFewShares, len(shares), status.Required)
	}
	otp, required := status.OTP, status.Required
	for _, share := range shares[:required] {
		if status, err = sys.GenerateRootUpdateWithContext(ctx, share, status.Nonce); err != nil {
			return "", fmt.Errorf("make a root token: %w", err)
		}
	}
	if !status.Complete {
		return "", errors.New("make a root token: Vault is not content with the recovery keys")
	}
	return decodeToken(status, otp)
}

// decodeToken takes the one-time password off.
func decodeToken(s *api.GenerateRootStatusResponse, otp string) (string, error) {
	encoded := s.EncodedToken
	if encoded == "" {
		encoded = s.EncodedRootToken
	}
	raw, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil || len(raw) == 0 || len(raw) != len(otp) {
		// Not quoted: with the one-time password it is the token.
		return "", errors.New("make a root token: Vault's answer is no encoded token")
	}
	for i := range raw {
		raw[i] ^= otp[i]
	}
	return string(raw), nil
}

// LoginUserpass logs in at auth/userpass and makes every later call use the
// token that comes back.
func (c *Client) LoginUserpass(ctx context.Context, user, password string) error {
	s, err := c.api.Logical().WriteWithContext(ctx, "auth/userpass/login/"+user, map[string]any{"password": password})
	if err != nil {
		return fmt.Errorf("log in as %q: %w", user, err)
	}
	if s == nil || s.Auth == nil || s.Auth.ClientToken == "" {
		return fmt.Errorf("log in as %q: the answer holds no token", user)
	}
	c.api.SetToken(s.Auth.ClientToken)
	return nil
}
