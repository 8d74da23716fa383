package migrate

import (
	"context"
	"errors"
	"fmt"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
)

// Store is what a migration needs of Vault.
type Store interface {
	// Read is kv.Store's.
	Read(ctx context.Context, mount, path string) (kv.Stored, error)
	// ReadVersion is kv.Store's.
	ReadVersion(ctx context.Context, mount, path string, version int) (kv.Stored, error)
	// Write is kv.Store's.
	Write(ctx context.Context, mount, path string, data map[string]any, cas int) (int, error)
	// DeleteVersion is kv.Store's.
	DeleteVersion(ctx context.Context, mount, path string, version int) error
	// Annotate is kv.Store's, but that who may not write metadata passes, as
	// names can be derived.
	Annotate(ctx context.Context, mount, path string, notes map[string]string) error
	// APIKey is the current key at a path of the apikeys engine; ok is false if
	// there is none.
	APIKey(ctx context.Context, mount, path string) (key string, ok bool, err error)
	// ImportAPIKey makes key the current one.
	ImportAPIKey(ctx context.Context, mount, path, key string) error
	// DatabaseRole says whether the role is defined.
	DatabaseRole(ctx context.Context, mount, role string) (bool, error)
}

// Vault is the real Store.
type Vault struct {
	kv.Vault
	c *vaultapi.Client
}

var _ Store = (*Vault)(nil)

// NewVault uses c's token.
func NewVault(c *vaultapi.Client) *Vault { return &Vault{kv.New(c), c} }

// Annotate is described at Store.
func (v *Vault) Annotate(ctx context.Context, mount, path string, notes map[string]string) error {
	err := v.Vault.Annotate(ctx, mount, path, notes)
	if vaultapi.IsDenied(err) {
		return nil
	}
	return err
}

// APIKey is described at Store.
func (v *Vault) APIKey(ctx context.Context, mount, path string) (string, bool, error) {
	_, err := v.c.Read(ctx, mount+"/keys/"+path)
	if vaultapi.IsNotFound(err) {
		return "", false, fmt.Errorf("API key %s/%s: %w", mount, path, ErrNoDefinition)
	}
	if err != nil {
		return "", false, fmt.Errorf("read the definition of API key %s/%s: %w", mount, path, err)
	}
	got, err := v.c.Read(ctx, mount+"/creds/"+path)
	if vaultapi.IsNotFound(err) || vaultapi.IsBadRequest(err) {
		return "", false, nil // defined, and without a version yet
	}
	var key string
	if err == nil {
		key, err = got.Text("key")
	}
	if err != nil {
		return "", false, fmt.Errorf("read API key %s/%s: %w", mount, path, err)
	}
	return key, true, nil
}

// ErrNoDefinition is an API key that nobody has declared.
var ErrNoDefinition = errors.New("there is no key of this name")

// ImportAPIKey is described at Store.
func (v *Vault) ImportAPIKey(ctx context.Context, mount, path, key string) error {
	if _, err := v.c.Write(ctx, mount+"/import/"+path, map[string]any{"key": key}); err != nil {
		return fmt.Errorf("import API key %s/%s: %w", mount, path, err)
	}
	return nil
}

// DatabaseRole is described at Store.
func (v *Vault) DatabaseRole(ctx context.Context, mount, role string) (bool, error) {
	for _, kind := range []string{"roles", "static-roles"} {
		_, err := v.c.Read(ctx, mount+"/"+kind+"/"+role)
		if err == nil {
			return true, nil
		}
		if !vaultapi.IsNotFound(err) {
			return false, fmt.Errorf("read database role %s/%s: %w", mount, role, err)
		}
	}
	return false, nil
}
