package conformance

import (
	"context"
	"time"

	"strongroom.example/plugin/provider"
)

func (w *watched) Create(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
	key, err := w.Provider.Create(ctx, req)
	w.look("create", err)
	return key, err
}

func (w *watched) List(ctx context.Context, params map[string]any, prefix string) ([]provider.RemoteKey, error) {
	keys, err := w.Provider.List(ctx, params, prefix)
	w.look("list", err)
	return keys, err
}

func (w *watched) Test(ctx context.Context, params map[string]any, key provider.Key) error {
	err := w.Provider.Test(ctx, params, key)
	w.look("test", err)
	return err
}

func (w *watched) Revoke(ctx context.Context, params map[string]any, id string) error {
	err := w.Provider.Revoke(ctx, params, id)
	w.look("revoke", err)
	return err
}

func (w *watched) LastUsed(ctx context.Context, params map[string]any, id string) (time.Time, error) {
	at, err := w.Provider.LastUsed(ctx, params, id)
	w.look("last_used", err)
	return at, err
}
