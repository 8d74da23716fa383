package e2e

import (
	"os"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/test/vaulttest"
)

// The server's own web interface through the front, in a real browser: somebody logs in
// with a password, and reads a secret. The tests' Vault has none inside, OpenBao has.
func TestFrontShowsTheWebInterface(t *testing.T) {
	t.Parallel()
	if os.Getenv("STRONGROOM_SOAK") != "1" {
		t.Skip("long: make soak AREA=front")
	}
	s, url := frontedVault(t, vaulttest.Node{UI: true})
	if err := s.Root.EnableKV2(t.Context(), machine.MountKV); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{
		"sys/auth/" + machine.AuthUserpass: {"type": "userpass"},
		machine.MountKV + "/data/shop/db":  {"data": map[string]any{"password": "canary-of-the-shop"}},
	} {
		if _, err := s.Root.Write(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Root.PutPolicy(t.Context(), "reader", `path "secret/*" { capabilities = ["read", "list"] }`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Root.Write(t.Context(), "auth/"+machine.AuthUserpass+"/users/anna", map[string]any{"password": "right", "token_policies": "reader"}); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t)
	if s.Server.Product == config.ProductVault {
		b.open(t, url+"/ui/")
		b.until(t, "document.body.innerText.includes('Vault UI is not available in this binary')")
		return
	}
	b.open(t, url+"/ui/vault/auth?with="+machine.AuthUserpass)
	b.fill(t, "input[name=username]", "anna")
	b.fill(t, "input[name=password]", "right")
	b.click(t, "#auth-submit")
	b.until(t, "!location.pathname.startsWith('/ui/vault/auth')")
	b.open(t, url+"/ui/vault/secrets/secret/show/shop/db")
	b.until(t, "document.body.innerText.includes('password')")
	b.click(t, "[data-test-button=toggle-masked]")
	b.until(t, "document.body.innerText.includes('canary-of-the-shop')")

	// Nothing that its pages ask is refused by the front.
	log, err := os.ReadFile(s.Layout.Log("front"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, `"fault":`) {
			t.Errorf("the front refused: %s", line)
		}
	}
}
