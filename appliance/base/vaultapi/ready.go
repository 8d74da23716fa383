package vaultapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"strongroom.example/config"
)

// pollEvery is how often a wait looks again. Vault is local and the answer is
// small, so this is what the operator notices of an unseal.
const pollEvery = 25 * time.Millisecond

// WaitListening returns once Vault answers at all, sealed or not, initialised
// or not. The error of a wait that ctx ended says what the last answer was.
func (c *Client) WaitListening(ctx context.Context) error {
	return c.wait(ctx, "answers", func(*Health) bool { return true })
}

// WaitActive returns once Vault is initialised, unsealed and the active node.
func (c *Client) WaitActive(ctx context.Context) error {
	return c.wait(ctx, "is unsealed and active", func(h *Health) bool {
		return h.Initialized && !h.Sealed && !h.Standby
	})
}

// Health is what Vault tells of itself to anybody.
// https://developer.hashicorp.com/vault/api-docs/system/health
type Health struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Version     string `json:"version"`
	// Product is whose server answers; empty is Vault.
	Product     config.Product `json:"-"`
	ClusterName string         `json:"cluster_name"`
	ClusterID   string         `json:"cluster_id"`
}

// Server is whose it is, and its version.
func (h Health) Server() config.Server {
	return config.Server{Product: h.Product.Known(), Version: h.Version}
}

// Health asks for it. Sealed, standby and uninitialised are answers, no errors.
func (c *Client) Health(ctx context.Context) (*Health, error) {
	const one = "299" // any state: the body is what counts
	r := request{method: http.MethodGet, path: "sys/health", query: url.Values{
		"uninitcode": {one}, "sealedcode": {one}, "standbycode": {one}, "drsecondarycode": {one},
		"performancestandbycode": {one}, "removedcode": {one}, "haunhealthycode": {one},
	}}
	status, body, err := c.do(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("read Vault's health: %w", err)
	}
	if status != http.StatusOK && status != 299 {
		return nil, fmt.Errorf("read Vault's health: %w", refusal(r, status, body))
	}
	var h struct {
		Health
		Initialized *bool `json:"initialized"` // absent is not false: it is another server
		// Which product it is, no server says. Vault tells since 1.17 whether it is the
		// enterprise's, OpenBao never does; both tell of replication.
		Enterprise  *bool   `json:"enterprise"`
		Replication *string `json:"replication_dr_mode"`
	}
	if err := decode(body, &h); err != nil || h.Initialized == nil {
		return nil, fmt.Errorf("read Vault's health: %w", ErrNotVault)
	}
	h.Health.Initialized = *h.Initialized
	if h.Enterprise == nil && h.Replication != nil {
		h.Product = config.ProductOpenBao
	}
	return &h.Health, nil
}

// SealStatus is what Vault tells of its seal to anybody.
// https://developer.hashicorp.com/vault/api-docs/system/seal-status
type SealStatus struct {
	Sealed bool   `json:"sealed"`
	Type   string `json:"type"` // "shamir" is by hand
	// Shares and Threshold are of the recovery key; 0 before there is one.
	Shares    int `json:"n"`
	Threshold int `json:"t"`
}

// SealStatus asks for it.
func (c *Client) SealStatus(ctx context.Context) (SealStatus, error) {
	var s struct {
		SealStatus
		Sealed *bool `json:"sealed"`
	}
	err := c.sys(ctx, request{method: http.MethodGet, path: "sys/seal-status"}, &s)
	if err == nil && (s.Sealed == nil || s.Type == "") {
		err = ErrNoData
	}
	if err != nil {
		return SealStatus{}, fmt.Errorf("read the state of Vault's seal: %w", err)
	}
	s.SealStatus.Sealed = *s.Sealed
	return s.SealStatus, nil
}

func (c *Client) wait(ctx context.Context, what string, reached func(*Health) bool) error {
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
			last = fmt.Errorf("initialised=%t sealed=%t standby=%t", h.Initialized, h.Sealed, h.Standby)
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
