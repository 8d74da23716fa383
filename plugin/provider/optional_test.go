package provider_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

// plain is a provider that can do nothing besides, and notes what it is asked.
type plain struct {
	provider.Provider
	asked []string
	err   error
}

func (p *plain) Test(context.Context, map[string]any, provider.Key) error {
	p.asked = append(p.asked, "test")
	return p.err
}

func (p *plain) Revoke(_ context.Context, _ map[string]any, id string) error {
	p.asked = append(p.asked, "revoke "+id)
	return p.err
}

// able can do what is optional, too.
type able struct {
	plain
	ends time.Time
}

func (a *able) Examine(context.Context, map[string]any, provider.Key) (time.Time, bool, error) {
	return a.ends, true, a.err
}

func (a *able) RevokeNamed(_ context.Context, _ map[string]any, id, name string) error {
	a.asked = append(a.asked, "revoke "+id+" named "+name)
	return a.err
}

func (a *able) Pool(params map[string]any) string { return params["user"].(string) }

// What a provider cannot do falls back to what each can.
func TestWhatIsOptional(t *testing.T) {
	ctx, no := t.Context(), errors.New("no")
	ends := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	params := map[string]any{"user": "anna"}
	p, a := &plain{}, &able{ends: ends}
	if end, told, err := provider.Examine(ctx, p, params, provider.Key{}); !end.IsZero() || told || err != nil || len(p.asked) != 1 {
		t.Errorf("a plain one is tested: %v, %v, %v, %q", end, told, err, p.asked)
	}
	if end, told, err := provider.Examine(ctx, a, params, provider.Key{}); end != ends || !told || err != nil || len(a.asked) != 0 {
		t.Errorf("an examiner examines: %v, %v, %v, %q", end, told, err, a.asked)
	}
	if err := provider.Revoke(ctx, p, params, "id", "name"); err != nil || p.asked[1] != "revoke id" {
		t.Errorf("without a name: %v, %q", err, p.asked)
	}
	if err := provider.Revoke(ctx, a, params, "id", "name"); err != nil || a.asked[0] != "revoke id named name" {
		t.Errorf("with one: %v, %q", err, a.asked)
	}
	if got := provider.Pool(p, params) + "," + provider.Pool(a, params); got != ",anna" {
		t.Errorf("pools %q", got)
	}
	p.err, a.err = no, no
	for _, one := range []provider.Provider{p, a} {
		_, _, err := provider.Examine(ctx, one, params, provider.Key{})
		if !errors.Is(err, no) || !errors.Is(provider.Revoke(ctx, one, params, "id", ""), no) {
			t.Errorf("%T: %v", one, err)
		}
	}
}
