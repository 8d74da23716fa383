package apikeys

import "testing"

func TestChangesOfTheMountAreToldOf(t *testing.T) {
	w := newWorld(t, remoteCaps())
	r := newReceiver(t)
	w.hook(r, map[string]any{"events": "*-update,*-delete"})
	for _, step := range []struct {
		do   func()
		kind string
		path string
	}{
		{func() { w.write("providers/extra", map[string]any{"type": "generated"}) }, "provider-update", "providers/extra"},
		{func() { _, _ = w.do(opDelete, "providers/extra", nil) }, "provider-delete", "providers/extra"},
		{func() { w.write("config", map[string]any{"max_versions": 7}) }, "config-update", "config"},
		// Whoever points a webhook elsewhere is reported to where it pointed.
		{func() { w.write("webhooks/h", map[string]any{"secret": hookSecret + hookSecret}) }, "webhook-update", "webhooks/h"},
	} {
		t.Run(step.kind, func(t *testing.T) {
			step.do()
			got := r.next(t).event
			w.eventually(func() bool { return w.deliveries()["waiting"] == 0 })
			if got.Type != step.kind || got.Data["path"] != step.path || got.Key != "" {
				t.Errorf("%+v, want %s of %s", got, step.kind, step.path)
			}
			if !w.events.has(eventPrefix + step.kind) {
				t.Error("Vault was not told")
			}
		})
	}
	if _, err := w.do(opDelete, "webhooks/h", nil); err != nil || !w.events.has(eventPrefix+"webhook-delete") {
		t.Errorf("the end of a webhook: %v", err)
	}
	w.localKey("k", nil)
	if !w.events.has(eventPrefix + "key-create") {
		t.Error("nobody was told of a new key")
	}
}
