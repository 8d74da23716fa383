package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/test/vaulttest"
)

// The goal is 5,000 variables in less than 60 s, against a real Vault, on a machine
// with nothing else to do. What it takes is logged; far more than that fails;
// and a run again, when nothing is to be written.
func TestMigrateSpeed(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	// What others have noted of a secret stays.
	_, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "secret/metadata/big/production/v0", map[string]any{"custom_metadata": map[string]string{"owner": "team"}})
	if err != nil {
		t.Fatal(err)
	}
	const n = 5000
	dir := t.TempDir()
	plan := &migrate.Plan{Format: 1, App: "big", Dialect: "python", Mount: "secret"}
	for f := range n / 100 {
		file := fmt.Sprintf("s%d.env", f)
		var b strings.Builder
		for i := range 100 {
			name := fmt.Sprintf("V%d", f*100+i)
			fmt.Fprintf(&b, "%s='value of %s, 0123456789abcdef'\n", name, name)
			plan.Variable = append(plan.Variable, migrate.Entry{Name: name, File: file, Environment: "production", Kind: migrate.KindKV, Path: "big/production/" + strings.ToLower(name)})
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plan, err = migrate.ParsePlan("plan", plan.Encode())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []migrate.Result{{Written: n}, {Unchanged: n}} {
		start := time.Now()
		r, err := migrate.Apply(t.Context(), migrate.ApplyOptions{Root: dir, Plan: plan, Store: migrate.NewVault(s.Root)})
		took := time.Since(start)
		if err != nil || r.Written != want.Written || r.Unchanged != want.Unchanged {
			t.Fatalf("%+v, %v", r, err)
		}
		t.Logf("%d variables: %d written and read back, %d unchanged, in %v", n, r.Written, r.Unchanged, took)
		if took > 10*time.Minute {
			t.Errorf("%v is far more than 60 s", took)
		}
	}
	meta, err := vaulttest.API(s.Root).Logical().ReadWithContext(t.Context(), "secret/metadata/big/production/v0")
	if err != nil {
		t.Fatal(err)
	}
	if notes := fmt.Sprint(meta.Data["custom_metadata"]); !strings.Contains(notes, "owner:team") || !strings.Contains(notes, "variable.value:V0") {
		t.Errorf("notes of the secret: %s", notes)
	}
}
