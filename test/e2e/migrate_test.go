package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/test/vaulttest"
)

// operator runs the real program as a person who is logged in.
type operator struct {
	t       *testing.T
	dir     string
	env     []string
	program string
	secrets map[string]string // must never show
}

func newOperator(t *testing.T, s *vaulttest.Server, dir string, secrets map[string]string) *operator {
	return &operator{t: t, dir: dir, program: vaulttest.Bin(t, "strongroom"), secrets: secrets,
		env: append(os.Environ(), "VAULT_ADDR=unix://"+s.Layout.VaultSocket(), "VAULT_TOKEN="+s.RootToken, "HOME="+t.TempDir())}
}

// run gives the output and exit code, and fails if a value shows.
func (o *operator) run(args ...string) (string, int) {
	o.t.Helper()
	out, code := o.reveal(args...)
	for name, value := range o.secrets {
		for _, line := range strings.Split(value, "\n") {
			if len(line) >= 8 && strings.Contains(out, line) {
				o.t.Errorf("strongroom %s shows the value of %s", strings.Join(args, " "), name)
			}
		}
	}
	return out, code
}

func (o *operator) reveal(args ...string) (string, int) {
	o.t.Helper()
	c := exec.Command(o.program, args...)
	c.Dir, c.Env = o.dir, o.env
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	return out.String(), c.ProcessState.ExitCode()
}

// must is run with the exit code that is wanted.
func (o *operator) must(code int, args ...string) string {
	o.t.Helper()
	out, got := o.run(args...)
	if got != code {
		o.t.Fatalf("strongroom %s: exit code %d, want %d:\n%s", strings.Join(args, " "), got, code, out)
	}
	return out
}

// newKey is an age key: the recipient, and the file of its identity.
func newKey(t *testing.T) (recipient, identityFile string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(file, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String(), file
}

// From .env files to Vault and back, byte for byte, with the real programs.
func TestMigrateThereAndBack(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	dir, secrets := bikeRepository(t)
	commitAll(t, dir)
	before := fileTree(t, dir, ".git")
	recipient, identity := newKey(t)
	o := newOperator(t, s, dir, secrets)

	checkScan(t, o, secrets)
	o.must(2, "migrate", "apply") // no plan yet
	o.must(0, "migrate", "plan", "--app", "bike-data-flow")
	planned := fileTree(t, dir, ".git", migrate.StateDir)
	o.must(0, "migrate", "plan") // edits stay
	if !maps.Equal(planned, fileTree(t, dir, ".git", migrate.StateDir)) {
		t.Error("a second plan is another one")
	}
	o.must(2, "migrate", "plan", "--app", "another")

	o.must(3, "migrate", "verify")
	if out := o.must(4, "migrate", "cutover", "--recipient", recipient); !strings.Contains(out, "run strongroom migrate apply") {
		t.Errorf("cutover before apply: %s", out)
	}
	out := o.must(0, "migrate", "apply")
	if !strings.Contains(out, "0 unchanged") {
		t.Errorf("apply: %s", out)
	}
	if out := o.must(0, "migrate", "apply"); !strings.Contains(out, "0 secrets written") {
		t.Errorf("second apply: %s", out)
	}
	o.must(0, "migrate", "verify")
	checkVault(t, s, secrets)

	// A dry run and the display of patches change nothing.
	preview := o.must(0, "migrate", "cutover", "--dry-run")
	for _, want := range []string{"--- a/bikes/settings.py", `+DATABASE_URL = strongroom_env.environ["DATABASE_URL"]`, "EnvVar(PROVIDER_B_API_KEY)"} {
		if !strings.Contains(preview, want) {
			t.Errorf("the preview lacks %q:\n%s", want, preview)
		}
	}
	made := []string{".git", migrate.StateDir, migrate.PlanFile, "strongroom-env.production.toml", "strongroom-env.staging.toml", "strongroom-env.development.toml"}
	if !maps.Equal(before, fileTree(t, dir, made...)) {
		t.Fatal("a file of the tree was changed before the cutover")
	}

	o.must(2, "migrate", "cutover") // no recipient
	o.must(0, "migrate", "cutover", "--recipient", recipient, "--patch-code")
	if out := o.must(0, "migrate", "cutover", "--recipient", recipient); !strings.Contains(out, "no .env file holds a moved secret") {
		t.Errorf("second cutover: %s", out)
	}
	checkCut(t, o, secrets)
	o.must(0, "migrate", "verify")
	checkExec(t, o, secrets)
	checkExecOfService(t, s, o, secrets)

	// The way back: refused with the wrong key and for edited files.
	_, stranger := newKey(t)
	o.must(4, "migrate", "rollback", "--identity", stranger)
	edited := filepath.Join(dir, "bikes", "settings.py")
	cut, err := os.ReadFile(edited)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(edited, bytes.Replace(cut, []byte("strongroom_env.environ["), []byte("dict(strongroom_env.environ)["), 1), 0o640); err != nil {
		t.Fatal(err)
	}
	if out := o.must(4, "migrate", "rollback", "--identity", identity); !strings.Contains(out, "bikes/settings.py: was edited") {
		t.Errorf("rollback over an edit: %s", out)
	}
	if err := os.WriteFile(edited, cut, 0o640); err != nil {
		t.Fatal(err)
	}
	o.must(0, "migrate", "rollback", "--identity", identity, "--from-vault", "--dry-run")
	// What was done stands in the journal: a plan that is lost or spoilt since does not matter.
	plan, err := os.ReadFile(filepath.Join(dir, migrate.PlanFile))
	if err == nil {
		err = os.Remove(filepath.Join(dir, migrate.PlanFile))
	}
	if err != nil {
		t.Fatal(err)
	}
	o.must(0, "migrate", "rollback", "--identity", identity, "--from-vault")
	if err := os.WriteFile(filepath.Join(dir, migrate.PlanFile), plan, 0o644); err != nil {
		t.Fatal(err)
	}
	if after := fileTree(t, dir, ".git", migrate.StateDir, migrate.PlanFile); !maps.Equal(before, after) {
		for name := range before {
			if before[name] != after[name] {
				t.Errorf("%s is not as it was: %q, was %q", name, after[name], before[name])
			}
		}
		t.Fatalf("after the rollback: %q", slices.Sorted(maps.Keys(after)))
	}
	o.must(3, "migrate", "verify") // nothing is left in Vault
	o.must(0, "migrate", "rollback", "--identity", identity)
}

func checkScan(t *testing.T, o *operator, secrets map[string]string) {
	t.Helper()
	var r migrate.Report
	if err := json.Unmarshal([]byte(o.must(0, "migrate", "scan", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	byName := map[string]migrate.Variable{}
	defined, environments := 0, map[string]bool{}
	for _, v := range r.Variables {
		byName[v.Name] = v
		for _, d := range v.Definitions {
			if d.Kind == "dotenv" {
				defined++
				environments[d.Environment] = true
			}
		}
		if strings.Contains(v.Name, "NOT_A_USE") {
			t.Errorf("%s stands in a comment, in another's code or in a binary: %+v", v.Name, v)
		}
	}
	if defined < 40 || len(environments) != 3 {
		t.Errorf("%d definitions in %v", defined, environments)
	}
	for _, v := range r.Variables {
		for _, d := range v.Definitions {
			_, want := secrets[v.Name]
			if d.Environment == "production" && d.Kind == "dotenv" && want != (len(d.Secret) > 0) {
				t.Errorf("%s is a secret: %t, taken for one: %q", v.Name, want, d.Secret)
			}
			if len(d.Secret) > 0 && d.Kind == "dotenv" && d.Bytes >= 8 && len(d.InHistory) == 0 && !strings.Contains("REPORT_DATABASE_URL JWT_SECRET DB_PASSWORD", v.Name) {
				t.Errorf("%s of %s stands in git's history and was not found there", v.Name, d.File)
			}
		}
	}
	if len(r.Tracked) != 3 {
		t.Errorf("tracked: %q", r.Tracked)
	}
	for name, kinds := range map[string]string{
		"DATABASE_URL": "compose python", "REDIS_URL": "python", "GITHUB_TOKEN": "dockerfile python", "PROVIDER_A_API_KEY": "actions python", "SESSION_SALT": "compose python",
		"SMTP_PASSWORD": "pydantic", "SMTP_HOST": "pydantic", "SENTRY_DSN": "pydantic systemd", "PROVIDER_B_API_KEY": "dagster", "DB_PORT": "dagster", "DB_PASSWORD": "dagster",
		"STRIPE_KEY": "javascript", "SLACK_BOT_TOKEN": "javascript", "APP_ENV": "javascript python", "PROVIDER_A_URL": "javascript",
		"AWS_SECRET_ACCESS_KEY": "go", "AWS_ACCESS_KEY_ID": "go", "JWT_SECRET": "shell", "DB_HOST": "shell", "LOG_LEVEL": "python",
	} {
		got := map[string]bool{}
		for _, u := range byName[name].Uses {
			got[u.Kind] = true
		}
		if s := strings.Join(slices.Sorted(maps.Keys(got)), " "); s != kinds {
			t.Errorf("%s is used by %q, want %q", name, s, kinds)
		}
	}
	if v := byName["REDIS_PASSWORD"]; len(v.Definitions) != 1 || len(v.Definitions[0].Secret) == 0 {
		t.Errorf("the password in docker-compose.yml: %+v", v)
	}
	o.must(0, "migrate", "scan")
	if out, code := o.reveal("migrate", "scan", "--reveal"); code != 0 || !strings.Contains(out, secrets["PROVIDER_A_API_KEY"]) {
		t.Error("--reveal shows no values")
	}
}

func checkVault(t *testing.T, s *vaulttest.Server, secrets map[string]string) {
	t.Helper()
	store := migrate.NewVault(s.Root)
	for path, want := range map[string]map[string]string{
		"database-url":        {"value": secrets["DATABASE_URL"]},
		"api-keys/provider-a": {"value": secrets["PROVIDER_A_API_KEY"]},
		"aws-credentials":     {"access-key-id": fakeAWSID, "secret-access-key": secrets["AWS_SECRET_ACCESS_KEY"]},
		"signing-key":         {"value": fakePEM},
		"db-password":         {"value": secrets["DB_PASSWORD"]},
		"report-database-url": {"value": secrets["REPORT_DATABASE_URL"]},
	} {
		got, err := store.Read(t.Context(), "secret", "bike-data-flow/production/"+path)
		if err != nil {
			t.Fatal(err)
		}
		for field, value := range want {
			if got.Data[field] != value || len(got.Data) != len(want) {
				t.Errorf("%s: field %s is not what .env.production has", path, field)
			}
		}
	}
}

// checkCut: what was secret is gone, what was not reads as before.
func checkCut(t *testing.T, o *operator, secrets map[string]string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(o.dir, ".env.production"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range secrets {
		if bytes.Contains(data, []byte(value)) || bytes.Contains(data, []byte(name+"=")) {
			t.Errorf(".env.production still holds %s", name)
		}
	}
	f, err := dotenv.Parse(data, dotenv.Python)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, s := range f.Statements {
		left = append(left, s.Name)
	}
	if got := strings.Join(left, " "); got != "APP_ENV LOG_LEVEL DB_HOST DB_PORT PROVIDER_A_URL AWS_REGION SMTP_HOST TOKEN_TTL FEATURE_X" {
		t.Errorf("left: %s", got)
	}
	state := fileTree(t, filepath.Join(o.dir, migrate.StateDir))
	for name, content := range state {
		for secret, value := range secrets {
			if len(value) >= 8 && strings.Contains(content, value) {
				t.Errorf("%s holds the value of %s", name, secret)
			}
		}
	}
	if python, err := exec.LookPath("python3"); err == nil {
		if out, err := exec.Command(python, "-c", "import ast,sys; ast.parse(open(sys.argv[1]).read())", filepath.Join(o.dir, "bikes", "settings.py")).CombinedOutput(); err != nil {
			t.Errorf("the patched code is no Python: %s", out)
		}
	}
	checkMapping(t, o, secrets)
}

// checkMapping lets the Python client read the mapping file.
func checkMapping(t *testing.T, o *operator, secrets map[string]string) {
	t.Helper()
	python := filepath.Join(vaulttest.Root(t), "python", ".venv", "bin", "python")
	if _, err := os.Stat(python); err != nil {
		t.Logf("the mapping file was not read by the Python client: %s is missing", python)
		return
	}
	c := exec.Command(python, "-c", `
import json, sys
from pathlib import Path
from strongroom_dagster.env import EnvironmentMap
m = EnvironmentMap.read(Path("strongroom-env.production.toml"))
print(json.dumps({n: [v.engine, v.mount, v.path, v.field] for n, v in m.variables.items()}))`)
	c.Dir = o.dir
	c.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(vaulttest.Root(t), "python", "src"))
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("the Python client does not read the mapping file: %s", out)
	}
	var m map[string][]string
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	if len(m) != len(secrets) || !slices.Equal(m["AWS_ACCESS_KEY_ID"], []string{"kv", "secret", "bike-data-flow/production/aws-credentials", "access-key-id"}) {
		t.Errorf("the Python client reads %v", m)
	}
}

// checkExec: a program gets what the files held, both ways.
func checkExec(t *testing.T, o *operator, secrets map[string]string) {
	t.Helper()
	for _, which := range [][]string{{"--app", "bike-data-flow", "--env", "production"}, {"--mapping", "strongroom-env.production.toml"}} {
		args := append([]string{"env", "exec"}, which...)
		out, code := o.reveal(append(args, "--", "sh", "-c", "env -0; exit 7")...)
		if code != 7 {
			t.Fatalf("env exec %q: exit code %d, want the program's 7:\n%.200s", which, code, out)
		}
		got := map[string]string{}
		for _, e := range strings.Split(out, "\x00") {
			name, value, _ := strings.Cut(e, "=")
			got[name] = value
		}
		for name, value := range secrets {
			if got[name] != value {
				t.Errorf("env exec %q: %s is not what .env.production had", which, name)
			}
		}
		if _, there := got["VAULT_TOKEN"]; there {
			t.Errorf("env exec %q leaves the token to the program", which)
		}
	}
	own := *o
	for prefer, want := range map[string]bool{"": true, "vault": false} {
		own.env = append(slices.Clone(o.env), "DATABASE_URL=of-the-caller", "REDIS_URL=", "STRONGROOM_ENV_PREFER="+prefer)
		out, _ := own.reveal("env", "exec", "--app", "bike-data-flow", "--env", "production", "--", "sh", "-c", `printf '%s;%s;' "$DATABASE_URL" "$REDIS_URL"`)
		if got := strings.Contains(out, "of-the-caller;"+secrets["REDIS_URL"]+";") && strings.Contains(out, "strongroom: DATABASE_URL comes from this process's environment"); got != want {
			t.Errorf("env exec, preferring %q: the caller's variable wins: %v", prefer, got)
		}
	}
	o.must(2, "env", "exec", "--app", "bike-data-flow", "--env", "production", "--", "no-such-program-here")
	o.must(2, "env", "exec", "--", "true")
	o.must(1, "env", "exec", "--app", "bike-data-flow", "--env", "nowhere", "--", "true")

	// Names only, then a file that both readings understand.
	if out := o.must(0, "env", "print", "--app", "bike-data-flow", "--env", "production"); !strings.Contains(out, "DATABASE_URL\n") {
		t.Errorf("env print: %s", out)
	}
	for _, d := range []dotenv.Dialect{dotenv.Python, dotenv.Compose} {
		file := filepath.Join(t.TempDir(), ".env")
		o.must(0, "env", "print", "--app", "bike-data-flow", "--env", "production", "--format", d.String(), "--output", file)
		st, err := os.Stat(file)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := dotenv.Parse(data, d)
		if err != nil {
			t.Fatal(err)
		}
		vars, err := f.Resolve(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(vars) != len(secrets) {
			t.Errorf("%v: %d variables, want %d", d, len(vars), len(secrets))
		}
		for _, v := range vars {
			if v.Value != secrets[v.Name] {
				t.Errorf("%v: %s is not what .env.production had", d, v.Name)
			}
		}
	}
}

// checkExecOfService has a service log in by its AppRole: its program gets the
// secrets, of one environment alone, and no login is left behind.
func checkExecOfService(t *testing.T, s *vaulttest.Server, o *operator, secrets map[string]string) {
	t.Helper()
	l := vaulttest.API(s.Root).Logical()
	mustWrite := func(path string, data map[string]any) map[string]any {
		t.Helper()
		sec, err := l.WriteWithContext(t.Context(), path, data)
		if err != nil {
			t.Fatal(err)
		}
		if sec == nil {
			return nil
		}
		return sec.Data
	}
	tokens := func() int {
		t.Helper()
		sec, err := l.ListWithContext(t.Context(), "auth/token/accessors")
		if err != nil {
			t.Fatal(err)
		}
		all, _ := sec.Data["keys"].([]any)
		return len(all)
	}
	mustWrite("sys/auth/approle", map[string]any{"type": "approle"})
	mustWrite("sys/policies/acl/bikes", map[string]any{"policy": `path "secret/data/bike-data-flow/production/*" { capabilities = ["read"] }
path "secret/metadata/bike-data-flow/production/*" { capabilities = ["read", "list"] }
path "auth/token/revoke-self" { capabilities = ["update"] }`})
	mustWrite("auth/approle/role/bikes", map[string]any{"token_policies": "bikes", "token_no_default_policy": true})
	role, err := l.ReadWithContext(t.Context(), "auth/approle/role/bikes/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secretID, _ := mustWrite("auth/approle/role/bikes/secret-id", nil)["secret_id"].(string)
	roleID, _ := role.Data["role_id"].(string)
	dir := t.TempDir()
	for name, text := range map[string]string{"role-id": roleID, "secret-id": secretID, "wrong": "inv-4711-no-such-id"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	service := *o
	service.env = slices.DeleteFunc(slices.Clone(o.env), func(e string) bool { return strings.HasPrefix(e, "VAULT_TOKEN=") })
	exec := func(which []string, secretID string) (string, int) {
		t.Helper()
		args := append([]string{"env", "exec", "--role-id-file", filepath.Join(dir, "role-id"), "--secret-id-file", filepath.Join(dir, secretID)}, which...)
		return service.reveal(append(args, "--", "sh", "-c", `printf '%s;' "$DATABASE_URL"; env | grep -c '^VAULT_TOKEN='; exit 7`)...)
	}
	before := tokens()
	for _, which := range [][]string{{"--app", "bike-data-flow", "--env", "production"}, {"--mapping", "strongroom-env.production.toml"}} {
		if out, code := exec(which, "secret-id"); code != 7 || out != secrets["DATABASE_URL"]+";0\n" {
			t.Errorf("env exec %q by AppRole: exit code %d, %d bytes", which, code, len(out))
		}
	}
	for name, refused := range map[string]struct{ env, secretID string }{"another environment": {"staging", "secret-id"}, "a wrong secret id": {"production", "wrong"}} {
		out, code := exec([]string{"--app", "bike-data-flow", "--env", refused.env}, refused.secretID)
		if code != 4 || strings.Contains(out, secretID) || strings.Contains(out, "inv-4711") || strings.Contains(out, secrets["DATABASE_URL"]) {
			t.Errorf("%s: exit code %d: %s", name, code, out)
		}
	}
	if now := tokens(); now != before {
		t.Errorf("%d logins are left behind", now-before)
	}
}
