package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"

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

// Read implements Vault.
func (v RealVault) Read(ctx context.Context, path string, query map[string][]string) (map[string]any, error) {
	s, err := v.Client.API().Logical().ReadWithDataWithContext(ctx, path, query)
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if s == nil {
		return nil, nil
	}
	return s.Data, nil
}

// List implements Vault.
func (v RealVault) List(ctx context.Context, path string) ([]string, error) {
	s, err := v.Client.API().Logical().ListWithContext(ctx, path)
	if err != nil && !notFound(err) {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	if s == nil {
		return nil, nil
	}
	keys, _ := s.Data["keys"].([]any)
	names := make([]string, 0, len(keys))
	for _, k := range keys {
		if name, ok := k.(string); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// Token implements Vault.
func (v RealVault) Token(ctx context.Context, accessor string) (map[string]any, error) {
	s, err := v.Client.API().Logical().WriteWithContext(ctx, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
	var answer *api.ResponseError
	// 403 "invalid accessor" is one that has ended since it was listed; 404 in
	// newer versions.
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusNotFound) && mentions(answer, "invalid accessor") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up a token: %w", err)
	}
	if s == nil {
		return nil, nil
	}
	return s.Data, nil
}

func notFound(err error) bool {
	var answer *api.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// mentions says whether Vault's answer says something: its API has no other way
// to tell an accessor that is gone from a policy that forbids the question.
func mentions(answer *api.ResponseError, text string) bool {
	for _, e := range answer.Errors {
		if strings.Contains(e, text) {
			return true
		}
	}
	return false
}
