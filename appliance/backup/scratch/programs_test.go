package scratch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/config"
)

func TestServerOf(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	for says, want := range map[string]config.Server{
		"echo 'Vault v1.21.1, built 2025-11-18'":       {Product: config.ProductVault, Version: "1.21.1"},
		"echo 'OpenBao v2.7.2 (9e0a0d3), committed …'": {Product: config.ProductOpenBao, Version: "2.7.2"},
		"echo Consul v1.9.0":                           {},
		"echo Vault v1.21.1; exit 3":                   {},
		"true":                                         {},
	} {
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+says+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := ServerOf(t.Context(), program); got != want || errors.Is(err, ErrNoServer) != (want == config.Server{}) {
			t.Errorf("%s: %v, %v", says, got, err)
		}
	}
	// Of one that a busy machine does not let answer in time nobody knows what it is.
	late, cancel := context.WithDeadline(t.Context(), time.Time{})
	defer cancel()
	if _, err := ServerOf(late, program); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNoServer) {
		t.Errorf("too late: %v", err)
	}
	for path, want := range map[string]error{dir: ErrNoServer, filepath.Join(dir, "none"): os.ErrNotExist} {
		if _, err := ServerOf(t.Context(), path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestPluginVersion(t *testing.T) {
	program := filepath.Join(t.TempDir(), "plugin")
	for says, want := range map[string]string{
		"echo vault-plugin-secrets-apikeys 0.1.0 '(abc)'":     "0.1.0",
		"echo vault-plugin-secrets-apikeys v1.2.3-rc.1+x":     "1.2.3-rc.1+x",
		"echo Vault v1.21.1 '(abc)'":                          "", // another program's
		"echo 0.1.0":                                          "",
		"echo vault-plugin-secrets-apikeys one":               "",
		"true":                                                "",
		"echo vault-plugin-secrets-apikeys 1.0.0; exit 1":     "",
		`echo "vault-plugin-secrets-apikeys 1.$#.${HOME:-0}"`: "1.1.0", // one argument, and nobody's environment
	} {
		if err := os.WriteFile(program, []byte("#!/bin/sh\n"+says+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := PluginVersion(t.Context(), program); got != want || errors.Is(err, ErrNoPlugin) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", says, got, err, want)
		}
	}
	if _, err := PluginVersion(t.Context(), "/no/such/program"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

// The storage is one product's: the other's program is refused before this one is
// stopped.
func TestSwapVaultRefusesTheOtherProduct(t *testing.T) {
	program := filepath.Join(t.TempDir(), "bao")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho OpenBao v2.7.2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	v := &Vault{Server: config.Server{Product: config.ProductVault, Version: "1.21.1"}} // no process to stop
	if err := v.SwapVault(t.Context(), program); err == nil || !strings.Contains(err.Error(), "reads the other's storage") {
		t.Errorf("error = %v", err)
	}
}
