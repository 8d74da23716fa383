package apikeys

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/liar"
)

// asBuilt is a service whose abilities stay as they were when it was built.
type asBuilt struct {
	*liar.Service
	caps provider.Capabilities
}

func (a asBuilt) Capabilities() provider.Capabilities { return a.caps }

// overlap lets the service be able to from now on; the engine knows when it builds it.
func (h *hostile) overlap(able bool) {
	caps := h.liar.Capabilities()
	caps.Overlap = able
	h.liar.SetCapabilities(caps)
	h.others["liar"] = func(provider.Config) (provider.Provider, error) { return asBuilt{h.liar, h.liar.Capabilities()}, nil }
}

// Where no two keys live at once, readers are promised a key until its next rotation.
// Whatever brings that forward waits until the promise is over.
func TestPromisesWithoutOverlapOutliveChanges(t *testing.T) {
	write := func(path string, data map[string]any) func(h *hostile) {
		return func(h *hostile) {
			if _, err := h.do(logical.UpdateOperation, path, maps.Clone(data)); err != nil {
				h.fault("%s: %v", path, err)
			}
		}
	}
	changes := map[string]struct{ before, change func(h *hostile) }{
		"a shorter period":   {nil, write("keys/app/key", map[string]any{"rotation_period": "1d"})},
		"a schedule":         {nil, write("keys/app/key", map[string]any{"rotation_period": 0, "rotation_schedule": "0 3 * * *"})},
		"the mount's period": {write("keys/app/key", map[string]any{"rotation_period": 0}), write("config", map[string]any{"rotation_period": "1d"})},
		"the mount's jitter": {write("keys/app/key", map[string]any{"rotation_period": 0}), write("config", map[string]any{"jitter": "20d", "rotation_period": "90d"})},
		"rotations that were turned off": {func(h *hostile) {
			write("keys/app/key", map[string]any{"disable_automated_rotation": true, "grace_period": "3d"})(h)
			h.go_(40*day, 12*time.Hour)
		}, write("keys/app/key", map[string]any{"disable_automated_rotation": false})},
		"a period of the mount, which was its own": {nil, func(h *hostile) {
			write("config", map[string]any{"rotation_period": "2d"})(h)
			write("keys/app/key", map[string]any{"rotation_period": 0})(h)
		}},
		"keys that overlap": {nil, func(h *hostile) {
			h.overlap(true)
			write("providers/svc", map[string]any{"type": "liar"})(h)
			h.go_(time.Hour, time.Hour)
			write("rotate/app/key", nil)(h)
		}},
		"a provider that cannot be built": {func(h *hostile) {
			h.overlap(true)
			write("providers/svc", map[string]any{"type": "liar"})(h)
			write("rotate/app/key", nil)(h)
			h.promises = nil
		}, func(h *hostile) {
			h.others["liar"] = func(provider.Config) (provider.Provider, error) { return nil, errors.New("not now") }
			h.start()
			h.watch()
			h.overlap(true)
			h.start()
			write("rotate/app/key", nil)(h)
		}},
		"an end that is told later": {nil, func(h *hostile) {
			if err := h.b.withKey(context.Background(), h.storage, "app/key", func(ctx context.Context, w *work) error {
				cur := *w.rec.Life.Current()
				return w.checkPassed(ctx, &cur, h.clock.Wall().Add(20*day))
			}); err != nil {
				h.fault("%v", err)
			}
		}},
		"periods that change twice": {write("keys/app/key", map[string]any{"rotation_period": 0}), func(h *hostile) {
			write("config", map[string]any{"rotation_period": "1d"})(h)
			h.watch()
			write("config", map[string]any{"rotation_period": "2d"})(h)
		}},
		"a key that a person brings": {nil, func(h *hostile) {
			mine := h.liar.ByHand()
			write("import/app/key", map[string]any{"key": mine.Value, "provider_key_id": mine.ID})(h)
			h.go_(35*day, 12*time.Hour)
			if end := h.outcome(); end != "well" {
				h.fault("%s", end)
			}
		}},
		"a key that a person brings, and a rollback": {nil, func(h *hostile) {
			mine := h.liar.ByHand()
			write("import/app/key", map[string]any{"key": mine.Value, "provider_key_id": mine.ID})(h)
			h.watch()
			write("rollback/app/key", map[string]any{"version": 1})(h)
			h.watch()
			write("keys/app/key", map[string]any{"rotation_period": "1d"})(h)
		}},
		"a deleted key whose service has begun to let keys overlap": {nil, func(h *hostile) {
			h.overlap(true)
			write("providers/svc", map[string]any{"type": "liar"})(h)
			if _, err := h.do(opDelete, "keys/app/key", nil); err != nil {
				h.fault("%v", err)
			}
			write("keys/app/key", map[string]any{"provider": "svc", "rotation_period": "30d"})(h)
		}},
		"keys that no longer overlap": {func(h *hostile) {
			h.overlap(true)
			write("providers/svc", map[string]any{"type": "liar"})(h)
			write("keys/app/key", map[string]any{"grace_period": "20d", "rotation_period": "2d", "force": true})(h)
		}, func(h *hostile) {
			write("rotate/app/key", nil)(h)
			h.overlap(false)
			write("providers/svc", map[string]any{"type": "liar"})(h)
		}},
		"a rotation by hand": {nil, write("rotate/app/key", nil)},
		"two shorter periods": {nil, func(h *hostile) {
			write("keys/app/key", map[string]any{"rotation_period": "10d"})(h)
			h.go_(day, time.Hour)
			write("keys/app/key", map[string]any{"rotation_period": "1d"})(h)
		}},
		"a longer grace, and a shorter period": {nil, func(h *hostile) {
			write("keys/app/key", map[string]any{"grace_period": "5d"})(h)
			h.watch()
			write("keys/app/key", map[string]any{"rotation_period": "1d"})(h)
		}},
	}
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t, liar.Services()["no overlap"], liar.Lies{})
			h.keys = h.keys[:1]
			h.overlap(false)
			h.start()
			write("keys/app/key", map[string]any{"provider": "svc", "rotation_period": "30d", "grace_period": "1d"})(h)
			c := changes[name]
			if c.before != nil {
				c.before(h)
			}
			h.go_(2*day, 6*time.Hour)
			c.change(h)
			h.go_(95*day, 3*time.Hour)
			if n := h.liar.Creates(); n < 2 {
				h.fault("it was made %d times in 95 days", n)
			}
			for _, f := range h.faults {
				t.Error(f)
			}
		})
	}
}
