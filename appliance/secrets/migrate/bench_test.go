package migrate_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/appliance/secrets/migrate/storetest"
)

// bigTree is n files of code and of settings, some with a secret, and a .env
// file for each ten.
func bigTree(tb testing.TB, n int) string {
	tb.Helper()
	dir := tb.TempDir()
	filler := strings.Repeat("def f(x):\n    return {'a': x, \"b\": [1, 2, 3]}  # a line of code\n", 40)
	code := map[string]string{
		".py": filler + "import os\nA = os.environ['VAR_%d']\n" + filler, ".ts": strings.Repeat("const a = { b: 1, c: 'd' };\n", 90) + "export const k = process.env.VAR_%d;\n",
		".go": strings.Repeat("func f() int { return 1 }\n", 90) + "var x = os.Getenv(\"VAR_%d\")\n", ".sh": strings.Repeat("echo one two three\n", 50) + "echo $VAR_%d\n",
		".yml": strings.Repeat("- a: 1\n  b: [c, d]\n", 50) + "- env: VAR_%d\n", ".md": strings.Repeat("text\n", 200) + "%d",
		".json":  "{\n" + strings.Repeat(" \"key\": {\"title\": \"some text\", \"items\": [1, 2, 3]},\n", 60) + " \"password\": \"Fjord-%d\"\n}\n",
		".toml":  strings.Repeat("[section]\nname = \"some text\"\nsize = 5\n", 40) + "token = \"Fjord-%d\"\n",
		".ipynb": "{\"cells\": [{\"cell_type\": \"code\", \"source\": [\n" + strings.Repeat("    \"x = f('a', 1)\\n\",\n", 60) + "    \"api_key = 'Fjord-%d'\"\n]}]}\n",
		".java":  strings.Repeat("  public int f(String a) { return g(a, \"some text\"); }\n", 60) + "String password = \"Fjord-%d\";\n",
	}
	exts := []string{".py", ".ts", ".go", ".sh", ".yml", ".md", ".py", ".json", ".ts", ".py", ".toml", ".ipynb", ".java"}
	for i := range n {
		if i%10 == 9 {
			write(tb, dir, fmt.Sprintf("d%d/s%d/.env.production", i%50, i), fmt.Sprintf("VAR_%d=value-%d\nPASSWORD_%d=q8Zr2Lw0Xv6Kt9Bn3Y%d\nLOG=info\n", i, i, i, i))
			continue
		}
		ext := exts[i%len(exts)]
		write(tb, dir, fmt.Sprintf("d%d/s%d/f%d%s", i%50, i%500, i, ext), fmt.Sprintf(code[ext], i))
	}
	return dir
}

// A tree of 10,000 files; how long it takes is BenchmarkScan's to say (the goal is
// 5 s on two cores with nothing else to do).
func TestScanOfManyFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 10,000 files")
	}
	dir := bigTree(t, 10000)
	r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Dialect: dotenv.Python})
	if err != nil || r.Files != 10000 || len(r.Variables) < 6000 || len(r.NotMoved) < 2000 {
		t.Fatalf("%d files, %d variables, %d secrets elsewhere, %v", r.Files, len(r.Variables), len(r.NotMoved), err)
	}
}

func BenchmarkScan(b *testing.B) {
	dir := bigTree(b, 10000)
	for b.Loop() {
		if _, err := migrate.Scan(b.Context(), migrate.ScanOptions{Root: dir, Dialect: dotenv.Python}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Seconds())/float64(b.N), "s/10000files")
}

// forgetful is a store that keeps one value per goroutine that writes: what the
// heap holds beside that is the migration's own.
type forgetful struct {
	*storetest.Fake
	mu      sync.Mutex
	pending map[string]any
	calls   int
	peak    uint64
}

func (f *forgetful) Read(_ context.Context, _, path string) (kv.Stored, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls++; f.calls%1000 == 0 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		f.peak = max(f.peak, m.HeapAlloc)
	}
	data, ok := f.pending[path]
	if !ok {
		return kv.Stored{}, nil
	}
	delete(f.pending, path) // read back: forgotten
	return kv.Stored{Version: 1, Data: data.(map[string]any)}, nil
}

func (f *forgetful) Write(_ context.Context, _, path string, data map[string]any, _ int) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending[path] = data
	return 1, nil
}

func (f *forgetful) Annotate(context.Context, string, string, map[string]string) error {
	return nil
}

// peakOf is the largest live heap, in bytes, while n variables with values of
// the given size are applied, ten a file.
func peakOf(t *testing.T, n, size int) uint64 {
	t.Helper()
	dir := t.TempDir()
	value := strings.Repeat("x", size)
	var plan strings.Builder
	plan.WriteString(head)
	for f := range n / 10 {
		var env strings.Builder
		for i := range 10 {
			name := fmt.Sprintf("V%d_%d", f, i)
			fmt.Fprintf(&env, "%s=%s%d\n", name, value, i)
			plan.WriteString(entry(name, fmt.Sprintf("f%d.env", f), "a/p/"+strings.ToLower(name)))
		}
		write(t, dir, fmt.Sprintf("f%d.env", f), env.String())
	}
	p, err := migrate.ParsePlan("F", []byte(plan.String()))
	if err != nil {
		t.Fatal(err)
	}
	plan.Reset()
	s := &forgetful{pending: map[string]any{}}
	r, err := migrate.Apply(t.Context(), migrate.ApplyOptions{Root: dir, Plan: p, Store: s})
	if err != nil || r.Written != n {
		t.Fatalf("%d written, %v", r.Written, err)
	}
	return s.peak
}

// Values are not kept: ten times as large ones cost next to nothing more.
// Names are: the plan is in memory.
func TestApplyMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 10,000 secrets")
	}
	small, large := peakOf(t, 5000, 400), peakOf(t, 5000, 4000)
	t.Logf("5,000 variables: %.1f MiB of heap with values of 400 bytes (2 MB in all), %.1f MiB with 4,000 (20 MB in all)", float64(small)/(1<<20), float64(large)/(1<<20))
	if large > small+4<<20 {
		t.Errorf("the heap grows with the values: %d and %d bytes", small, large)
	}
}
