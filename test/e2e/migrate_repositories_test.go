package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/test/vaulttest"
)

// repository is a tree as public ones have it, with invented values.
type repository struct {
	name  string
	files map[string]string
	// refused is the first try at a plan, and what it must say: "" for a plan
	// that needs no more than the app.
	refused []string
	// plan has the arguments that the refusal asks for.
	plan []string
	// secrets by environment, as the readers of their files get them.
	secrets map[string]map[string]string
	// plain stay in their files, as the lines stand there.
	plain map[string][]string
	// left are files that the cutover must name for values that are still there.
	left []string
	// later is a line that somebody adds to a file after the cutover.
	later struct{ file, line, environment, name, value string }
}

// Whole migrations, from scan to rollback: of one repository always, of all
// with STRONGROOM_SOAK=1.
func TestMigrateRepositories(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	all := []repository{djangoWithUnits(), composeMonorepo(), dagsterProject(), nodeApp()}
	if os.Getenv("STRONGROOM_SOAK") != "1" {
		all = all[:1]
	}
	for _, r := range all {
		t.Run(r.name, func(t *testing.T) { migrateRepository(t, s, r) })
	}
}

func migrateRepository(t *testing.T, s *vaulttest.Server, r repository) {
	dir := t.TempDir()
	for name, text := range r.files {
		full := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	commitAll(t, dir)
	hidden := map[string]string{}
	for env, secrets := range r.secrets {
		for name, value := range secrets {
			hidden[env+" "+name] = value
		}
	}
	hidden[r.later.name] = r.later.value
	o := newOperator(t, s, dir, hidden)
	recipient, identity := newKey(t)
	before := fileTree(t, dir, ".git")

	scanned := o.must(0, "migrate", "scan")
	for _, secrets := range r.secrets {
		for name := range secrets {
			if !strings.Contains(scanned, name) {
				t.Errorf("scan does not name %s", name)
			}
		}
	}
	if r.refused != nil {
		out := o.must(3, "migrate", "plan", "--app", r.name)
		for _, says := range r.refused {
			if !strings.Contains(out, says) {
				t.Errorf("the plan does not say %q:\n%s", says, out)
			}
		}
	}
	o.must(0, append([]string{"migrate", "plan", "--app", r.name}, r.plan...)...)
	o.must(0, "migrate", "apply")
	o.must(0, "migrate", "verify")
	r.programsGet(t, o, r.secrets)
	if now := fileTree(t, dir, ".git", migrate.StateDir, migrate.PlanFile); !maps.Equal(without(now, "strongroom-env"), before) {
		t.Error("apply changes the tree")
	}

	out := o.must(0, "migrate", "cutover", "--patch-code", "--recipient", recipient)
	r.isCut(t, o, out)
	r.programsGet(t, o, r.secrets)
	o.must(0, "migrate", "plan")
	if out := o.must(0, "migrate", "apply"); !strings.Contains(out, "0 secrets written") {
		t.Errorf("apply once more: %s", out)
	}

	// Somebody adds a secret, and it goes the same way; then all comes back.
	cut := fileTree(t, dir, ".git", migrate.StateDir)
	full := filepath.Join(dir, filepath.FromSlash(r.later.file))
	text, err := os.ReadFile(full)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, append(text, r.later.line+"\n"...), 0o640); err != nil {
		t.Fatal(err)
	}
	o.must(0, "migrate", "plan")
	o.must(0, "migrate", "apply")
	o.must(0, "migrate", "cutover", "--patch-code", "--recipient", recipient)
	grown := map[string]map[string]string{}
	for env, secrets := range r.secrets {
		grown[env] = maps.Clone(secrets)
	}
	grown[r.later.environment][r.later.name] = r.later.value
	r.programsGet(t, o, grown)

	o.must(0, "migrate", "rollback", "--identity", identity)
	if now, err := os.ReadFile(full); err != nil || !strings.Contains(string(now), r.later.line) {
		t.Errorf("the first rollback does not bring %s back (%v)", r.later.name, err)
	}
	if cut[r.later.file] == "" {
		t.Errorf("%s is gone after the cutover", r.later.file)
	}
	o.must(0, "migrate", "rollback", "--identity", identity, "--from-vault", "--force")
	now := fileTree(t, dir, ".git", migrate.StateDir, migrate.PlanFile)
	for name, text := range before {
		if name == r.later.file {
			continue
		}
		if now[name] != text {
			t.Errorf("%s is not as it was", name)
		}
		delete(now, name)
	}
	delete(now, r.later.file)
	if len(now) > 0 {
		t.Errorf("more files than before: %v", slices.Sorted(maps.Keys(now)))
	}
	for _, secrets := range r.secrets {
		for name, value := range secrets {
			if text := before[r.later.file]; strings.Contains(text, value) {
				if restored, err := os.ReadFile(full); err != nil || !strings.Contains(string(restored), value) {
					t.Errorf("%s is not back in %s (%v)", name, r.later.file, err)
				}
			}
		}
	}
}

// programsGet: every program gets what its reader got from the file.
func (r repository) programsGet(t *testing.T, o *operator, secrets map[string]map[string]string) {
	t.Helper()
	for env, want := range secrets {
		out, code := o.reveal("env", "exec", "--app", r.name, "--env", env, "--", "env", "-0")
		if code != 0 {
			t.Fatalf("env exec of %s: exit code %d", env, code)
		}
		got := map[string]string{}
		for _, pair := range strings.Split(out, "\x00") {
			name, value, _ := strings.Cut(pair, "=")
			got[name] = value
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s has %d bytes for a program, want %d, or another value", env, name, len(got[name]), len(value))
			}
		}
	}
}

// isCut: no .env file holds a moved value, what is plain stands as it stood,
// and what still holds one is named.
func (r repository) isCut(t *testing.T, o *operator, said string) {
	t.Helper()
	for file := range r.files {
		data, err := os.ReadFile(filepath.Join(o.dir, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		holds := false
		for _, secrets := range r.secrets {
			for _, value := range secrets {
				holds = holds || strings.Contains(string(data), value)
			}
		}
		switch named := slices.Contains(r.left, file); {
		case holds && !named:
			t.Errorf("%s still holds a value that was moved", file)
		case named && !strings.Contains(said, file+":") && !strings.Contains(said, file+" "):
			t.Errorf("the cutover does not name %s, which holds a value still:\n%s", file, said)
		}
		for _, line := range r.plain[file] {
			if !strings.Contains("\n"+string(data), "\n"+line) {
				t.Errorf("%s has lost the line %q", file, line)
			}
		}
	}
}

// without leaves out names that begin with a prefix.
func without(files map[string]string, prefix string) map[string]string {
	out := maps.Clone(files)
	maps.DeleteFunc(out, func(name, _ string) bool { return strings.HasPrefix(name, prefix) })
	return out
}

// djangoWithUnits: systemd reads the file on the server and python-dotenv in
// development, and they do not agree on one line.
func djangoWithUnits() repository {
	r := repository{
		name: "shop",
		files: map[string]string{
			".env": "# production values\nDEBUG=0\nALLOWED_HOSTS=shop.example,www.shop.example\nSECRET_KEY=dj-q8Zr2Lw0Xv6Kt9 # never rotate by hand\n" +
				"DATABASE_URL=postgres://shop:inv-Pg-77@db.example:5432/shop\nEMAIL_HOST=smtp.example\nEMAIL_HOST_PASSWORD='inv mail 77'\nSTRIPE_API_KEY=inv-stripe-5521\nAWS_REGION=eu-central-1\n",
			".env.example":              "SECRET_KEY=change-me\nDATABASE_URL=postgres://user:password@localhost/db\n",
			"manage.py":                 "#!/usr/bin/env python\nimport os\n\nfrom dotenv import load_dotenv\n\nload_dotenv()\nos.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\n",
			"shop/settings.py":          "import os\n\nSECRET_KEY = os.environ[\"SECRET_KEY\"]\nDEBUG = os.environ.get(\"DEBUG\") == \"1\"\nEMAIL_HOST_PASSWORD = os.getenv(\"EMAIL_HOST_PASSWORD\", \"\")\nSTRIPE = os.environ[\"STRIPE_API_KEY\"]\n",
			"deploy/gunicorn.service":   "[Service]\nUser=www-data\nWorkingDirectory=/srv/shop\nEnvironmentFile=/srv/shop/.env\nExecStart=/srv/shop/venv/bin/gunicorn shop.wsgi\n",
			"deploy/celery.service":     "[Service]\nEnvironmentFile=-/srv/shop/.env\nExecStart=/srv/shop/venv/bin/celery -A shop worker\n",
			"README.md":                 "# Shop\n\nDeploy: systemctl restart gunicorn. The mail password is `inv mail 77`.\n",
			"requirements.txt":          "django==5.1\npython-dotenv==1.2.4\n",
			"shop/templates/index.html": "<p>{{ secret }}</p>\n",
		},
		refused: []string{".env:4: SECRET_KEY", "systemd", "deploy/celery.service:2", "--dialect FILE=NAME"},
		plan:    []string{"--default-environment", "production", "--dialect", ".env=systemd"},
		secrets: map[string]map[string]string{"production": {
			"SECRET_KEY": "dj-q8Zr2Lw0Xv6Kt9 # never rotate by hand", "DATABASE_URL": "postgres://shop:inv-Pg-77@db.example:5432/shop", "EMAIL_HOST_PASSWORD": "inv mail 77", "STRIPE_API_KEY": "inv-stripe-5521",
		}},
		plain: map[string][]string{".env": {"# production values", "DEBUG=0", "ALLOWED_HOSTS=", "EMAIL_HOST=smtp.example", "AWS_REGION="}},
		left:  []string{"README.md"},
	}
	r.later.file, r.later.line, r.later.environment, r.later.name, r.later.value = ".env", "SENTRY_TOKEN=inv-sentry-9911", "production", "SENTRY_TOKEN", "inv-sentry-9911"
	return r
}

// composeMonorepo: services with a file each, two of them with one name, and
// one file that is taken raw.
func composeMonorepo() repository {
	r := repository{
		name: "mono",
		files: map[string]string{
			".env":                      "TAG=1.4\nPOSTGRES_PASSWORD=inv-root-db-31\n",
			"docker-compose.yml":        "services:\n  db:\n    image: postgres:16\n    environment:\n      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD}\n  api:\n    image: api:${TAG}\n    env_file:\n      - ./api/.env\n  worker:\n    build: worker\n    env_file:\n      - path: ./worker/.env\n        format: raw\n  web:\n    build: web\n    env_file: web/web.env\n",
			"api/.env":                  "PORT=8080\nDB_PASSWORD='inv-api-db-41'\nJWT_SECRET=\"inv-jwt-$$x-42\"\n",
			"api/main.py":               "import os\nPASSWORD = os.environ[\"DB_PASSWORD\"]\n",
			"worker/.env":               "QUEUE=mail\nDB_PASSWORD='inv-worker-51'\nSMTP_PASSWORD=inv # raw 52\n",
			"worker/Dockerfile":         "FROM python:3.12\nCOPY . .\n",
			"web/web.env":               "PUBLIC_URL=https://mono.example\nSESSION_SECRET=inv-session-61\n",
			"web/server.js":             "const s = process.env.SESSION_SECRET\n",
			".github/workflows/ci.yml":  "on: push\njobs:\n  t:\n    runs-on: ubuntu-latest\n    steps:\n      - run: docker compose config\n",
			"api/.env.example":          "DB_PASSWORD=\n",
			"packages/lib/package.json": "{\"name\": \"lib\"}\n",
		},
		refused: []string{"DB_PASSWORD would be two secrets", "--env-file"},
		plan: []string{"--default-environment", "production", "--force", "--env-file", "api/.env=api-production", "--env-file", "worker/.env=worker-production", "--env-file", "web/web.env=web-production",
			"--env-file", ".env=production"},
		secrets: map[string]map[string]string{
			"production":        {"POSTGRES_PASSWORD": "inv-root-db-31"},
			"api-production":    {"DB_PASSWORD": "inv-api-db-41", "JWT_SECRET": "inv-jwt-$x-42"},
			"worker-production": {"DB_PASSWORD": "'inv-worker-51'", "SMTP_PASSWORD": "inv # raw 52"},
			"web-production":    {"SESSION_SECRET": "inv-session-61"},
		},
		plain: map[string][]string{".env": {"TAG=1.4"}, "api/.env": {"PORT=8080"}, "worker/.env": {"QUEUE=mail"}, "web/web.env": {"PUBLIC_URL="}},
	}
	r.later.file, r.later.line, r.later.environment, r.later.name, r.later.value = "worker/.env", "API_TOKEN=\"inv-tok-71\"", "worker-production", "API_TOKEN", `"inv-tok-71"`
	return r
}

// dagsterProject: files by environment, EnvVar in code, and docker run for
// production.
func dagsterProject() repository {
	r := repository{
		name: "bikes",
		files: map[string]string{
			".env.staging":            "DAGSTER_HOME=/opt/dagster\nWAREHOUSE_DSN=host=wh.example user=etl password=inv-wh-s-21 dbname=wh\nPROVIDER_API_KEY=\"inv-prov-s-22\"\n",
			".env.production":         "DAGSTER_HOME=/opt/dagster\nWAREHOUSE_DSN=host=wh.example user=etl password=inv-wh-p-23 dbname=wh\nPROVIDER_API_KEY=inv-prov#p-24\nLOG_LEVEL=info\n",
			"dagster.yaml":            "storage:\n  postgres:\n    postgres_db:\n      password:\n        env: WAREHOUSE_DSN\n",
			"bikes/definitions.py":    "import os\n\nimport dagster as dg\nfrom dotenv import load_dotenv\n\nload_dotenv(\".env.staging\")\n\nkey = dg.EnvVar(\"PROVIDER_API_KEY\")\ndsn = os.environ[\"WAREHOUSE_DSN\"]\n",
			"Makefile":                "deploy:\n\tdocker run -d --name bikes \\\n\t\t--env-file .env.production \\\n\t\tbikes:latest\n",
			"pyproject.toml":          "[project]\nname = \"bikes\"\nversion = \"0.1\"\n",
			"workspace.yaml":          "load_from:\n  - python_module: bikes.definitions\n",
			"dbt/profiles.yml":        "bikes:\n  outputs:\n    prod:\n      type: postgres\n      password: \"{{ env_var('DBT_PASSWORD') }}\"\n",
			"notebooks/explore.ipynb": "{\"cells\": [{\"cell_type\": \"code\", \"source\": [\"import os\\n\", \"k = os.environ['PROVIDER_API_KEY']\\n\"]}]}\n",
		},
		secrets: map[string]map[string]string{
			"staging":    {"WAREHOUSE_DSN": "host=wh.example user=etl password=inv-wh-s-21 dbname=wh", "PROVIDER_API_KEY": "inv-prov-s-22"},
			"production": {"WAREHOUSE_DSN": "host=wh.example user=etl password=inv-wh-p-23 dbname=wh", "PROVIDER_API_KEY": "inv-prov#p-24"},
		},
		plain: map[string][]string{".env.production": {"DAGSTER_HOME=", "LOG_LEVEL=info"}},
	}
	r.later.file, r.later.line, r.later.environment, r.later.name, r.later.value = ".env.production", "SLACK_TOKEN=inv-slack-25", "production", "SLACK_TOKEN", "inv-slack-25"
	return r
}

// nodeApp: dotenv of npm, whose "#" needs no blank and whose quotes are three.
func nodeApp() repository {
	r := repository{
		name: "frontdesk",
		files: map[string]string{
			".env":                  "NODE_ENV=production\nPORT=3000\nDB_PASSWORD=inv-node-81#old\nMAIL_PASSWORD=\"inv-a\\nb-82\"\nWEBHOOK_SECRET=`it's \"inv\" 83`\nMONGO_URL=mongodb://app:inv-mongo-84@db.example/app\n",
			"package.json":          "{\n  \"name\": \"frontdesk\",\n  \"scripts\": {\"start\": \"node src/server.js\"},\n  \"dependencies\": {\"dotenv\": \"^17.2.3\", \"express\": \"^5\"}\n}\n",
			"src/server.js":         "require('dotenv').config()\nconst url = process.env.MONGO_URL\nconst { DB_PASSWORD, WEBHOOK_SECRET } = process.env\n",
			"src/mail.ts":           "export const password = process.env['MAIL_PASSWORD']\n",
			"Dockerfile":            "FROM node:22\nCOPY . .\nCMD [\"node\", \"src/server.js\"]\n",
			".gitignore":            "node_modules\n",
			"node_modules/x/.env":   "X_PASSWORD=inv-not-ours\n",
			"test/fixtures/bad.env": "A=\"never closed\n",
		},
		plan: []string{"--default-environment", "production"},
		secrets: map[string]map[string]string{"production": {
			"DB_PASSWORD": "inv-node-81", "MAIL_PASSWORD": "inv-a\nb-82", "WEBHOOK_SECRET": `it's "inv" 83`, "MONGO_URL": "mongodb://app:inv-mongo-84@db.example/app",
		}},
		plain: map[string][]string{".env": {"NODE_ENV=production", "PORT=3000"}},
	}
	r.later.file, r.later.line, r.later.environment, r.later.name, r.later.value = ".env", "TURN_SECRET='inv turn 85'", "production", "TURN_SECRET", "inv turn 85"
	return r
}
