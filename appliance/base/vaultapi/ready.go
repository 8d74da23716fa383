package vaultapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"
)

// pollEvery is how often a wait looks again. Vault is local and the answer is
// small, so this is what the operator notices of an unseal.
const pollEvery = 25 * time.Millisecond

// WaitListening returns once Vault answers at all, sealed or not, initialised
// or not. The error of a wait that ctx ended says what the last answer was.
func (c *Client) WaitListening(ctx context.Context) error {
	return c.wait(ctx, "answers", func(*api.HealthResponse) bool { return true })
}

// WaitActive returns once Vault is initialised, unsealed and the active node.
func (c *Client) WaitActive(ctx context.Context) error {
	return c.wait(ctx, "is unsealed and active", func(h *api.HealthResponse) bool {
		return h.Initialized && !h.Sealed && !h.Standby
	})
}

// Health is Vault's own: https://developer.hashicorp.com/vault/api-docs/system/health
func (c *Client) Health(ctx context.Context) (*api.HealthResponse, error) {
	// The library turns every state into HTTP 299 so that the body is read.
	h, err := c.api.Sys().HealthWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("read Vault's health: %w", err)
	}
	return h, nil
}

func (c *Client) wait(ctx context.Context, what string, reached func(*api.HealthResponse) bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := errors.New("it has not answered yet")
	for {
		// A Vault that is just coming up may accept and never answer.
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		h, err := c.Health(one)
		cancel()
		switch {
		case err == nil && reached(h):
			return nil
		case err == nil:
			last = fmt.Errorf("initialized=%t sealed=%t standby=%t", h.Initialized, h.Sealed, h.Standby)
		case ctx.Err() == nil:
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until Vault %s: %w (last seen: %w)", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
