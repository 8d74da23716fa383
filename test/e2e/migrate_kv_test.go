package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/appliance/secrets/migrate/storetest"
	"strongroom.example/test/vaulttest"
)

// The real Vault passes the suite that the one in memory passes.
func TestMigrateStoreConformance(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	s.MountAPIKeys(t)
	l := vaulttest.API(s.Root).Logical()
	for path, data := range map[string]map[string]any{
		"apikeys/providers/people": {"type": "manual"},
		"sys/mounts/database":      {"type": "database"},
	} {
		if _, err := l.WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.WriteWithContext(t.Context(), "apikeys/keys/defined", map[string]any{"provider": "people"}); err != nil {
		t.Fatal(err)
	}
	t.Run("kv", func(t *testing.T) { kvtest.Suite(t, kv.New(s.Root)) })
	storetest.Suite(t, migrate.NewVault(s.Root))
}

// kvState is a secret as Vault shows it, without its times.
func kvState(t *testing.T, s *vaulttest.Server, mount, path string) string {
	t.Helper()
	l := vaulttest.API(s.Root).Logical()
	meta, err := l.ReadWithContext(t.Context(), mount+"/metadata/"+path)
	if err != nil {
		t.Fatal(err)
	}
	if meta == nil {
		return "none"
	}
	versions := meta.Data["versions"].(map[string]any)
	out := map[string]any{}
	for _, k := range []string{"max_versions", "cas_required", "delete_version_after", "custom_metadata", "current_version"} {
		out[k] = meta.Data[k]
	}
	for n := range versions {
		v, err := l.ReadWithDataWithContext(t.Context(), mount+"/data/"+path, map[string][]string{"version": {n}})
		if err != nil {
			t.Fatal(err)
		}
		out[n] = nil
		if v != nil {
			out[n] = v.Data["data"]
		}
	}
	data, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Export and import keep versions, gaps and metadata; a damaged file changes
// nothing; rollback shows names and never values.
func TestKVExportImportRollback(t *testing.T) {
	s := vaulttest.New(t)
	for _, m := range []string{"secret", "other"} {
		if err := s.Root.EnableKV2(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	l := vaulttest.API(s.Root).Logical()
	put := func(path string, data map[string]any) {
		t.Helper()
		if _, err := l.WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	secrets := map[string]string{"one": "value-one-4711", "two": "value-two-4711", "three": "value-three-4711"}
	put("secret/metadata/app/p/rotated", map[string]any{"max_versions": 3, "custom_metadata": map[string]any{"owner": "team"}})
	for _, v := range []string{"old", "one", "two", "three"} {
		value := secrets[v]
		if value == "" {
			value = "value-old-4711"
		}
		put("secret/data/app/p/rotated", map[string]any{"data": map[string]any{"value": value, v: 1234567890123}})
	}
	put("secret/destroy/app/p/rotated", map[string]any{"versions": []int{3}})
	put("secret/data/app/p/nested/key", map[string]any{"data": map[string]any{"tree": map[string]any{"a": []any{1, "x", nil}}, "big": "9007199254740993"}})
	put("secret/data/app/p/deleted", map[string]any{"data": map[string]any{"value": "gone"}})
	put("secret/delete/app/p/deleted", map[string]any{"versions": []int{1}})

	dir := t.TempDir()
	recipient, identity := newKey(t)
	o := newOperator(t, s, dir, secrets)
	file := filepath.Join(dir, "export.age")
	o.must(2, "kv", "export", "app/p/rotated")
	o.must(2, "kv", "export", "../x", "--recipient", recipient, "--output", file)
	o.must(1, "kv", "export", "nowhere/", "--recipient", recipient, "--output", file)
	if _, err := os.Lstat(file); err == nil {
		t.Fatal("a failed export leaves a file")
	}
	left := filepath.Join(dir, ".export.age.tmp-4711") // of one that was killed
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := o.must(0, "kv", "export", "app/", "--recipient", recipient, "--output", file); !strings.Contains(out, "3 secrets") {
		t.Errorf("export: %s", out)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left of an export is still there: %v", err)
	}
	sealed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("4711")) {
		t.Fatal("the export holds a value in clear")
	}

	// Into another mount, and it is the same there.
	if out := o.must(0, "kv", "import", file, "--identity", identity, "--mount", "other", "--dry-run"); !strings.Contains(out, "app/p/rotated: would be created") {
		t.Errorf("a dry run tells of what it has not done: %s", out)
	}
	if got := kvState(t, s, "other", "app/p/rotated"); got != "none" {
		t.Fatalf("a dry run writes: %s", got)
	}
	o.must(0, "kv", "import", file, "--identity", identity, "--mount", "other")
	for _, p := range []string{"app/p/rotated", "app/p/nested/key"} {
		if got, want := kvState(t, s, "other", p), kvState(t, s, "secret", p); got != want {
			t.Errorf("%s is\n%s, was\n%s", p, got, want)
		}
	}
	if out := o.must(0, "kv", "import", file, "--identity", identity, "--mount", "other"); !strings.Contains(out, "app/p/rotated: unchanged") {
		t.Errorf("second import: %s", out)
	}

	// Conflicts, damage, strangers.
	put("other/data/app/p/nested/key", map[string]any{"data": map[string]any{"tree": "changed"}})
	before := kvState(t, s, "other", "app/p/nested/key")
	o.must(3, "kv", "import", file, "--identity", identity, "--mount", "other")
	_, stranger := newKey(t)
	o.must(4, "kv", "import", file, "--identity", stranger, "--mount", "other")
	for _, n := range []int{10, len(sealed) / 2, len(sealed) - 1} {
		cut := filepath.Join(dir, "cut.age")
		if err := os.WriteFile(cut, sealed[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		o.must(3, "kv", "import", cut, "--identity", identity, "--mount", "other", "--force")
	}
	if after := kvState(t, s, "other", "app/p/nested/key"); after != before {
		t.Errorf("a refused import has changed %s to %s", before, after)
	}
	o.must(0, "kv", "import", file, "--identity", identity, "--mount", "other", "--force")

	// Rollback: names only.
	path := "app/p/rotated"
	out := o.must(0, "kv", "rollback", path, "--to-version", "2")
	for _, want := range []string{"version 4 → 2", "added one", "removed three", "changed value", "nothing was written"} {
		if !strings.Contains(out, want) {
			t.Errorf("rollback lacks %q: %s", want, out)
		}
	}
	o.must(0, "kv", "rollback", path, "--to-version", "2", "--yes")
	got, err := migrate.NewVault(s.Root).Read(t.Context(), "secret", path)
	if err != nil || got.Version != 5 || got.Data["value"] != secrets["one"] {
		t.Errorf("after the rollback: version %d, %q, %v", got.Version, slices.Sorted(maps.Keys(got.Data)), err)
	}
	for _, bad := range [][]string{{path, "--to-version", "3"}, {path, "--to-version", "9"}, {"app/p/none", "--to-version", "1"}} {
		o.must(1, append([]string{"kv", "rollback"}, bad...)...)
	}
	o.must(2, "kv", "rollback", path)
	if out, _ := o.reveal("kv", "rollback", path, "--to-version", "4", "--reveal"); !strings.Contains(out, secrets["three"]) {
		t.Errorf("--reveal shows nothing: %s", out)
	}
}
