package drill

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/scratch"
)

// atScratch serves v where a scratch Vault's socket is.
func atScratch(t *testing.T, v restored) *scratch.Vault {
	t.Helper()
	s := &scratch.Vault{Layout: scratch.Layout{Dir: t.TempDir()}}
	if err := os.Mkdir(s.Layout.Run(), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", s.Layout.VaultSocket())
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: v, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	return s
}

// Nothing is registered or moved without a token that the snapshot knows.
func TestAdmin(t *testing.T) {
	known := restored{"auth/token/lookup-self": data("policies", []string{"strongroom-admin"})}
	tests := []struct {
		name, token string
		vault       restored
		want        error
	}{
		{"known", "t", known, nil},
		{"none", "", known, ErrNeedsToken},
		{"younger than the snapshot", "t", restored{}, ErrNeedsToken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestRun(t, sound())
			r.vault, r.Rehearse = atScratch(t, tt.vault), &Rehearsal{Token: tt.token}
			if _, err := r.admin(t.Context()); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// What the engine reads after a move must be what it read before.
func TestEngineAgain(t *testing.T) {
	before := &engineState{keys: []string{"a/one"}, current: map[string]int64{"a/one": 3}}
	tests := []struct {
		name  string
		vault restored
		want  string
	}{
		{"the same", sound(), report.Pass},
		{"a key gone", sound().with("apikeys/status", engineStatus(true, nil)), report.Fail},
		{"another current version", sound().with("apikeys/versions/a/one", data("version", 4, "versions", map[string]any{})), report.Fail},
		{"open", sound().with("apikeys/status", engineStatus(false, nil, "a/one")), report.Fail},
		{"it does not answer", sound().with("apikeys/status", nil), report.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestRun(t, tt.vault)
			if err := r.engineAgain(t.Context(), "again", before); err != nil {
				t.Fatal(err)
			}
			if got := checkOf(r.rep, "again"); got == nil || got.Verdict != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

// The new plugin stands beside all that the machine has.
func TestPluginFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"plugin-0.1.0", "plugin-0.2.0"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h := &Rehearsal{Plugin: "/new", PluginVersion: "v0.3.0"}
	files, err := h.pluginFiles(dir)
	if err != nil || len(files) != 3 || files[h.newPluginFile()] != "/new" || files["plugin-0.1.0"] != filepath.Join(dir, "plugin-0.1.0") {
		t.Errorf("%v, %v", files, err)
	}
	if _, err := h.pluginFiles(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if h.newPluginFile() != "vault-plugin-secrets-apikeys-rehearsal-0.3.0" {
		t.Errorf("its file is %q", h.newPluginFile())
	}
}
