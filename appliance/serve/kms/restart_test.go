package kms

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
)

// The KMS comes first, and Vault is waited for only when both have been restarted.
func TestRestart(t *testing.T) {
	for name, tc := range map[string]struct {
		fails string // "", a unit, "active"
		done  []string
		hint  string
	}{
		"well":               {"", []string{machine.UnitKMS, machine.UnitVault, "active"}, ""},
		"the KMS stays down": {machine.UnitKMS, []string{machine.UnitKMS}, "journalctl -u " + machine.UnitKMS},
		"Vault stays down":   {machine.UnitVault, []string{machine.UnitKMS, machine.UnitVault}, "the new key is in force"},
		"it stays sealed":    {"active", []string{machine.UnitKMS, machine.UnitVault, "active"}, "docs/unseal.md"},
	} {
		t.Run(name, func(t *testing.T) {
			at := time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
			broken := errors.New("it fails")
			var done []string
			do := func(what string) error {
				done = append(done, what)
				at = at.Add(time.Second)
				if what == tc.fails {
					return broken
				}
				return nil
			}
			took, err := Restart{
				Unit: func(_ context.Context, unit string) error { return do(unit) },
				Active: func(ctx context.Context) error {
					if _, bounded := ctx.Deadline(); !bounded {
						t.Error("it waits without an end")
					}
					return do("active")
				},
				Now: func() time.Time { return at },
			}.Run(t.Context())
			if !slices.Equal(done, tc.done) {
				t.Errorf("did %q", done)
			}
			if tc.fails == "" {
				if err != nil || took != 3*time.Second {
					t.Errorf("took %v, %v", took, err)
				}
				return
			}
			var f *fault.Error
			if !errors.As(err, &f) || !errors.Is(err, broken) || f.Code != fault.Failed || !strings.Contains(f.Hint, tc.hint) {
				t.Errorf("%v: %+v", err, f)
			}
		})
	}
}
