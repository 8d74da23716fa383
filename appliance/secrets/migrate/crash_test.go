package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/appliance/secrets/migrate/storetest"
)

func TestFakeStore(t *testing.T) {
	storetest.Suite(t, storetest.NewFake([]string{"apikeys/defined"}, nil))
}

// project is a tree of two .env files and one of code, with its plan.
type project struct {
	dir   string
	files map[string]string
	plan  *migrate.Plan
	key   *age.X25519Identity
}

func newProject(t *testing.T) *project {
	t.Helper()
	p := &project{dir: t.TempDir(), files: map[string]string{
		".env.production": "# c\r\nDB_PASSWORD='pro d-1'\r\nPORT=1\r\nAPI_KEY=prod-key-1\r\n",
		".env.staging":    "export DB_PASSWORD=stag-pw-1\nPORT=2",
		"app.py":          "import os\n\nP = os.environ['DB_PASSWORD']\n",
	}}
	for name, text := range p.files {
		write(t, p.dir, name, text)
	}
	var err error
	p.plan, err = migrate.ParsePlan("F", []byte(`format = 1
app = "a"
dialect = "python"
[[variable]]
name = "DB_PASSWORD"
file = ".env.production"
environment = "production"
kind = "kv"
path = "a/production/db-password"
[[variable]]
name = "API_KEY"
file = ".env.production"
environment = "production"
kind = "api-key"
path = "a/production/key"
[[variable]]
name = "DB_PASSWORD"
file = ".env.staging"
environment = "staging"
kind = "kv"
path = "a/staging/db-password"
`))
	if err != nil {
		t.Fatal(err)
	}
	if p.key, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	return p
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	full := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func (p *project) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (p *project) asBefore(t *testing.T) {
	t.Helper()
	for name, want := range p.files {
		if got := p.read(t, name); got != want {
			t.Fatalf("%s is %q, was %q", name, got, want)
		}
		st, err := os.Stat(filepath.Join(p.dir, name))
		if err != nil || st.Mode().Perm() != 0o640 {
			t.Fatalf("%s: mode %v, %v", name, st.Mode(), err)
		}
	}
}

func (p *project) apply(t *testing.T, s migrate.Store) (migrate.Result, error) {
	t.Helper()
	return migrate.Apply(t.Context(), migrate.ApplyOptions{Root: p.dir, Plan: p.plan, Store: s, Workers: 1})
}

func newFake() *storetest.Fake { return storetest.NewFake([]string{"apikeys/a/production/key"}, nil) }

// The nth call of Vault fails, before or after its effect, for every n; the
// next run finishes, without a version too many.
func TestApplyResumes(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			p, s := newProject(t), newFake()
			s.Fail = func(call int, _ string) (bool, bool) { return call == n, after }
			_, err := p.apply(t, s)
			if err == nil {
				if n < 10 {
					t.Fatalf("only %d calls were made", n-1)
				}
				break
			}
			if !errors.Is(err, kvtest.ErrInjected) {
				t.Fatalf("call %d: %v", n, err)
			}
			if _, err := p.apply(t, s); err != nil {
				t.Fatalf("call %d, after=%t: the next run: %v", n, after, err)
			}
			for path, want := range map[string]string{"a/production/db-password": "pro d-1", "a/staging/db-password": "stag-pw-1"} {
				got, err := s.Read(t.Context(), "secret", path)
				if err != nil || got.Data["value"] != want || got.Version != 1 {
					t.Fatalf("call %d, after=%t: %s has version %d, %v", n, after, path, got.Version, err)
				}
				if got.Notes["variable.value"] != "DB_PASSWORD" {
					t.Fatalf("call %d, after=%t: %s has notes %v", n, after, path, got.Notes)
				}
			}
			if key, _, err := s.APIKey(t.Context(), "apikeys", "a/production/key"); err != nil || key != "prod-key-1" {
				t.Fatalf("call %d: the API key is not there: %v", n, err)
			}
			p.asBefore(t)
		}
	}
}

// The nth step of a cutover fails, for every n: the files can be restored at
// once, and the cutover can be finished and then rolled back.
func TestCutoverInterrupted(t *testing.T) {
	for n := 1; ; n++ {
		p, s := newProject(t), newFake()
		if _, err := p.apply(t, s); err != nil {
			t.Fatal(err)
		}
		steps := 0
		o := migrate.CutoverOptions{Root: p.dir, Plan: p.plan, Store: s, Recipients: []age.Recipient{p.key.Recipient()}, PatchCode: true}
		o.OnePython()
		o.SetFault(func(step string) error {
			if steps++; steps == n {
				return fmt.Errorf("%s: %w", step, kvtest.ErrInjected)
			}
			return nil
		})
		_, err := migrate.Cutover(t.Context(), o)
		if err == nil {
			if n < 8 {
				t.Fatalf("only %d steps were made", n-1)
			}
			break
		}
		if !errors.Is(err, kvtest.ErrInjected) {
			t.Fatal(err)
		}
		if n%2 == 0 {
			o.SetFault(nil)
			if _, err := migrate.Cutover(t.Context(), o); err != nil {
				t.Fatalf("step %d: the next run: %v", n, err)
			}
			if got := p.read(t, ".env.production"); got != "# c\r\nPORT=1\r\n" {
				t.Fatalf("step %d: %q", n, got)
			}
			if got := p.read(t, "app.py"); !strings.Contains(got, "P = strongroom_env.environ['DB_PASSWORD']") {
				t.Fatalf("step %d: %q", n, got)
			}
		}
		if _, err := migrate.Rollback(t.Context(), migrate.RollbackOptions{Root: p.dir, Identities: []age.Identity{p.key}}); err != nil {
			t.Fatalf("step %d: rollback: %v", n, err)
		}
		p.asBefore(t)
	}
}

// The nth step of a rollback fails, for every n: the next run finishes.
func TestRollbackInterrupted(t *testing.T) {
	for n := 1; ; n++ {
		p, s := newProject(t), newFake()
		if _, err := p.apply(t, s); err != nil {
			t.Fatal(err)
		}
		cut := migrate.CutoverOptions{Root: p.dir, Plan: p.plan, Store: s, Recipients: []age.Recipient{p.key.Recipient()}, PatchCode: true}
		cut.OnePython()
		if _, err := migrate.Cutover(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		o := migrate.RollbackOptions{Root: p.dir, Identities: []age.Identity{p.key}, Store: s, Plan: p.plan}
		steps := 0
		o.SetFault(func(step string) error {
			if steps++; steps == n {
				return fmt.Errorf("%s: %w", step, kvtest.ErrInjected)
			}
			return nil
		})
		_, err := migrate.Rollback(t.Context(), o)
		if err == nil {
			if n < 8 {
				t.Fatalf("only %d steps were made", n-1)
			}
			break
		}
		if !errors.Is(err, kvtest.ErrInjected) {
			t.Fatal(err)
		}
		o.SetFault(nil)
		if _, err := migrate.Rollback(t.Context(), o); err != nil {
			t.Fatalf("step %d: the next run: %v", n, err)
		}
		p.asBefore(t)
		if got, err := s.Read(t.Context(), "secret", "a/staging/db-password"); err != nil || got.Data != nil {
			t.Fatalf("step %d: the secret is still in Vault", n)
		}
		for _, m := range []string{"strongroom-env.production.toml", "strongroom-env.staging.toml"} {
			if _, err := os.Lstat(filepath.Join(p.dir, m)); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("step %d: %s is left", n, m)
			}
		}
	}
}

// racing is a store in which somebody writes just after the look.
type racing struct {
	*storetest.Fake
	done bool
}

func (r *racing) Annotate(ctx context.Context, mount, path string, notes map[string]string) error {
	if !r.done {
		r.done = true
		if _, err := r.Write(ctx, mount, path, map[string]any{"value": "somebody's"}, 0); err != nil {
			return err
		}
	}
	return r.Fake.Annotate(ctx, mount, path, notes)
}

func TestApplyNeverOverwritesARace(t *testing.T) {
	p, s := newProject(t), &racing{Fake: newFake()}
	if _, err := p.apply(t, s); !errors.Is(err, kv.ErrChanged) {
		t.Fatalf("want ErrChanged, got %v", err)
	}
	got, err := s.Read(t.Context(), "secret", "a/production/db-password")
	if err != nil || got.Data["value"] != "somebody's" || got.Version != 1 {
		t.Fatal("somebody's value is gone")
	}
	var refused *migrate.Refused
	if _, err := p.apply(t, s); !errors.As(err, &refused) || !strings.Contains(err.Error(), "exists with another value") {
		t.Fatalf("the next run: %v", err)
	}
}
