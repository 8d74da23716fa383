package vaultapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
)

// ErrFewShares is returned by GenerateRoot when the recovery keys are fewer than
// Vault asks for.
var ErrFewShares = errors.New("too few recovery keys")

// GenerateRoot makes a root token with the recovery keys of a Vault that
// unseals itself, and returns it. An attempt that is under way is given up. Vault 2.x
// refuses that (WantsToken) to a client without a token: wayin.Door opens it.
// https://developer.hashicorp.com/vault/api-docs/system/generate-root
func (c *Client) GenerateRoot(ctx context.Context, shares []string) (token string, err error) {
	cancel := func(ctx context.Context) error {
		return c.sys(ctx, request{method: http.MethodDelete, path: attempt}, nil)
	}
	if err := cancel(ctx); err != nil {
		return "", fmt.Errorf("make a root token: %w", err)
	}
	var s rootStatus
	if err := c.sys(ctx, request{method: http.MethodPut, path: attempt, body: map[string]any{}}, &s); err != nil {
		return "", fmt.Errorf("make a root token: %w", err)
	}
	defer func() {
		if err != nil {
			// Nobody else could go on with it: the one-time password is lost.
			err = errors.Join(err, cancel(context.WithoutCancel(ctx)))
		}
	}()
	if s.Required < 1 {
		return "", fmt.Errorf("make a root token: %w", ErrNoData)
	}
	if len(shares) < s.Required {
		return "", fmt.Errorf("make a root token: %w: %d of the %d that Vault asks for", ErrFewShares, len(shares), s.Required)
	}
	otp, nonce := s.OTP, s.Nonce
	for _, share := range shares[:s.Required] {
		s = rootStatus{}
		if err := c.sys(ctx, request{method: http.MethodPut, path: update, body: map[string]any{"key": share, "nonce": nonce}}, &s); err != nil {
			return "", fmt.Errorf("make a root token: %w", err)
		}
	}
	if !s.Complete {
		return "", errors.New("make a root token: Vault is not content with the recovery keys")
	}
	return decodeToken(s, otp)
}

// RecoveryKeysSuffice says whether Vault begins to make a root token for a caller
// without a token: always before 2.0, and since then where its configuration has it
// so.
func (c *Client) RecoveryKeysSuffice(ctx context.Context) (bool, error) {
	err := c.sys(ctx, request{method: http.MethodGet, path: attempt}, nil)
	if WantsToken(err) {
		return false, nil
	}
	return err == nil, err
}

const (
	attempt = "sys/generate-root/attempt"
	update  = "sys/generate-root/update"
)

// rootStatus is Vault's view of an attempt.
type rootStatus struct {
	Nonce        string `json:"nonce"`
	OTP          string `json:"otp"`
	Required     int    `json:"required"`
	Complete     bool   `json:"complete"`
	EncodedToken string `json:"encoded_token"`
}

// decodeToken takes the one-time password off.
func decodeToken(s rootStatus, otp string) (string, error) {
	raw, err := base64.RawStdEncoding.DecodeString(s.EncodedToken)
	if err != nil || len(raw) == 0 || len(raw) != len(otp) {
		// Not quoted: with the one-time password it is the token.
		return "", errors.New("make a root token: Vault's answer is no encoded token")
	}
	for i := range raw {
		raw[i] ^= otp[i]
	}
	return string(raw), nil
}
