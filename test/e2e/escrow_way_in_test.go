package e2e

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// What an escrow holds lets its owner into a real Vault: the recovery keys make
// a root token, and the first administrator logs in.
func TestEscrowLetsIn(t *testing.T) {
	s := vaulttest.New(t)
	ctx := t.Context()
	c, err := vaultapi.New(vaultapi.Options{Address: vaultAddr(s)})
	if err != nil {
		t.Fatal(err)
	}
	root := func(name, token string) {
		t.Helper()
		c.SetToken(token)
		self, err := vaulttest.API(c).Auth().Token().LookupSelfWithContext(ctx)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p, err := self.TokenPolicies(); err != nil || len(p) != 1 || p[0] != "root" {
			t.Errorf("%s: policies %q, %v", name, p, err)
		}
		c.SetToken("")
	}
	if _, err := c.GenerateRoot(ctx, nil); !errors.Is(err, vaultapi.ErrFewShares) {
		t.Errorf("no recovery keys: %v", err)
	}
	wrong := strings.Repeat("A", len(s.Recovery[0])-1) + "="
	if token, err := c.GenerateRoot(ctx, []string{wrong}); err == nil || token != "" {
		t.Errorf("a wrong recovery key: %v", err)
	}
	token, err := c.GenerateRoot(ctx, s.Recovery)
	if err != nil {
		t.Fatal(err)
	}
	root("recovery keys", token)
	// One that somebody began and never ended is in nobody's way.
	if _, err := vaulttest.API(s.Root).Sys().GenerateRootInitWithContext(ctx, "", ""); err != nil {
		t.Fatal(err)
	}
	// More keys than are asked for.
	if token, err = c.GenerateRoot(ctx, append(s.Recovery, wrong)); err != nil {
		t.Fatal(err)
	}
	root("after an attempt that was given up", token)
	if status, err := vaulttest.API(s.Root).Sys().GenerateRootStatusWithContext(ctx); err != nil || status.Started {
		t.Errorf("an attempt is left open: %+v, %v", status, err)
	}

	sys := vaulttest.API(s.Root).Sys()
	if err := sys.EnableAuthWithOptionsWithContext(ctx, "userpass", &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		t.Fatal(err)
	}
	if err := sys.PutPolicyWithContext(ctx, config.PolicyAdmin, config.Policies()[config.PolicyAdmin]); err != nil {
		t.Fatal(err)
	}
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(ctx, "auth/userpass/users/admin", map[string]any{"password": "canary-pw", "token_policies": config.PolicyAdmin}); err != nil {
		t.Fatal(err)
	}
	if err := c.LoginUserpass(ctx, "admin", "canary-no"); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("a wrong password: %v", err)
	}
	if err := c.LoginUserpass(ctx, "admin", "canary-pw"); err != nil {
		t.Fatal(err)
	}
	// It is enough to make the jobs' logins.
	if err := vaulttest.API(c).Sys().PutPolicyWithContext(ctx, "x", `path "a" { capabilities = ["read"] }`); err != nil {
		t.Errorf("the administrator: %v", err)
	}
}
