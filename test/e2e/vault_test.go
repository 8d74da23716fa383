// Package e2e tests the programs as they are built, against the real Vault.
package e2e

import (
	"os"
	"testing"

	"strongroom.example/test/vaulttest"
)

// Killed at any time, Vault comes back unsealed with what it held.
func TestUnsealAfterKill(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	ctx := t.Context()
	if err := s.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	kv := vaulttest.API(s.Root).KVv2("secret")
	if _, err := kv.Put(ctx, "app/test/name", map[string]any{"value": "v1"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		before := s.Process.PID()
		s.KillAndWait(t)
		if s.Process.PID() == before {
			t.Fatal("it is the same process")
		}
		got, err := kv.Get(ctx, "app/test/name")
		if err != nil || got.Data["value"] != "v1" {
			t.Fatalf("after the kill: %v, %v", got, err)
		}
	}
}

// Vault's own TCP listener answers nobody without the front's certificate.
func TestVaultListenerWantsTheFront(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	_, err := get("https://"+s.TCPAddress+"/v1/sys/health", s.Layout.LinkCA(), "", "")
	if err == nil {
		t.Fatal("Vault answered without a client certificate")
	}
	crt, key := s.Layout.LinkClient()
	resp, err := get("https://"+s.TCPAddress+"/v1/sys/health", s.Layout.LinkCA(), crt, key)
	if err != nil || resp != 200 {
		t.Fatalf("with the front's certificate: %d, %v", resp, err)
	}
	st, err := os.Stat(s.Layout.VaultSocket())
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Fatalf("mode of Vault's socket: %v, %v", st.Mode(), err)
	}
}
