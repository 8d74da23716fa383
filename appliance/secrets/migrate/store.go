package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
)

// Store is what a migration needs of Vault.
type Store interface {
	// Read the newest version. A path that was never written has version 0;
	// one whose newest version is deleted has no data.
	Read(ctx context.Context, mount, path string) (Stored, error)
	// Write data as the version after cas; ErrChanged if there is another one
	// already. It gives the new version.
	Write(ctx context.Context, mount, path string, data map[string]any, cas int) (int, error)
	// ReadVersion reads an earlier version; no data if it is gone.
	ReadVersion(ctx context.Context, mount, path string, version int) (Stored, error)
	// Annotate adds to the custom metadata of a path, written or not: what
	// others have noted there stays. Who may not write metadata passes, as
	// names can be derived.
	Annotate(ctx context.Context, mount, path string, notes map[string]string) error
	// DeleteVersion takes back one version; Vault's undelete brings it again.
	DeleteVersion(ctx context.Context, mount, path string, version int) error
	// APIKey is the current key at a path of the apikeys engine; ok is false if
	// there is none.
	APIKey(ctx context.Context, mount, path string) (key string, ok bool, err error)
	// ImportAPIKey makes key the current one.
	ImportAPIKey(ctx context.Context, mount, path, key string) error
	// DatabaseRole says whether the role is defined.
	DatabaseRole(ctx context.Context, mount, role string) (bool, error)
}

// Stored is one version of a KV secret.
type Stored struct {
	Version int
	Data    map[string]any
}

// ErrChanged is a write that somebody else was faster with.
var ErrChanged = errors.New("somebody else has written this secret meanwhile")

// Vault is the real Store.
type Vault struct{ c *vaultapi.Client }

var _ Store = (*Vault)(nil)

// NewVault uses c's token.
func NewVault(c *vaultapi.Client) *Vault { return &Vault{c} }

// Read is described at Store.
func (v *Vault) Read(ctx context.Context, mount, path string) (Stored, error) {
	return v.read(ctx, mount, path, nil)
}

// ReadVersion is described at Store.
func (v *Vault) ReadVersion(ctx context.Context, mount, path string, version int) (Stored, error) {
	return v.read(ctx, mount, path, map[string][]string{"version": {strconv.Itoa(version)}})
}

func (v *Vault) read(ctx context.Context, mount, path string, query map[string][]string) (Stored, error) {
	s, err := v.c.API().Logical().ReadWithDataWithContext(ctx, mount+"/data/"+path, query)
	if err != nil {
		return Stored{}, fmt.Errorf("read %s/%s: %w", mount, path, err)
	}
	if s == nil {
		return Stored{}, nil
	}
	var out Stored
	if meta, ok := s.Data["metadata"].(map[string]any); ok {
		if out.Version, err = number(meta["version"]); err != nil {
			return Stored{}, fmt.Errorf("read %s/%s: %w", mount, path, err)
		}
	} else {
		return Stored{}, fmt.Errorf("read %s/%s: no KV version 2 engine is mounted there", mount, path)
	}
	out.Data, _ = s.Data["data"].(map[string]any)
	return out, nil
}

// Write is described at Store.
func (v *Vault) Write(ctx context.Context, mount, path string, data map[string]any, cas int) (int, error) {
	s, err := v.c.API().Logical().WriteWithContext(ctx, mount+"/data/"+path, map[string]any{
		"data": data, "options": map[string]any{"cas": cas},
	})
	if err != nil {
		// Vault has no code of its own for this.
		if answer := (*api.ResponseError)(nil); errors.As(err, &answer) && answer.StatusCode == http.StatusBadRequest &&
			strings.Contains(strings.Join(answer.Errors, " "), "check-and-set") {
			return 0, fmt.Errorf("write %s/%s: %w", mount, path, ErrChanged)
		}
		return 0, fmt.Errorf("write %s/%s: %w", mount, path, err)
	}
	if s == nil {
		return 0, fmt.Errorf("write %s/%s: the answer has no version", mount, path)
	}
	version, err := number(s.Data["version"])
	if err != nil {
		return 0, fmt.Errorf("write %s/%s: %w", mount, path, err)
	}
	return version, nil
}

// Annotate is described at Store.
func (v *Vault) Annotate(ctx context.Context, mount, path string, notes map[string]string) error {
	data := map[string]any{"custom_metadata": notes}
	_, err := v.c.API().Logical().JSONMergePatch(ctx, mount+"/metadata/"+path, data)
	answer := (*api.ResponseError)(nil)
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		_, err = v.c.API().Logical().WriteWithContext(ctx, mount+"/metadata/"+path, data)
	}
	if errors.As(err, &answer) && answer.StatusCode == http.StatusForbidden {
		return nil
	}
	if err != nil {
		return fmt.Errorf("annotate %s/%s: %w", mount, path, err)
	}
	return nil
}

// DeleteVersion is described at Store.
func (v *Vault) DeleteVersion(ctx context.Context, mount, path string, version int) error {
	_, err := v.c.API().Logical().WriteWithContext(ctx, mount+"/delete/"+path, map[string]any{"versions": []int{version}})
	if err != nil {
		return fmt.Errorf("delete version %d of %s/%s: %w", version, mount, path, err)
	}
	return nil
}

// APIKey is described at Store.
func (v *Vault) APIKey(ctx context.Context, mount, path string) (string, bool, error) {
	s, err := v.c.API().Logical().ReadWithContext(ctx, mount+"/keys/"+path)
	if err != nil {
		return "", false, fmt.Errorf("read the definition of API key %s/%s: %w", mount, path, err)
	}
	if s == nil {
		return "", false, fmt.Errorf("API key %s/%s: %w", mount, path, ErrNoDefinition)
	}
	s, err = v.c.API().Logical().ReadWithContext(ctx, mount+"/creds/"+path)
	if answer := (*api.ResponseError)(nil); errors.As(err, &answer) && (answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusBadRequest) {
		return "", false, nil // defined, and without a version yet
	}
	if err != nil {
		return "", false, fmt.Errorf("read API key %s/%s: %w", mount, path, err)
	}
	if s == nil {
		return "", false, nil
	}
	key, ok := s.Data["key"].(string)
	return key, ok, nil
}

// ErrNoDefinition is an API key that nobody has declared.
var ErrNoDefinition = errors.New("there is no key of this name")

// ImportAPIKey is described at Store.
func (v *Vault) ImportAPIKey(ctx context.Context, mount, path, key string) error {
	_, err := v.c.API().Logical().WriteWithContext(ctx, mount+"/import/"+path, map[string]any{"key": key})
	if err != nil {
		return fmt.Errorf("import API key %s/%s: %w", mount, path, err)
	}
	return nil
}

// DatabaseRole is described at Store.
func (v *Vault) DatabaseRole(ctx context.Context, mount, role string) (bool, error) {
	for _, kind := range []string{"roles", "static-roles"} {
		s, err := v.c.API().Logical().ReadWithContext(ctx, mount+"/"+kind+"/"+role)
		if err != nil {
			return false, fmt.Errorf("read database role %s/%s: %w", mount, role, err)
		}
		if s != nil {
			return true, nil
		}
	}
	return false, nil
}

func number(v any) (int, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, fmt.Errorf("a version of type %T in Vault's answer", v)
	}
	i, err := n.Int64()
	if err != nil {
		return 0, fmt.Errorf("a version in Vault's answer: %w", err)
	}
	return int(i), nil
}
