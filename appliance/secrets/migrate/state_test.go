package migrate_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/secrets/appenv"
	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/appliance/secrets/migrate/storetest"
)

// site is a tree of somebody's, and the Vault of all.
type site struct {
	t     testing.TB
	dir   string
	store *storetest.Fake
	key   *age.X25519Identity
	plan  *migrate.Plan
	notes []string
	fault func(string) error
	anew  bool // plan --force

	exclude []string
}

func newSite(t testing.TB, files map[string]string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), store: storetest.NewFake(nil, nil)}
	for name, text := range files {
		write(t, s.dir, name, text)
	}
	var err error
	if s.key, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	return s
}

// replan is strongroom migrate plan.
func (s *site) replan(named ...string) error {
	envs := map[string]string{}
	for _, n := range named {
		file, env, _ := strings.Cut(n, "=")
		envs[file] = env
	}
	file := filepath.Join(s.dir, migrate.PlanFile)
	old, err := migrate.ReadPlan(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	all := map[string]string{}
	if old != nil {
		all = old.FileEnvironments()
	}
	maps.Copy(all, envs)
	r, err := migrate.Scan(s.t.Context(), migrate.ScanOptions{Root: s.dir, Dialect: dotenv.Python, Environments: all, Exclude: s.exclude})
	if err != nil {
		return err
	}
	if fatal := r.Fatal(); len(fatal) > 0 {
		return fmt.Errorf("fatal: %v", fatal)
	}
	fresh, err := migrate.NewPlan(r, "app")
	if err != nil {
		return err
	}
	fresh.Exclude = s.exclude
	p, notes, err := migrate.Replan(migrate.ReplanOptions{Root: s.dir, Old: old, Fresh: fresh, Named: envs, Anew: s.anew})
	if err != nil {
		return err
	}
	s.notes = notes
	if err := migrate.WritePlan(s.dir, file, p.Encode()); err != nil {
		return err
	}
	s.plan, err = migrate.LoadPlan(file)
	return err
}

func (s *site) apply(force bool) (migrate.Result, error) {
	o := migrate.ApplyOptions{Root: s.dir, Plan: s.plan, Store: s.store, Workers: 1, Force: force}
	o.SetFault(s.fault)
	return migrate.Apply(s.t.Context(), o)
}

func (s *site) cutover() (migrate.CutoverReport, error) {
	o := migrate.CutoverOptions{Root: s.dir, Plan: s.plan, Store: s.store, Recipients: []age.Recipient{s.key.Recipient()}, PatchCode: true}
	o.SetFault(s.fault)
	o.OnePython()
	return migrate.Cutover(s.t.Context(), o)
}

func (s *site) rollback(vault bool) (migrate.RollbackReport, error) {
	o := migrate.RollbackOptions{Root: s.dir, Identities: []age.Identity{s.key}, Plan: s.plan}
	if vault {
		o.Store = s.store
	}
	o.SetFault(s.fault)
	return migrate.Rollback(s.t.Context(), o)
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// move is plan, apply and cutover.
func (s *site) move() {
	s.t.Helper()
	s.must(s.replan())
	_, err := s.apply(false)
	s.must(err)
	r, err := s.cutover()
	s.must(err)
	if len(r.Unplanned) > 0 {
		s.t.Fatalf("unplanned: %v", r.Unplanned)
	}
}

func (s *site) is(name, want string) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil && (want != "" || !errors.Is(err, os.ErrNotExist)) {
		s.t.Fatal(err)
	}
	if string(data) != want {
		s.t.Fatalf("%s is %q, want %q", name, data, want)
	}
}

var mappingLine = regexp.MustCompile(`(?m)^(\w+) = \{ engine = "kv", mount = "secret", path = "([^"]+)", field = "([^"]+)" \}$`)

// reads is what a program finds by a mapping file: the values in Vault.
func (s *site) reads(file string) map[string]string {
	s.t.Helper()
	out := map[string]string{}
	data, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	for _, m := range mappingLine.FindAllStringSubmatch(string(data), -1) {
		got, err := s.store.Read(s.t.Context(), "secret", m[2])
		s.must(err)
		value, _ := got.Data[m[3]].(string)
		out[m[1]] = value
	}
	return out
}

func (s *site) readsAs(file string, want map[string]string) {
	s.t.Helper()
	if got := s.reads(file); !maps.Equal(got, want) {
		s.t.Fatalf("by %s a program reads %v, want %v", file, got, want)
	}
}

// A second migration in one tree: what was moved before stays readable, whatever
// became of plan and files in between.
func TestSecondMigration(t *testing.T) {
	both := map[string]string{"A_PASSWORD": "first-value-1", "B_TOKEN": "second-value-2"}
	tests := []struct {
		name    string
		between func(s *site)
		files   map[string]map[string]string // what is read by each
	}{
		{"added to the file", func(s *site) { write(s.t, s.dir, ".env", "B_TOKEN=second-value-2\n") }, map[string]map[string]string{migrate.MappingFile: both}},
		{"added, and planned anew", func(s *site) {
			write(s.t, s.dir, ".env", "B_TOKEN=second-value-2\n")
			s.anew = true
		}, map[string]map[string]string{migrate.MappingFile: both}},
		{"added, and the plan gone", func(s *site) {
			write(s.t, s.dir, ".env", "B_TOKEN=second-value-2\n")
			s.must(os.Remove(filepath.Join(s.dir, migrate.PlanFile)))
		}, map[string]map[string]string{migrate.MappingFile: both}},
		{"added in another file of the environment", func(s *site) { write(s.t, s.dir, "web/.env", "B_TOKEN=second-value-2\n") }, map[string]map[string]string{migrate.MappingFile: both}},
		{"the file renamed", func(s *site) {
			s.must(os.Remove(filepath.Join(s.dir, ".env")))
			write(s.t, s.dir, "conf/.env", "B_TOKEN=second-value-2\n")
		}, map[string]map[string]string{migrate.MappingFile: both}},
		{"the name left empty", func(s *site) { write(s.t, s.dir, ".env", "A_PASSWORD=\nB_TOKEN=second-value-2\n") }, map[string]map[string]string{migrate.MappingFile: both}},
		{"set again with the same value", func(s *site) { write(s.t, s.dir, ".env", "A_PASSWORD=first-value-1\nB_TOKEN=second-value-2\n") }, map[string]map[string]string{migrate.MappingFile: both}},
		{"another environment", func(s *site) {
			write(s.t, s.dir, ".env.production", "A_PASSWORD=prod-value-3\n")
			write(s.t, s.dir, ".env", "B_TOKEN=second-value-2\n")
		}, map[string]map[string]string{
			migrate.MappingFile: both, "strongroom-env.development.toml": both, "strongroom-env.production.toml": {"A_PASSWORD": "prod-value-3"},
		}},
		{"a name of somebody else in the mapping", func(s *site) {
			file := filepath.Join(s.dir, migrate.MappingFile)
			data, err := os.ReadFile(file)
			s.must(err)
			_, err = s.store.Write(t.Context(), "secret", "other", map[string]any{"x": "theirs"}, 0)
			s.must(err)
			write(s.t, s.dir, migrate.MappingFile, string(data)+"THEIRS = { path = \"other\", field = \"x\" }\n")
			write(s.t, s.dir, ".env", "B_TOKEN=second-value-2\n")
		}, map[string]map[string]string{migrate.MappingFile: {"A_PASSWORD": "first-value-1", "B_TOKEN": "second-value-2", "THEIRS": "theirs"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\n"})
			s.move()
			s.readsAs(migrate.MappingFile, map[string]string{"A_PASSWORD": "first-value-1"})
			tt.between(s)
			s.move()
			for file, want := range tt.files {
				s.readsAs(file, want)
			}
			before := tree(t, s.dir)
			s.move()
			if after := tree(t, s.dir); !maps.Equal(before, after) {
				t.Errorf("run again it changes %v to %v", before, after)
			}
		})
	}
}

// Nothing is planned away that programs read.
func TestMovedIsNeverPlain(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\nB_TOKEN=second-value-2\n"})
	s.move()
	s.plan.Variable[0].Kind = migrate.KindPlain
	_, err := s.apply(false)
	if err == nil || !strings.Contains(err.Error(), "was moved to secret/app/development/a-password") {
		t.Fatalf("got %v", err)
	}
	s.plan.Variable[0].Kind, s.plan.Variable[0].Path = migrate.KindKV, "elsewhere"
	_, err = s.apply(false)
	if err == nil || !strings.Contains(err.Error(), "it was moved to secret/app/development/a-password: plan it there") {
		t.Fatalf("got %v", err)
	}
	s.readsAs(migrate.MappingFile, map[string]string{"A_PASSWORD": "first-value-1", "B_TOKEN": "second-value-2"})
	// With the value written into the file it may be.
	write(t, s.dir, ".env", "A_PASSWORD=first-value-1\n")
	s.plan.Variable[0].Kind = migrate.KindPlain
	_, err = s.apply(false)
	s.must(err)
	s.readsAs(migrate.MappingFile, map[string]string{"B_TOKEN": "second-value-2"})
}

// The cutover takes nothing out that no mapping file has.
func TestCutoverWithoutMapping(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\n"})
	s.must(s.replan())
	_, err := s.apply(false)
	s.must(err)
	s.must(os.Remove(filepath.Join(s.dir, migrate.MappingFile)))
	_, err = s.cutover()
	if err == nil || !strings.Contains(err.Error(), "no mapping file of development says that A_PASSWORD") {
		t.Fatalf("got %v", err)
	}
	s.is(".env", "A_PASSWORD=first-value-1\n")
	_, err = s.apply(false)
	s.must(err)
	_, err = s.cutover()
	s.must(err)
}

// Services that have a variable in common need environments of their own.
func TestSameNameInTwoServices(t *testing.T) {
	s := newSite(t, map[string]string{"api/.env": "DB_PASSWORD=api-value-1\n", "web/.env": "DB_PASSWORD=web-value-2\n", "job/.env.production": "DB_PASSWORD=job-value-3\n"})
	err := s.replan()
	for _, want := range []string{`environment "development"`, "--env-file api/.env=api-development --env-file web/.env=web-development"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%q is not in %v", want, err)
		}
	}
	s.must(s.replan("api/.env=api-development", "web/.env=web-development"))
	s.move()
	s.readsAs("strongroom-env.api-development.toml", map[string]string{"DB_PASSWORD": "api-value-1"})
	s.readsAs("strongroom-env.web-development.toml", map[string]string{"DB_PASSWORD": "web-value-2"})
	s.readsAs("strongroom-env.production.toml", map[string]string{"DB_PASSWORD": "job-value-3"})
	// Both files have the environment by their names: what to do is said, and works.
	for _, files := range [][2]string{{".env", ".env.development"}, {".env.production", "production.env"}, {".env", ".env.local"}, {"api/.env", "api/.env.dev"}} {
		s := newSite(t, map[string]string{files[0]: "DB_PASSWORD=one-value-1\n", files[1]: "DB_PASSWORD=two-value-2\n"})
		err := s.replan()
		hint := regexp.MustCompile(`--env-file (\S+?)[;, ]`).FindAllStringSubmatch(fmt.Sprint(err), -1)
		if err == nil || len(hint) == 0 {
			t.Errorf("%q: %v", files, err)
			continue
		}
		var named []string
		for _, h := range hint {
			named = append(named, h[1])
		}
		if err := s.replan(named...); err != nil {
			t.Errorf("%q, as it says: %v", files, err)
		}
	}
	for _, path := range []string{"a/x", "a/y"} {
		_, err := migrate.ParsePlan("F", []byte(head+entry("A", "api/.env", path)+entry("A", "web/.env", path+"2")))
		if err == nil || !strings.Contains(err.Error(), "two secrets of the environment") {
			t.Errorf("other paths: %v", err)
		}
	}
	if _, err := migrate.ParsePlan("F", []byte(head+entry("A", "api/.env", "x")+"shared = true\n"+entry("A", "web/.env", "x")+"shared = true\n")); err != nil {
		t.Errorf("one secret: %v", err)
	}
}

// Layouts that people have: moved, read by programs, and back byte for byte, also
// when it was edited in between.
func TestLayoutsThereAndBack(t *testing.T) {
	const one = "first-value-1"
	for name, tt := range map[string]struct {
		files map[string]string
		links map[string]string // to, by where
		mode  os.FileMode
		cut   map[string]string // what the cutover leaves
	}{
		"CRLF":             {files: map[string]string{".env": "# c\r\nP=1\r\nA_PASSWORD=" + one + "\r\nQ=2\r\n"}, cut: map[string]string{".env": "# c\r\nP=1\r\nQ=2\r\n"}},
		"BOM and CRLF":     {files: map[string]string{".env": "\ufeffA_PASSWORD=" + one + "\r\nQ=2\r\n"}, cut: map[string]string{".env": "\ufeffQ=2\r\n"}},
		"no end of line":   {files: map[string]string{".env": "P=1\nA_PASSWORD=" + one}, cut: map[string]string{".env": "P=1\n"}},
		"nothing else":     {files: map[string]string{".env": "A_PASSWORD=" + one + "\n"}, cut: map[string]string{".env": ""}},
		"twice in a file":  {files: map[string]string{".env": "A_PASSWORD=older-value-0\nP=1\nA_PASSWORD=" + one + "\n"}, cut: map[string]string{".env": "P=1\n"}},
		"several lines":    {files: map[string]string{".env": "B='x\ny'\nA_PASSWORD='" + one + "'\nC=\"z\n\"\n"}, cut: map[string]string{".env": "B='x\ny'\nC=\"z\n\"\n"}},
		"read-only":        {files: map[string]string{".env": "P=1\nA_PASSWORD=" + one + "\n"}, mode: 0o400, cut: map[string]string{".env": "P=1\n"}},
		"a link to it":     {files: map[string]string{".env": "P=1\nA_PASSWORD=" + one + "\n"}, links: map[string]string{"web/.env": "../.env"}, cut: map[string]string{".env": "P=1\n"}},
		"odd folders":      {files: map[string]string{"-x/a [b]*/it's \"é\"/.env": "P=1\nA_PASSWORD=" + one + "\n"}, cut: map[string]string{"-x/a [b]*/it's \"é\"/.env": "P=1\n"}},
		"two share one":    {files: map[string]string{".env": "P=1\nA_PASSWORD=" + one + "\n", "api/compose.yml": "services:\n  a:\n    env_file: ../.env\n", "web/compose.yml": "services:\n  b:\n    env_file: [../.env]\n"}, cut: map[string]string{".env": "P=1\n"}},
		"spaces around":    {files: map[string]string{".env": "  A_PASSWORD = " + one + "   # why\n\n\nP=1\n"}, cut: map[string]string{".env": "\n\nP=1\n"}},
		"of an old Mac":    {files: map[string]string{".env": "P=1\rA_PASSWORD=" + one + "\rQ=2\r"}, cut: map[string]string{".env": "P=1\rQ=2\r"}},
		"in many services": {files: map[string]string{"a/.env": "A_PASSWORD=" + one + "\n", "b/.env": "B_TOKEN=second-value-2\n", "c/.env": "C_SECRET=third-value-3\n"}, cut: map[string]string{"a/.env": "", "b/.env": "", "c/.env": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, tt.files)
			for at, to := range tt.links {
				s.must(os.MkdirAll(filepath.Join(s.dir, filepath.Dir(at)), 0o755))
				s.must(os.Symlink(to, filepath.Join(s.dir, at)))
			}
			if tt.mode != 0 {
				for file := range tt.files {
					s.must(os.Chmod(filepath.Join(s.dir, file), tt.mode))
				}
			}
			s.move()
			if got := s.reads(migrate.MappingFile)["A_PASSWORD"]; got != one {
				t.Errorf("a program reads %q", got)
			}
			for file, want := range tt.cut {
				s.is(file, want)
			}
			_, err := s.rollback(true)
			s.must(err)
			for file, want := range tt.files {
				s.is(file, want)
			}
			// Once more, and an edit in between stays.
			s.move()
			for file, left := range tt.cut {
				s.must(os.Chmod(filepath.Join(s.dir, file), 0o600))
				s.must(os.WriteFile(filepath.Join(s.dir, file), []byte(left+"LATER=1\n"), 0o600))
			}
			_, err = s.rollback(false)
			s.must(err)
			for file := range tt.cut {
				data, err := os.ReadFile(filepath.Join(s.dir, file))
				s.must(err)
				vars, err := dotenv.Parse(data, dotenv.Python)
				s.must(err)
				all, err := vars.Resolve(nil)
				s.must(err)
				values := map[string]string{}
				for _, v := range all {
					values[v.Name] = v.Value
				}
				if values["LATER"] != "1" || strings.Contains(tt.files[file], "A_PASSWORD") && values["A_PASSWORD"] != one {
					t.Errorf("%s after an edit and the rollback: %q", file, data)
				}
			}
		})
	}
}

// Composite values are counted with their parts, and the plan says that they go as
// a whole.
func TestCompositeValues(t *testing.T) {
	dir := plant(t, map[string]string{".env": "DATABASE_URL=postgres://app:inv-77-pass@db.example:5432/app\nDB_PASSWORD=inv-78-pass\nDSN='host=db user=app password=inv-79-pass'\nPORT=1\n"})
	r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	p, err := migrate.NewPlan(r, "app")
	if err != nil {
		t.Fatal(err)
	}
	whole := p.Composite(r)
	if len(whole) != 2 || whole[0].Line != 1 || !strings.Contains(whole[0].Why, "DATABASE_URL holds the password of the URL") || whole[1].Line != 3 {
		t.Errorf("got %v", whole)
	}
	for i := range p.Variable {
		p.Variable[i].Kind = migrate.KindPlain
	}
	if whole := p.Composite(r); len(whole) > 0 || strings.Contains(fmt.Sprint(whole), "inv-7") {
		t.Errorf("what stays plain: %v", whole)
	}
}

// A secret that came after the plan is told, and so is one that was planned plain
// when it was none.
func TestAddedAfterPlan(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\nC_TOKEN=changeme\n"})
	s.must(s.replan())
	_, err := s.apply(false)
	s.must(err)
	write(t, s.dir, ".env", "A_PASSWORD=first-value-1\nC_TOKEN=third-value-3\nB_TOKEN=second-value-2\n")
	write(t, s.dir, "deep/down/.env.production", "D_PASSWORD=fourth-value-4\n")
	r, err := s.cutover()
	s.must(err)
	got := fmt.Sprint(r.Unplanned)
	for _, want := range []string{".env:2: C_TOKEN", ".env:3: B_TOKEN", "deep/down/.env.production:1: D_PASSWORD"} {
		if !strings.Contains(got, want) || len(r.Unplanned) != 3 {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	s.move() // finds all of them
	s.is(".env", "")
}

// A file that was given an environment keeps it for what comes later, and what was
// excluded is not told at every cutover.
func TestChoicesStay(t *testing.T) {
	s := newSite(t, map[string]string{"api/.env": "DB_PASSWORD=api-value-1\n", "web/.env": "DB_PASSWORD=web-value-2\n", "fixtures/.env": "X_TOKEN=third-value-3\n", "notes.env": "this is\nno env file\n"})
	s.exclude = []string{"fixtures"}
	s.must(s.replan("api/.env=api", "web/.env=web"))
	s.move()
	write(t, s.dir, "api/.env", "E_TOKEN=fifth-value-5\n")
	s.move()
	s.readsAs("strongroom-env.api.toml", map[string]string{"DB_PASSWORD": "api-value-1", "E_TOKEN": "fifth-value-5"})
	s.is("fixtures/.env", "X_TOKEN=third-value-3\n")
	// Of a file that was moved nobody but a person knows which it was.
	s.must(os.Rename(filepath.Join(s.dir, "web"), filepath.Join(s.dir, "front")))
	write(t, s.dir, "front/.env", "G_TOKEN=seventh-value-7\n")
	s.must(s.replan())
	if said := strings.Join(s.notes, "\n"); !strings.Contains(said, "front/.env is new, of the environment development, and web/.env of web has gone: if it is that file, plan again with --env-file front/.env=web") {
		t.Errorf("notes: %q", said)
	}
	s.must(s.replan("front/.env=web"))
	if len(s.notes) > 0 {
		t.Errorf("notes: %q", s.notes)
	}
	if again, err := migrate.ParsePlan("F", s.plan.Encode()); err != nil || !slices.Equal(again.Exclude, s.exclude) {
		t.Errorf("%v, %v", again, err)
	}
}

// What two people's histories say of a variable is no contradiction of their plans.
func TestTwoBranchesWithTwoReasons(t *testing.T) {
	entry := func(why, path string) string {
		return "format = 1\napp = \"a\"\ndialect = \"python\"\n\n[[variable]]\nname = \"A_PASSWORD\"\nfile = \".env\"\nenvironment = \"development\"\nkind = \"kv\"\npath = \"" + path + "\"\nwhy = \"" + why + "\"\n"
	}
	file := filepath.Join(t.TempDir(), migrate.PlanFile)
	for path, taken := range map[string]bool{"a/x": true, "a/y": false} {
		text := "<<<<<<< HEAD\n" + entry("the name", "a/x") + "=======\n" + entry("the name; stands in git's history since 0123: rotate it", path) + ">>>>>>> theirs\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := migrate.ReadPlan(file); (err == nil) != taken || taken && len(p.Variable) != 1 {
			t.Errorf("%s: %+v, %v", path, p, err)
		}
	}
}

// No diff shows what stands in the code, and the defaults are told.
func TestDryRunHidesCode(t *testing.T) {
	s := newSite(t, map[string]string{".env": "DB_PASSWORD=first-value-1\nPIN_TOKEN=8712345\n", "app.py": `import os
A = os.getenv("DB_PASSWORD", "fallback-Secret-77")
B = os.environ.get(
    "DB_PASSWORD",
    'fallback-'
    "Secret-78",
)
C = os.environ.get("DB_PASSWORD") or "fallback-Secret-79"
D = os.environ["DB_PASSWORD"] if "DB_PASSWORD" in os.environ else """fallback
-Secret-80"""
E = int(os.getenv("PIN_TOKEN", 87654321))
API_KEY = "fallback-Secret-81"
F = {"password": "fallback-Secret-82", "db": os.getenv("DB_PASSWORD")}
G = os.getenv("DB_PASSWORD")  # password: fallback-Secret-83
H: str = os.environ.get("DB_PASSWORD", default=rb"fallback-Secret-84")
`})
	s.must(s.replan())
	_, err := s.apply(false)
	s.must(err)
	r, err := migrate.Cutover(t.Context(), migrate.CutoverOptions{Root: s.dir, Plan: s.plan, Store: s.store, DryRun: true})
	s.must(err)
	i := slices.IndexFunc(r.Changes, func(c migrate.Change) bool { return c.File == "app.py" })
	if i < 0 || r.Changes[i].Diff == "" {
		t.Fatalf("%+v", r.Changes)
	}
	text := r.Changes[i].Diff
	for _, value := range []string{"fallback", "Secret", "87654321"} {
		if strings.Contains(text, value) {
			t.Errorf("it shows %s:\n%s", value, text)
		}
	}
	if !strings.Contains(text, `+A = strongroom_env.getenv("DB_PASSWORD", "•••")`) {
		t.Errorf("the patch is not to be seen:\n%s", text)
	}
	notes := strings.Join(r.Changes[i].ByHand, "\n")
	for _, line := range []int{2, 5, 8, 9, 11, 15} {
		if !strings.Contains(notes, fmt.Sprintf("line %d: ", line)) {
			t.Errorf("the default in line %d is not told:\n%s", line, notes)
		}
	}
}

// Two people on two branches: git merges what lies apart, and what it cannot is
// made one by the next plan and apply.
func TestTwoBranches(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here")
	}
	s := newSite(t, map[string]string{".gitignore": ".env\n", ".env": "B_TOKEN=base-value-1\nP=1\n"})
	git := func(args ...string) error {
		c := exec.Command("git", append([]string{"-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "merge.conflictStyle=diff3"}, args...)...)
		c.Dir = s.dir
		out, err := c.CombinedOutput()
		if err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
		return nil
	}
	commit := func() { s.must(errors.Join(git("add", "-A"), git("commit", "-qm", "m"))) }
	s.must(git("init", "-qb", "main"))
	s.move()
	commit()
	for _, one := range []struct{ branch, line string }{{"one", "C_TOKEN=one-value-2\n"}, {"two", "D_TOKEN=two-value-3\n"}} {
		s.must(git("checkout", "-qb", one.branch, "main"))
		write(t, s.dir, ".env", one.line+"P=1\n")
		s.move()
		commit()
	}
	if err := git("merge", "-q", "one"); err == nil {
		t.Log("git needed no help")
	}
	s.move()
	s.readsAs(migrate.MappingFile, map[string]string{"B_TOKEN": "base-value-1", "C_TOKEN": "one-value-2", "D_TOKEN": "two-value-3"})
	if len(s.plan.Variable) != 4 {
		t.Errorf("the plan has %d variables", len(s.plan.Variable))
	}
}

// The state folder and what is committed hold no value, and no sum of a file.
func TestNothingToGuess(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=8712\nC_PIN=1234\n"})
	s.must(s.replan())
	_, err := s.apply(false)
	s.must(err)
	_, err = s.cutover()
	s.must(err)
	_, err = s.rollback(true)
	s.must(err)
	sums := regexp.MustCompile(`[0-9a-fA-F]{32}|8712`)
	s.must(filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".age") || d.Name() == ".env" {
			return err
		}
		data, err := os.ReadFile(path)
		if m := sums.Find(data); m != nil {
			t.Errorf("%s holds %s", path, m)
		}
		return err
	}))
}

// A cutover that stops half way tells what it did.
func TestCutoverTellsWhereItStopped(t *testing.T) {
	s := newSite(t, map[string]string{"a/.env": "A_PASSWORD=first-value-1\n", "b/.env": "B_TOKEN=second-value-2\n"})
	s.must(s.replan())
	_, err := s.apply(false)
	s.must(err)
	s.fault = func(step string) error {
		if step == "write b/.env" {
			return syscall.ENOSPC
		}
		return nil
	}
	r, err := s.cutover()
	if !errors.Is(err, syscall.ENOSPC) || r.Backup == "" || len(r.Changes) != 2 || !r.Changes[0].Applied || r.Changes[1].Applied {
		t.Fatalf("%+v, %v", r, err)
	}
}

// tree is all files but those of the state folder and of git.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == migrate.StateDir || d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[filepath.ToSlash(rel)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A file that was moved keeps the environment that it was given, where what it still holds
// shows that it is that file and its path says no other.
func TestPlanFollowsAMovedFile(t *testing.T) {
	for name, tt := range map[string]struct {
		to    []string // where api/.env is now: the first as it is, each other a copy
		given string   // the environment that it keeps; empty where it does not
		note  string
	}{
		"moved":                        {[]string{"backend/.env"}, "api", "backend/.env was api/.env, and keeps its environment api"},
		"moved deeper":                 {[]string{"services/new/.env"}, "api", "keeps its environment api"},
		"in two places":                {[]string{"a/.env", "b/.env"}, "", "plan again with --env-file a/.env=api"},
		"where its path says another":  {[]string{"production/.env"}, "", "is new, of the environment production"},
		"by another name":              {[]string{"backend/prod.env"}, "", ""},
		"still there, and another one": {[]string{"api/.env", "backend/.env"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, map[string]string{"api/.env": "DB_PASSWORD=api-value-1\nPORT=1\n", "web/.env": "DB_PASSWORD=web-value-2\n"})
			s.must(s.replan("api/.env=api", "web/.env=web"))
			s.move()
			s.must(os.RemoveAll(filepath.Join(s.dir, "api")))
			for i, to := range tt.to {
				write(t, s.dir, to, "PORT=1\n"+[]string{"E_TOKEN=fifth-value-5\n", ""}[i])
			}
			s.must(s.replan())
			if said := strings.Join(s.notes, "\n"); !strings.Contains(said, tt.note) || (tt.given == "" && strings.Contains(said, "keeps")) {
				t.Errorf("notes: %q", said)
			}
			for _, e := range s.plan.Variable {
				if e.Name == "E_TOKEN" && e.File == tt.to[0] && tt.given != "" && (e.Environment != tt.given || e.Path != "app/api/e-token") {
					t.Errorf("%+v", e)
				}
			}
			if tt.given != "" {
				s.move()
				s.readsAs("strongroom-env.api.toml", map[string]string{"DB_PASSWORD": "api-value-1", "E_TOKEN": "fifth-value-5"})
			}
		})
	}
}

// Patched code is told of the mapping file of the environment that has its variables.
func TestWhichMappingIsNamed(t *testing.T) {
	s := newSite(t, map[string]string{
		"api/.env": "DB_PASSWORD=api-value-1\nA_TOKEN=api-value-2\n", "web/.env": "DB_PASSWORD=web-value-2\nW_TOKEN=web-value-3\n",
		"web/a.py": "import os\nx = os.environ['DB_PASSWORD']\n", "web/b.py": "import os\nx = os.environ['A_TOKEN']\n", "c.py": "import os\nx = os.environ['A_TOKEN'] + os.environ['W_TOKEN']\n",
	})
	s.must(s.replan("api/.env=api", "web/.env=web"))
	_, err := s.apply(false)
	s.must(err)
	r, err := s.cutover()
	s.must(err)
	said := map[string]string{}
	for _, c := range r.Changes {
		said[c.File] = strings.Join(c.ByHand, "\n")
	}
	for file, want := range map[string]string{"web/a.py": "such as strongroom-env.web.toml", "web/b.py": "such as strongroom-env.api.toml", "c.py": "no one environment has all of its variables"} {
		if !strings.Contains(said[file], want) {
			t.Errorf("%s: %q", file, said[file])
		}
	}
}

// What no program will be given in its environment is said when it is moved: what
// steers it, what is too large, and what is too much together; what just fits is not.
func TestApplyWarns(t *testing.T) {
	fits := appenv.MaxVariable - len("FITS_SECRET=") - 1
	value := func(n int) string { return strings.Repeat("Xq7z", n/4+1)[:n] }
	many := ""
	for i := range 20 {
		many += fmt.Sprintf("BLOB_SECRET_%02d=%s\n", i, value(120_000+i))
	}
	s := newSite(t, map[string]string{
		".env.production": "JAVA_TOOL_OPTIONS=-Djavax.net.ssl.keyStorePassword=Xq7z-alpha\nFITS_SECRET=" + value(fits) + "\nOVER_SECRET=" + value(fits+1) + "\n",
		".env.many":       many,
	})
	s.must(s.replan())
	r, err := s.apply(false)
	s.must(err)
	var got []string
	for _, p := range r.Warnings {
		got = append(got, p.String())
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{"production:1: JAVA_TOOL_OPTIONS steers which code", "production:3: OVER_SECRET has", "many has 2400"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in %s", want, all)
		}
	}
	if len(got) != 3 || strings.Contains(all, "Xq7z") {
		t.Errorf("%s", all)
	}
}
