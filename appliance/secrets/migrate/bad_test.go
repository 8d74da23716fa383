package migrate_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/appliance/secrets/migrate/storetest"
)

func entry(name, file, path string) string {
	return fmt.Sprintf("[[variable]]\nname = %q\nfile = %q\nenvironment = \"p\"\nkind = \"kv\"\npath = %q\n", name, file, path)
}

const head = "format = 1\napp = \"a\"\ndialect = \"python\"\n"

// Every refusal names the place and the reason, shows no value, and leaves
// Vault untouched.
func TestApplyRefuses(t *testing.T) {
	tests := []struct {
		name, env, plan string
		want            []string
	}{
		{"malformed line", "A=1\nB='s3cret-x\n", entry("A", ".env", "a/p/a"), []string{".env:2: a quoted value without"}},
		{"too large", "A=" + strings.Repeat("s3cret-x", migrate.MaxValue/8+1), entry("A", ".env", "a/p/a"), []string{".env:1: A: ", "more than a secret may have"}},
		{"too large together", "A=" + strings.Repeat("s3cret-x", migrate.MaxValue/16) + "\nB=" + strings.Repeat("s3cret-y", migrate.MaxValue/16+1),
			entry("A", ".env", "a/p/a") + entry("B", ".env", "a/p/a") + "field = \"b\"\n", []string{".env:2: B: "}},
		{"not there", "A=1\n", entry("B", ".env", "a/p/b"), []string{".env: B is planned and not there"}},
		{"empty", "A=\n", entry("A", ".env", "a/p/a"), []string{".env:1: A is empty"}},
		{"from outside", "A=${HOME}/s3cret-x\n", entry("A", ".env", "a/p/a"), []string{".env:1: A refers to a variable that the file does not set", "single quotes"}},
		// What stands behind a dollar may be the half of a password.
		{"a password with a dollar", "A=x${s3cret}\n", entry("A", ".env", "a/p/a"), []string{".env:1: A refers to a variable"}},
		{"no such file", "A=1\n", entry("A", "none.env", "a/p/a"), []string{"none.env: no such file"}},
		{"not UTF-8", "A=s3cret-x\xe9\n", entry("A", ".env", "a/p/a"), []string{".env:1: not UTF-8"}},
		{"exists with another value", "A=s3cret-x\nB=s3cret-y\n", entry("B", ".env", "a/p/b") + entry("A", ".env", "there"), []string{".env: A: secret/there exists with another value (version 1)"}},
		{"shared with two values", "A=s3cret-x\nB=s3cret-y\n", entry("A", ".env", "a/p/a") + "shared = true\n" + entry("B", ".env", "a/p/a") + "shared = true\n", []string{"B is shared and has another value"}},
		{"API key without a definition", "A=s3cret-x\n", strings.Replace(entry("A", ".env", "a/p/a"), `"kv"`, `"api-key"`, 1), []string{".env: A: API key", "declare it in [[app]]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, ".env", tt.env)
			plan, err := migrate.ParsePlan("F", []byte(head+tt.plan))
			if err != nil {
				t.Fatal(err)
			}
			s := storetest.NewFake(nil, nil)
			if _, err := s.Write(t.Context(), "secret", "there", map[string]any{"value": "theirs"}, 0); err != nil {
				t.Fatal(err)
			}
			s.Fail = func(_ int, call string) (bool, bool) {
				if call == "write" || call == "annotate" || call == "import" {
					t.Errorf("%s was called", call)
				}
				return false, false
			}
			_, err = migrate.Apply(t.Context(), migrate.ApplyOptions{Root: dir, Plan: plan, Store: s})
			var refused *migrate.Refused
			if !errors.As(err, &refused) && tt.name != "API key without a definition" {
				t.Fatalf("want *Refused, got %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %q", want, err)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Error("the error shows a value")
			}
		})
	}
}

func TestForceKeepsWhatItReplaces(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, ".env", "A=ours\n")
	plan, err := migrate.ParsePlan("F", []byte(head+entry("A", ".env", "there")))
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.NewFake(nil, nil)
	if _, err := s.Write(t.Context(), "secret", "there", map[string]any{"value": "theirs", "other": "stays"}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Apply(t.Context(), migrate.ApplyOptions{Root: dir, Plan: plan, Store: s, Force: true}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Read(t.Context(), "secret", "there")
	if err != nil || got.Version != 2 || got.Data["value"] != "ours" || got.Data["other"] != "stays" {
		t.Fatalf("version %d, %v", got.Version, err)
	}
	// The way back makes theirs current again.
	if _, err := migrate.Rollback(t.Context(), migrate.RollbackOptions{Root: dir, Store: s, Plan: plan}); err != nil {
		t.Fatal(err)
	}
	if got, err = s.Read(t.Context(), "secret", "there"); err != nil || got.Data["value"] != "theirs" || got.Version != 3 {
		t.Fatalf("after the rollback: version %d, %v", got.Version, err)
	}
}

func TestPlanFaults(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"two to one path", head + entry("A", ".env", "x") + entry("B", ".env", "x"), []string{"variable[1]: B: ", "as does variable[0] (A)"}},
		{"same variable twice", head + entry("A", ".env", "x") + entry("A", ".env", "y"), []string{"is planned already by variable[0]"}},
		{"unknown key", head + entry("A", ".env", "x") + "colour = 1\n", []string{"variable[0].colour: unknown key; known here: "}},
		{"several", "format = 2\napp = \"..\"\ndialect = \"ruby\"\n" + entry("", "../x", "a//b"), []string{"format: 2", `app: ".."`, `"ruby"`, "variable[0].name: ", `variable[0].file: : "../x"`, `variable[0].path: : "a//b"`}},
		{"kind", head + strings.Replace(entry("A", ".env", "x"), `"kv"`, `"vault"`, 1), []string{`variable[0].kind: A: "vault"`}},
		{"field of a database", head + strings.Replace(entry("A", ".env", "x"), `"kv"`, `"database"`, 1) + "field = \"f\"\n", []string{`variable[0].field: A: "f"`}},
		{"syntax", "format = ", []string{"F:1: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := migrate.ParsePlan("F", []byte(tt.text))
			if err == nil {
				t.Fatal("want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %q", want, err)
				}
			}
		})
	}
}

func TestPlanRoundTrip(t *testing.T) {
	r := &migrate.Report{Dialect: "compose", Variables: []migrate.Variable{
		{Name: "A.b", Definitions: []migrate.Definition{{File: "d/.env", Kind: "dotenv", Environment: "qa", Secret: []string{"why \"so\x7f\\\""}}}},
		{Name: "AWS_ACCESS_KEY_ID", Definitions: []migrate.Definition{{File: ".env", Kind: "dotenv", Environment: "qa", Secret: []string{"x"}}}},
		{Name: "PORT", Definitions: []migrate.Definition{{File: ".env", Kind: "dotenv", Environment: "qa"}, {File: ".env.example", Kind: "template"}}},
	}}
	p, err := migrate.NewPlan(r, "app")
	if err != nil {
		t.Fatal(err)
	}
	again, err := migrate.ParsePlan("F", p.Encode())
	if err != nil {
		t.Fatalf("%v in\n%s", err, p.Encode())
	}
	if len(again.Variable) != 3 || again.Variable[0].Why != "why \"so\x7f\\\"" || again.Variable[1].Field != "access-key-id" || again.Variable[2].Kind != migrate.KindPlain {
		t.Errorf("got %+v", again.Variable)
	}
	if string(again.Encode()) == "" || again.Variable[0].Path != "app/qa/a-b" || again.Variable[0].Mount != "secret" {
		t.Errorf("got %+v", again.Variable[0])
	}
	for _, bad := range []string{"", "..", "a/b", "a b"} {
		if _, err := migrate.NewPlan(r, bad); err == nil {
			t.Errorf("app %q must be refused", bad)
		}
	}
}

// A tree with all that trees have: the scan ends, says what it left out, and
// finds the rest.
func TestScanBadTree(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "ok.py", "import os\nX = os.environ['GOOD']\n")
	write(t, dir, "binary.py", "\x00\x01os.environ['BAD']")
	write(t, dir, "latin1.py", "# \xe9\nimport os\nos.environ['LATIN']\n")
	write(t, dir, "broken.yml", "env: [\n")
	write(t, dir, ".env.broken", "A=1\nB 2\n=C\n")
	write(t, dir, ".env.example", "A B C\n")
	big, err := os.Create(filepath.Join(dir, "big.py"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(big.Truncate(100<<20), big.Close()); err != nil {
		t.Fatal(err)
	}
	huge, err := os.Create(filepath.Join(dir, ".env.huge"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(huge.Truncate(100<<20), huge.Close()); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"loop": ".", "self": "self", ".env.link": "/etc/passwd", "dangling.py": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.py"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Dialect: dotenv.Python, History: true})
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, v := range r.Variables {
		names += v.Name + " "
	}
	if names != "GOOD LATIN " {
		t.Errorf("found %q", names)
	}
	var got []string
	for _, p := range r.Problems {
		got = append(got, fmt.Sprintf("%s:%d:%t", p.File, p.Line, p.Fatal))
	}
	want := ".env.broken:2:false .env.broken:3:false .env.example:1:false .env.huge:0:false .env.link:0:false big.py:0:false broken.yml:0:false"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("problems %q, want %q", s, want)
	}
	if r.History != "not looked at: no git repository" {
		t.Errorf("history: %q", r.History)
	}
	if _, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: filepath.Join(dir, "nowhere"), Dialect: dotenv.Python}); err == nil {
		t.Error("a root that is not there must be an error")
	}
}

func TestOneRunAtATime(t *testing.T) {
	p, s := newProject(t), newFake()
	var second error
	ran := false
	s.Fail = func(int, string) (bool, bool) { return false, false }
	_, err := migrate.Apply(t.Context(), migrate.ApplyOptions{Root: p.dir, Plan: p.plan, Store: s, Progress: func(int, int) {
		ran = true
		_, second = p.apply(t, s)
	}})
	if err != nil || !ran || !errors.Is(second, statefile.ErrBusy) {
		t.Fatalf("first %v, second %v", err, second)
	}
}

// The engine rotates what it was given: the file's value is an old one then.
func TestCutoverAfterARotation(t *testing.T) {
	p, s := newProject(t), newFake()
	if _, err := p.apply(t, s); err != nil {
		t.Fatal(err)
	}
	if err := s.ImportAPIKey(t.Context(), "apikeys", "a/production/key", "rotated-key-2"); err != nil {
		t.Fatal(err)
	}
	const advice = "take its line out of the file"
	if _, err := p.apply(t, s); err == nil || !strings.Contains(err.Error(), advice) {
		t.Errorf("apply: %v", err)
	}
	o := migrate.CutoverOptions{Root: p.dir, Plan: p.plan, Store: s, DryRun: true}
	if _, err := migrate.Cutover(t.Context(), o); err == nil || !strings.Contains(err.Error(), advice) || strings.Contains(err.Error(), "migrate apply") {
		t.Errorf("cutover: %v", err)
	}
	write(t, p.dir, ".env.production", strings.Replace(p.files[".env.production"], "API_KEY=prod-key-1\r\n", "", 1))
	if _, err := migrate.Cutover(t.Context(), o); err != nil {
		t.Errorf("with the advice followed: %v", err)
	}
}

// Either value may be the right one: both ways on are named, and each of them
// leads on.
func TestCutoverWithAnotherValue(t *testing.T) {
	for name, follow := range map[string]func(p *project, s *storetest.Fake) error{
		"the file's": func(p *project, s *storetest.Fake) error {
			_, err := migrate.Apply(t.Context(), migrate.ApplyOptions{Root: p.dir, Plan: p.plan, Store: s, Force: true})
			return err
		},
		"Vault's": func(p *project, s *storetest.Fake) error {
			write(t, p.dir, ".env.production", strings.Replace(p.files[".env.production"], "DB_PASSWORD='pro d-1'\r\n", "", 1))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := newProject(t), newFake()
			if _, err := p.apply(t, s); err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(p.plan.Variable, func(e migrate.Entry) bool { return e.Name == "DB_PASSWORD" && e.File == ".env.production" })
			if _, err := s.Write(t.Context(), p.plan.Variable[i].Mount, p.plan.Variable[i].Path, map[string]any{p.plan.Variable[i].Field: "newer-pw-2"}, 1); err != nil {
				t.Fatal(err)
			}
			o := migrate.CutoverOptions{Root: p.dir, Plan: p.plan, Store: s, DryRun: true}
			_, cut := migrate.Cutover(t.Context(), o)
			_, applied := p.apply(t, s)
			for _, err := range []error{cut, applied} {
				for _, want := range []string{"apply --force", "take its line out of the file"} {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%v, want %q in it", err, want)
					}
				}
			}
			if err := follow(p, s); err != nil {
				t.Fatal(err)
			}
			if _, err := migrate.Cutover(t.Context(), o); err != nil {
				t.Errorf("with the advice followed: %v", err)
			}
		})
	}
}

// Patched code reads one file by default: where there are several, somebody
// must say which.
func TestCutoverSaysWhichMapping(t *testing.T) {
	p, s := newProject(t), newFake()
	if _, err := p.apply(t, s); err != nil {
		t.Fatal(err)
	}
	dry := func() string {
		r, err := migrate.Cutover(t.Context(), migrate.CutoverOptions{Root: p.dir, Plan: p.plan, Store: s, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(r.Changes, func(c migrate.Change) bool { return c.File == "app.py" })
		if i < 0 {
			t.Fatalf("app.py is not among %v", r.Changes)
		}
		return strings.Join(r.Changes[i].ByHand, "\n")
	}
	if got := dry(); !strings.Contains(got, "set STRONGROOM_ENV_FILE") || !strings.Contains(got, "strongroom-env.production.toml") {
		t.Errorf("with two environments: %q", got)
	}
	p.plan.Variable = slices.DeleteFunc(p.plan.Variable, func(v migrate.Entry) bool { return v.Environment != "production" })
	if got := dry(); strings.Contains(got, "STRONGROOM_ENV_FILE") {
		t.Errorf("with one environment: %q", got)
	}
}

// A plain variable that takes a secret's value would change its meaning.
func TestCutoverKeepsReferences(t *testing.T) {
	p, s := newProject(t), newFake()
	write(t, p.dir, ".env.staging", "DB_PASSWORD=stag-pw-1\nURL=x${DB_PASSWORD}\n")
	if _, err := p.apply(t, s); err != nil {
		t.Fatal(err)
	}
	_, err := migrate.Cutover(t.Context(), migrate.CutoverOptions{Root: p.dir, Plan: p.plan, Store: s, DryRun: true})
	if err == nil || !strings.Contains(err.Error(), ".env.staging:2: URL takes DB_PASSWORD") {
		t.Fatalf("got %v", err)
	}
}

func TestClassifier(t *testing.T) {
	c, err := migrate.NewClassifier()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, value string
		secret      bool
	}{
		{"DB_PASSWORD", "x1", true}, {"DB_PASSWORD", "", false}, {"DB_PASSWORD", "changeme", false}, {"DB_PASSWORD", "true", false},
		{"DATABASE_URL", "postgres://u:p@h/d", true}, {"DATABASE_URL", "postgres://u:p%zz@h/d", true}, {"DATABASE_URL", "postgres://u@h/d", false},
		{"TOKEN_TTL", "3600", false}, {"TOKEN_URL", "https://x.example/token", false}, {"KEY_ID", "abc", false}, {"PUBLIC_KEY", "ssh-ed25519 AAAA", false},
		{"ANYTHING", "q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4P", true}, {"ANYTHING", "some-host-name.example.org", false}, {"KEY_FILE", "/etc/key.pem", false},
		{"LOG_LEVEL", "debug", false}, {"MONKEY", "banana", false}, {"KEYBOARD", "qwertz", false}, {"COMMIT", "v1.2.3", false},
	} {
		if got := c.Why(tt.name, tt.value); (len(got) > 0) != tt.secret {
			t.Errorf("%s=%s: %q, want a secret: %t", tt.name, tt.value, got, tt.secret)
		}
	}
}
