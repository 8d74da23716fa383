package vps_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/installer/recover"
)

func (w *world) everything(t *testing.T, m *machine) {
	// The same authority: who trusted the old machine trusts this one.
	if string(m.read(t, "/var/lib/strongroom-front/root.crt")) != string(w.root) {
		t.Error("the front has another certificate authority")
	}
	token := login(t, m) // by the old escrow's password
	for path, want := range w.secrets {
		got, _ := m.call(t, token, "GET", "secret/data/"+path, nil)["data"].(map[string]any)
		if got["value"] != want {
			t.Errorf("%s is %v", path, got["value"])
		}
	}
	if status, _ := m.vault(t, m.client(roots(t, m)), "GET", "secret/data/"+w.lost, token, nil); status != 404 {
		t.Errorf("%s, written after the snapshot: %d", w.lost, status)
	}
	alive := w.service.Alive()
	for path, old := range w.keys {
		now := w.value(t, m, token, path)
		rotated := false
		for _, l := range w.later {
			rotated = rotated || l == path
		}
		if !rotated && now != old {
			t.Errorf("%s has changed", path)
		}
		if rotated && now == old {
			t.Errorf("%s: the service has a later version, and it was not renewed", path)
		}
		if _, ok := alive[now]; !ok && strings.Contains(path, "/service-") {
			t.Errorf("%s is dead at the service", path)
		}
	}
	// It rotates again.
	m.call(t, token, "POST", "apikeys/rotate/shop/production/service-2", nil)
	if state := m.call(t, token, "GET", "apikeys/reconcile", nil); state["fenced"] != false {
		t.Errorf("the engine is fenced: %v", state)
	}
}

func (w *world) logins(t *testing.T, m *machine) {
	for job, ids := range w.jobs {
		status, _ := m.vault(t, m.client(roots(t, m)), "POST", "auth/approle/login", "", map[string]any{"role_id": ids[0], "secret_id": ids[1]})
		if status/100 == 2 {
			t.Errorf("the old machine's job %s can log in", job)
		}
	}
	testNoRootToken(t, m)
	if m.in(t, "test", "-e", "/etc/strongroom/credentials/root-token").code == 0 {
		t.Error("the token of the recovery is still kept")
	}
	// Nothing of the operator's key or the opened escrow stays.
	key, err := os.ReadFile(w.key)
	if err != nil {
		t.Fatal(err)
	}
	// Its last line but one: the first are the same in every key.
	lines := strings.Split(strings.TrimSpace(string(key)), "\n")
	for _, plain := range []string{lines[len(lines)-2], "BEGIN STRONGROOM"} {
		if out, err := exec.Command("grep", "-rlaF", "--exclude-dir=dr", "--exclude-dir=bin", plain, filepath.Join(m.disk, "etc"), filepath.Join(m.disk, "var"), filepath.Join(m.disk, "root/.ssh")).Output(); err == nil {
			t.Errorf("in clear: %s", out)
		}
	}
	files, err := escrow.LoadStatus(filepath.Join(m.disk, "var/lib/strongroom/escrow"))
	if err != nil || len(files) != 4 {
		t.Fatalf("escrow: %+v, %v", files, err)
	}
	for _, f := range files {
		if !f.Confirmed() || f.By != escrow.ByRestore {
			t.Errorf("%s has rebuilt a machine, and is not confirmed: %+v", f.File, f)
		}
	}
}

// testNoRootToken looks at every token.
func testNoRootToken(t *testing.T, m *machine) {
	t.Helper()
	token := login(t, m)
	keys, _ := m.call(t, token, "LIST", "auth/token/accessors", nil)["keys"].([]any)
	if len(keys) == 0 {
		t.Fatal("no tokens at all")
	}
	c := m.client(roots(t, m))
	for _, a := range keys {
		_, out := m.vault(t, c, "POST", "auth/token/lookup-accessor", token, map[string]any{"accessor": a})
		data, _ := out["data"].(map[string]any)
		if policies := fmt.Sprint(data["policies"]); strings.Contains(policies, "root") {
			t.Errorf("a token with policies %s is alive", policies)
		}
	}
}

// pages runs the other commands of the pages.
func (w *world) pages(t *testing.T, m *machine) {
	pipe := strings.NewReplacer("ssh root@vault.example.com ", "", "~/.ssh/id_ed25519", "id_ed25519").Replace(onPage(t, "escrow.md", "pipe"))
	if out := m.sh(t, "cd /root/dr && "+pipe); strings.Count(out, "confirmed:") != 4 {
		t.Errorf("the pipe:\n%s", out)
	}
	files, err := escrow.LoadStatus(filepath.Join(m.disk, "var/lib/strongroom/escrow"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.By != escrow.ByChallenge {
			t.Errorf("%+v", f)
		}
	}
	if r := m.in(t, "sh", "-e", "-c", "cd /root/dr\n"+onPage(t, "disaster-recovery.md", "clean")); r.code != 0 && !strings.Contains(r.String(), "items failed") {
		t.Errorf("clean: %d\n%s", r.code, r)
	}
	if m.in(t, "test", "-e", "/root/dr/id_ed25519").code == 0 {
		t.Error("the private key is still there")
	}
}

func (w *world) again(t *testing.T, m *machine) {
	var state recover.State
	if err := json.Unmarshal(m.read(t, recover.StatePath), &state); err != nil || state.Finished.IsZero() {
		t.Fatalf("%+v, %v", state, err)
	}
	r := m.in(t, restoreArgs...)
	if r.code != 0 || !strings.Contains(r.stdout, "was recovered from") || !strings.Contains(r.stdout, "Nothing to change") {
		t.Errorf("restore again: %d\n%s", r.code, r)
	}
	if r := m.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan: %d\n%s", r.code, r)
	}
	state2 := verified(t, m)
	if len(state2.LastGood) != 2 {
		t.Errorf("the new machine's own snapshots: %+v", state2)
	}
	unsealed(t, m)
}
