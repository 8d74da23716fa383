package apikeys

import (
	"fmt"
	"testing"
	"time"

	"strongroom.example/plugin/provider/liar"
)

// Whatever a provider was asked to end is never current, nor read, again: also where
// the process ends between that request and the write of what came of it, and the next
// one's clock lies before the time at which it was due.
func TestWhatWasAskedToEndNeverComesBack(t *testing.T) {
	for service, caps := range liar.Services() {
		if !caps.Revoke {
			continue
		}
		for name, end := range map[string]func(*hostile){
			"its time is over": func(h *hostile) { h.pass(time.Hour + time.Second) },
			"by hand": func(h *hostile) {
				_, _ = h.do(opDelete, "versions/k", map[string]any{"version": 1, "force": true})
			},
			"the next one's birth": func(h *hostile) { _, _ = h.do(opWrite, "rotate/k", map[string]any{"force": true}) },
		} {
			for n := 1; ; n++ {
				h := newHostile(t, caps, liar.Lies{})
				h.keys = []string{"k"}
				h.write("keys/k", map[string]any{"provider": "svc", "rotation_period": "30d", "grace_period": "1h"})
				if caps.Overlap {
					h.write("rotate/k", map[string]any{"force": true})
				}
				h.pass(time.Minute)
				h.liar.SetLies(liar.Lies{Late: 20 * time.Minute})
				cr := &crasher{at: n}
				h.storage.setFault(cr.storage)
				h.liar.SetPoint(cr.service)
				end(h)
				h.storage.setFault(nil)
				h.liar.SetPoint(nil)
				if !cr.isDead() {
					break
				}
				h.clock.jump(-time.Minute)
				h.start()
				where := fmt.Sprintf("%s, %s, point %d, %s", service, name, n, cr.where)
				_, _ = h.do(opWrite, "rollback/k", map[string]any{"version": 1})
				h.promises = nil
				for range 30 {
					h.readers()
					h.pass(time.Minute)
				}
				for _, fault := range h.faults {
					t.Errorf("%s: %s", where, fault)
				}
			}
		}
	}
}

// An end that was asked for by an identifier may come at any time: nobody brings
// another key under that.
func TestNoKeyIsImportedUnderAnEndingID(t *testing.T) {
	h := newHostile(t, liar.Services()["list and test"], liar.Lies{Late: 20 * time.Minute})
	h.write("keys/k", map[string]any{"provider": "svc", "grace_period": "1h"})
	id := h.shown(1)["provider_key_id"]
	h.write("rotate/k", nil)
	h.pass(time.Hour + time.Second)
	again := map[string]any{"key": h.liar.ByHand().Value, "provider_key_id": id}
	h.refused(opWrite, "import/k", again, "is version 1, which the engine is ending", "resolve/k")
	h.go_(time.Hour, time.Minute)
	if v := h.shown(1); v["state"] != "revoked" {
		t.Fatalf("%v", v)
	}
	h.write("import/k", again)
}
