package doctor

import (
	"context"
	"errors"
	"fmt"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/watch/evidence"
)

// RealVault is Vault through a client that is logged in.
type RealVault struct{ Client *vaultapi.Client }

var _ Vault = RealVault{}

// Health implements Vault.
func (v RealVault) Health(ctx context.Context) (evidence.Health, error) {
	return evidence.ReadHealth(ctx, v.Client)
}

// Keys implements Vault.
func (v RealVault) Keys(ctx context.Context, mount string) (evidence.Keys, error) {
	return evidence.ReadKeys(ctx, v.Client, mount)
}

// Read implements Vault. A path that nobody answers is an error.
func (v RealVault) Read(ctx context.Context, path string, query map[string][]string) (map[string]any, error) {
	data, err := v.Client.ReadWith(ctx, path, query)
	if vaultapi.IsNotFound(err) {
		return nil, nil
	}
	return data, err
}

// List implements Vault.
func (v RealVault) List(ctx context.Context, path string) ([]string, error) {
	return v.Client.List(ctx, path)
}

// Token implements Vault.
func (v RealVault) Token(ctx context.Context, accessor string) (map[string]any, error) {
	data, err := v.Client.LookupAccessor(ctx, accessor)
	if errors.Is(err, vaultapi.ErrTokenGone) {
		return nil, nil
	}
	if err == nil && data == nil {
		err = vaultapi.ErrNoData
	}
	if err != nil {
		return nil, fmt.Errorf("look up a token: %w", err)
	}
	return data, nil
}
