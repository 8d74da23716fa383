package apikeys

import (
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

func manualCaps() provider.Capabilities { return provider.Capabilities{Overlap: true, Test: true} }

func TestKeysThatOnlyPeopleCanMake(t *testing.T) {
	w := newWorld(t, manualCaps())
	w.write("providers/svc", map[string]any{"type": "remote"})
	resp := w.write("keys/k", map[string]any{"provider": "svc", "rotation_period": "90d", "grace_period": "1d"})
	if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "import/k") {
		t.Errorf("warnings: %v", resp.Warnings)
	}
	w.refused(opRead, "creds/k", nil, "import/k")
	w.refused(opWrite, "rotate/k", nil, "cannot make keys", "import/k")
	if got := w.read("keys/k", nil)["condition"]; got != "awaiting_import" {
		t.Errorf("condition %v", got)
	}
	w.tick()
	made := func(id, value string) {
		w.remote.keys[id] = &serviceKey{id: id, value: value, alive: true}
	}
	made("a", "first")
	w.write("import/k", map[string]any{"key": "first", "values": map[string]any{"id": "A1"}})
	first := w.read("creds/k", nil)
	if first["key"] != "first" || first["values"].(map[string]string)["id"] != "A1" || first["version"] != 1 {
		t.Errorf("%v", first)
	}
	w.refused(opWrite, "import/k", map[string]any{"key": "first", "values": map[string]any{"id": "A1"}}, "version 1")
	w.refused(opWrite, "import/k", map[string]any{"key": "wrong"}, "refuses the key")

	w.pass(75 * day)
	if resp, err := w.do(opRead, "creds/k", nil); err != nil || len(resp.Warnings) != 0 {
		t.Errorf("15 days before: %v %v", err, resp.Warnings)
	}
	w.pass(2 * day)
	resp, err := w.do(opRead, "creds/k", nil)
	if err != nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "must be replaced by hand by") {
		t.Errorf("13 days before: %v %v", err, resp.Warnings)
	}
	if !w.events.has("apikeys/due") {
		t.Error("nobody was told")
	}
	reminders := func() (n int) {
		for _, kind := range w.events.types {
			if kind == "apikeys/due" {
				n++
			}
		}
		return n
	}
	before := reminders()
	for range 10 {
		w.pass(time.Hour)
	}
	if n := reminders() - before; n > 1 {
		t.Errorf("%d reminders in ten hours", n)
	}
	w.pass(20 * day)
	resp, err = w.do(opRead, "creds/k", nil)
	if err != nil || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "should have been replaced") || resp.Data["key"] != "first" {
		t.Errorf("overdue: %v %v", err, resp)
	}
	if got := w.read("status", nil)["keys"].(map[string]any)["k"].(map[string]any)["condition"]; got != "overdue" {
		t.Errorf("condition %v", got)
	}
	made("b", "second")
	w.write("import/k", map[string]any{"key": "second"})
	if got := w.read("creds/k", map[string]any{"version": 1})["state"]; got != "grace" {
		t.Errorf("version 1 is %v", got)
	}
	w.remote.keys["a"].alive = false // whoever brought the new one has ended it
	w.pass(2 * day)
	w.refused(opRead, "creds/k", map[string]any{"version": 1}, "version 1", "revoked")
	if got := w.read("status", nil)["keys"].(map[string]any); len(got) != 0 {
		t.Errorf("status still shows it: %v", got)
	}
}

func TestImportBesideMintedVersions(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "1d"})
	w.remote.keys["x"] = &serviceKey{id: "x", value: "brought", alive: true}
	w.remote.keys["y"] = &serviceKey{id: "y", value: "later", alive: true}
	w.remote.setFault(failing("test", provider.KindTransient))
	if _, err := w.do(opWrite, "import/k", map[string]any{"key": "brought"}); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%v", err)
	}
	w.remote.setFault(nil)
	resp := w.write("import/k", map[string]any{"key": "brought", "provider_key_id": "x", "expire_time": "2026-03-11T12:00:00Z"})
	if len(resp.Warnings) != 0 {
		t.Errorf("warnings: %v", resp.Warnings)
	}
	if got := w.read("creds/k", nil); got["cache_ttl"] != int64(86400) || got["next_rotation_time"] != "2026-03-10T12:00:00Z" {
		t.Errorf("a key that ends by itself is replaced a grace period before: %v", got)
	}
	w.pass(9*day + time.Second)
	if v := w.version("k"); v != 3 {
		t.Errorf("version %d", v)
	}
	w.pass(2 * day)
	if w.remote.keys["x"].alive {
		t.Error("an imported key with an id is revoked like every other")
	}
	if resp := w.write("import/k", map[string]any{"key": "later"}); len(resp.Warnings) != 1 {
		t.Errorf("warnings: %v", resp.Warnings)
	}
}

func TestImportOfALineFromAFile(t *testing.T) {
	const pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n"
	for _, c := range []struct{ name, given, want string }{
		{"as it is", "abc", "abc"},
		{"of a file", "abc\n", "abc"},
		{"of a file of Windows", "abc\r\n", "abc"},
		{"spaces are the key's own", " abc \n", " abc "},
		{"several lines", pem, pem},
		{"an empty line after it", "abc\n\n", "abc\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, provider.Capabilities{Overlap: true})
			w.write("providers/svc", map[string]any{"type": "remote"})
			w.write("keys/k", map[string]any{"provider": "svc"})
			w.write("import/k", map[string]any{"key": c.given})
			if got := w.read("creds/k", nil)["key"]; got != c.want {
				t.Errorf("the key is %q, not %q", got, c.want)
			}
		})
	}
	w := newWorld(t, provider.Capabilities{Overlap: true})
	w.write("providers/svc", map[string]any{"type": "remote"})
	w.write("keys/k", map[string]any{"provider": "svc"})
	w.refused(opWrite, "import/k", map[string]any{"key": "\n"}, "the key is missing")
}

func TestAnImportThatVaultItselfEndsNeedsNoID(t *testing.T) {
	w := newWorld(t, provider.Capabilities{Overlap: true, Mint: true, Revoke: true, Local: true})
	w.write("providers/svc", map[string]any{"type": "remote"})
	w.write("keys/k", map[string]any{"provider": "svc"})
	if resp := w.write("import/k", map[string]any{"key": "brought"}); len(resp.Warnings) != 0 {
		t.Errorf("warnings: %v", resp.Warnings)
	}
}

// engine-core, smaller: an end that no calendar has is a mistake of the caller's.
func TestImportedEndThatIsInMilliseconds(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.refused(opWrite, "import/k", map[string]any{"key": "x", "provider_key_id": "y", "expire_time": 999999999999}, "the year", "not milliseconds")
}
