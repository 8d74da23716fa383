package apikeys

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/liar"
)

// How a key may come to be replaced.
func replacements() map[string]func(h *hostile) {
	write := func(h *hostile, path string, data map[string]any) { _, _ = h.do(logical.UpdateOperation, path, data) }
	return map[string]func(h *hostile){
		"rotate": func(h *hostile) { write(h, "rotate/app/key", nil) },
		"force":  func(h *hostile) { write(h, "rotate/app/key", map[string]any{"force": true}); h.promises = nil },
		"force twice": func(h *hostile) {
			for range 2 {
				write(h, "rotate/app/key", map[string]any{"force": true})
				h.promises = nil
				h.watch()
				h.go_(20*time.Second, 10*time.Second)
			}
		},
		"compromised": func(h *hostile) { write(h, "rotate/app/key", map[string]any{"compromised": true}); h.promises = nil },
		"compromised, the new one first": func(h *hostile) {
			write(h, "rotate/app/key", map[string]any{"compromised": true, "new_first": "5m"})
			h.promises = nil
		},
		"provider compromised": func(h *hostile) {
			write(h, "providers/svc/rotate", map[string]any{"compromised": true})
			h.promises = nil
		},
		"its time":    func(h *hostile) { h.go_(31*day, 12*time.Hour) },
		"a reconcile": func(h *hostile) { write(h, "reconcile", nil) },
		"delete":      func(h *hostile) { _, _ = h.do(opDelete, "keys/app/key", nil) },
		"force, and deleted": func(h *hostile) {
			write(h, "rotate/app/key", map[string]any{"force": true})
			h.promises = nil
			h.watch()
			_, _ = h.do(opDelete, "keys/app/key", nil)
		},
	}
}

// A service begins to lie when the key is there and readers have it. The short form
// keeps to services that end a key when they make the next, where there is most to
// lose; STRONGROOM_SOAK=1 takes all.
func TestLiesThatBeginLater(t *testing.T) {
	services := liar.Services()
	if os.Getenv("STRONGROOM_SOAK") == "" {
		maps.DeleteFunc(services, func(_ string, c provider.Capabilities) bool { return c.Overlap })
	}
	lives := 0
	for _, svc := range slices.Sorted(maps.Keys(services)) {
		caps := services[svc]
		for i, name := range slices.Sorted(maps.Keys(liar.Table())) {
			for how, replace := range replacements() {
				if (i+len(how))%shorter(1, 6) != 0 {
					continue
				}
				lives++
				h := newHostile(t, caps, liar.Lies{})
				h.keys = h.keys[:1]
				h.write("keys/app/key", map[string]any{"provider": "svc", "rotation_period": "30d", "grace_period": "1d"})
				h.go_(time.Hour, 10*time.Minute)
				h.liar.SetLies(liar.Table()[name])
				replace(h)
				h.watch()
				h.go_(3*time.Minute, 10*time.Second)
				h.go_(3*time.Hour, 10*time.Minute)
				h.recover()
				for _, fault := range h.faults {
					if liar.Table()[name].Life == time.Minute && strings.HasSuffix(fault, "creates in an hour") {
						continue // so many are needed
					}
					t.Errorf("%s, %s, %s: %s", svc, name, how, fault)
				}
			}
		}
	}
	t.Logf("%d lives", lives)
}
