package steps

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"strongroom/installer/host"
)

func TestDownloadFromAMirrorThatLies(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("rubbish"))
	}))
	defer srv.Close()
	v := newVPS(t)
	e := v.env()
	e.VaultBinary, e.Config.Vault.Mirror = "", srv.URL
	diff, err := vaultProgram{e}.Check(t.Context())
	if err != nil || len(diff) != 1 || !strings.Contains(diff[0].To, "signature verified") {
		t.Fatalf("diff = %v, %v", diff, err)
	}
	err = diff[0].Apply(t.Context())
	if err == nil || !strings.Contains(err.Error(), "download Vault 2.2.2") {
		t.Errorf("error = %v", err)
	}
	if _, ok := v.Files[vaultBinary]; ok {
		t.Error("something was installed")
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
}

func TestInstalledVaultIsKept(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	e.VaultBinary = ""
	v.Files[vaultBinary] = &host.Node{Data: []byte("Vault")}
	if diff, err := (vaultProgram{e}).Check(t.Context()); err != nil || len(diff) > 0 {
		t.Errorf("diff = %v, %v", diff, err)
	}
	v.Commands["vault"] = answer("Vault v2.3.0 (abc)\n")
	if _, err := (vaultProgram{e}).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "Vault 2.3.0 is installed and 2.2.2 is configured") {
		t.Errorf("error = %v", err)
	}
}
