package migrate_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
)

func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		full := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Who reads a .env file, by all the ways in which repositories say it.
func TestReaders(t *testing.T) {
	const e = "A=b\n"
	tests := []struct {
		name  string
		files map[string]string
		want  string // FILE=NAME,NAME FILE=NAME
	}{
		{"nothing", map[string]string{".env": e}, ""},
		{"a unit", map[string]string{".env": e, "deploy/app.service": "[Service]\nEnvironmentFile=-/srv/app/.env\n"}, ".env=systemd"},
		{"a unit with a specifier", map[string]string{".env.production": e, "app@.service": "[Service]\nEnvironmentFile=%h/app/.env.production\n"}, ".env.production=systemd"},
		{"a drop-in", map[string]string{"api/.env": e, "web/.env": e, "d/app.service.d/env.conf": "[Service]\nEnvironmentFile=/opt/x/api/.env\n"}, "api/.env=systemd"},
		{"a template of a unit", map[string]string{".env": e, "roles/app/templates/app.service.j2": "[Service]\nEnvironmentFile={{ dir }}/.env\n"}, ".env=systemd"},
		{"a unit written by a script", map[string]string{".env": e, "install.sh": "cat > /etc/systemd/system/a.service <<EOF\n[Service]\nEnvironmentFile=/srv/a/.env\nEOF\n"}, ".env=systemd"},
		{"a unit's comment", map[string]string{".env": e, "app.service": "[Service]\n#EnvironmentFile=/srv/a/.env\n"}, ""},
		{"systemd-run", map[string]string{".env": e, "run.sh": "systemd-run -p EnvironmentFile=/srv/a/.env true\n"}, ".env=systemd"},
		{"another file of a unit", map[string]string{".env": e, "app.service": "[Service]\nEnvironmentFile=/etc/default/app\n"}, ""},
		{"compose", map[string]string{".env": e, "docker-compose.yml": "services:\n  a:\n    env_file: .env\n"}, ".env=compose"},
		{"compose, a list", map[string]string{"a/.env": e, "b.env": e, "compose.yaml": "services:\n  a:\n    env_file:\n      - ./a/.env\n      - b.env\n"}, "a/.env=compose b.env=compose"},
		{"compose, raw", map[string]string{".env": e, "compose.yaml": "services:\n  a:\n    env_file:\n      - path: .env\n        format: raw\n        required: false\n"}, ".env=docker"},
		{"compose, both", map[string]string{".env": e, "compose.yaml": "services:\n  a:\n    env_file:\n      - path: .env\n        format: raw\n  b:\n    env_file: [.env]\n"}, ".env=compose,docker"},
		{"compose beside another", map[string]string{"api/.env": e, ".env": e, "api/docker-compose.prod.yml": "services:\n  a:\n    env_file: .env\n"}, "api/.env=compose"},
		{"compose replaces", map[string]string{".env": e, "compose.yml": "services:\n  a:\n    image: a:${TAG}\n"}, ".env=compose"},
		{"compose replaces nothing", map[string]string{".env": e, "compose.yml": "services:\n  a:\n    image: a\n    environment: [A]\n"}, ""},
		{"compose, an anchor", map[string]string{".env": e, "compose.yml": "x-e: &e\n  - .env\nservices:\n  a:\n    env_file: *e\n"}, ".env=compose"},
		{"compose by a flag", map[string]string{".env.prod": e, "up.sh": "docker compose --env-file .env.prod up -d\n"}, ".env.prod=compose"},
		{"docker run", map[string]string{".env": e, "run.sh": "docker run -d --rm \\\n  --env-file .env \\\n  app\n"}, ".env=docker"},
		{"docker run in a Makefile", map[string]string{".env": e, "Makefile": "run:\n\t@docker run --env-file=.env app\n"}, ".env=docker"},
		{"docker run with a folder", map[string]string{".env": e, "run.sh": "docker run --env-file \"$(dirname \"$0\")/.env\" app\n"}, ".env=docker"},
		{"docker run in a workflow", map[string]string{"ci.env": e, ".github/workflows/ci.yml": "on: push\njobs:\n  a:\n    steps:\n      - run: docker run --env-file ci.env app\n        env: {}\n"}, "ci.env=docker"},
		{"an instance of a unit, anywhere", map[string]string{".env": e, "web/.env": e, "a@.service": "[Service]\nEnvironmentFile=-/etc/app/%i.env\n"}, ""},
		{"an instance of a unit, in its folder", map[string]string{".env": e, "app/web.env": e, "a@.service": "[Service]\nEnvironmentFile=-/etc/app/%i.env\n"}, "app/web.env=systemd"},
		{"podman", map[string]string{".env": e, "run.sh": "podman run --env-file .env app\n"}, ".env=docker"},
		{"node", map[string]string{".env": e, "package.json": `{"scripts": {"start": "node --env-file=.env server.js"}}`}, ".env=node-env-file"},
		{"node after docker", map[string]string{".env": e, "run.sh": "docker pull x && node --env-file .env a.js\n"}, ".env=node-env-file"},
		{"loadEnvFile", map[string]string{".env": e, "a.mjs": "import process from 'node:process'\nprocess.loadEnvFile('.env')\n"}, ".env=node-env-file"},
		{"dotenv of npm", map[string]string{".env": e, ".env.production": e, "sub/.env": e, "package.json": `{"dependencies": {"dotenv": "^16"}}`}, ".env=node .env.production=node"},
		{"a framework", map[string]string{"web/.env.local": e, ".env": e, "web/package.json": `{"devDependencies": {"vite": "5"}}`}, "web/.env.local=node"},
		{"dotenv in code", map[string]string{"config/.env": e, ".env": e, "src/a.js": "require('dotenv').config({ path: './config/.env' })\n"}, "config/.env=node"},
		{"no dotenv", map[string]string{".env": e, "package.json": `{"dependencies": {"express": "4"}, "scripts": {"env": "env"}}`}, ""},
		{"bash", map[string]string{".env": e, "run.sh": "set -a; source .env; set +a\n"}, ".env=bash"},
		{"python-decouple", map[string]string{".env": e, "s.py": "from decouple import config\nA = config('A')\n"}, ".env=python-decouple"},
		{"python-decouple, a path", map[string]string{".env": e, "prod.env": e, "s.py": "from decouple import Config, RepositoryEnv\nc = Config(RepositoryEnv('prod.env'))\n"}, "prod.env=python-decouple"},
		{"django-environ", map[string]string{".env": e, "s.py": "import environ\nenviron.Env.read_env(BASE / '.env')\n"}, ".env=django-environ"},
		{"django-environ without a file", map[string]string{".env": e, "s.py": "import environ\nenv = environ.Env()\n"}, ""},
		{"starlette", map[string]string{".env": e, "s.py": "from starlette.config import Config\nc = Config('.env')\n"}, ".env=starlette"},
		{"direnv", map[string]string{".env": e, ".env.local": e, ".envrc": "dotenv\ndotenv_if_exists .env.local\n"}, ".env=direnv .env.local=direnv"},
		{"words of the shell", map[string]string{"a/.env": e, "b.env": e, "r.sh": "export $(grep -v '^#' a/.env | xargs)\nenv $(cat b.env | xargs) ./x\n"}, "a/.env=the shell, word by word, b.env=the shell, word by word,"},
		{"bash, a dot", map[string]string{".env": e, "run.sh": "#!/bin/sh\nset -a\n. ./.env\n"}, ".env=bash"},
		{"bash, a test before", map[string]string{".env": e, "run.sh": "[ -f .env ] && . \"$DIR/.env\"\n"}, ".env=bash"},
		{"bash in a Makefile", map[string]string{".env": e, "Makefile": "run:\n\t@set -a && . ./.env && ./app\n"}, ".env=bash"},
		{"bash, a comment", map[string]string{".env": e, "run.sh": "# source .env first\n"}, ""},
		{"bash, another file", map[string]string{".env": e, "run.sh": "source lib/env.sh\n"}, ""},
		{"python-dotenv", map[string]string{".env": e, "app/settings.py": "from dotenv import load_dotenv\nload_dotenv()\n"}, ".env=python"},
		{"python-dotenv, a path", map[string]string{".env.prod": e, ".env": e, "a.py": "from dotenv import load_dotenv\nload_dotenv(\n    BASE / '.env.prod',\n)\n"}, ".env.prod=python"},
		{"pydantic", map[string]string{".env": e, "s.py": "class S(BaseSettings):\n    model_config = SettingsConfigDict(env_file=\".env\", env_prefix=\"X_\")\n"}, ".env=python"},
		{"python in a comment", map[string]string{".env": e, "a.py": "# load_dotenv() was here\nimport dotenv\n"}, ""},
		{"two readers", map[string]string{".env": e, "a.service": "EnvironmentFile=/srv/.env\n", "a.py": "from dotenv import load_dotenv\nload_dotenv()\n"}, ".env=python,systemd"},
		{"compose, included", map[string]string{"infra/.env": e, ".env": e, "compose.yaml": "include:\n  - infra/db.yml\nservices: {}\n", "infra/db.yml": "services:\n  a:\n    env_file: .env\n"}, "infra/.env=compose"},
		{"compose, extended", map[string]string{"a.env": e, "compose.yaml": "services:\n  a:\n    extends:\n      file: common-services.yml\n      service: b\n", "common-services.yml": "services:\n  b:\n    env_file:\n      - path: ./a.env\n        required: false\n"}, "a.env=compose"},
		{"compose, by -f", map[string]string{"deploy/.env": e, "deploy/stack.prod.yaml": "services:\n  a:\n    image: a:${TAG}\n"}, "deploy/.env=compose"},
		{"services of a workflow", map[string]string{".env": e, "ci.yml": "jobs:\n  a:\n    services:\n      db:\n        env_file: .env\n"}, ""},
		{"compose, a part filled in", map[string]string{".env.staging": e, ".env.production": e, ".env": e, "compose.yml": "services:\n  a:\n    env_file: [\".env.${STAGE:-staging}\"]\n"}, ".env=compose .env.production=compose .env.staging=compose"},
		{"systemd, an instance", map[string]string{"conf/a.env": e, "conf/b.env": e, ".env": e, "app@.service": "[Service]\nEnvironmentFile=-/etc/app/conf/%i.env\n"}, "conf/a.env=systemd conf/b.env=systemd"},
		{"systemd, several files", map[string]string{"a.env": e, "b.env": e, "c.env": e, "app.service": "[Service]\nEnvironmentFile=/srv/app/a.env\nEnvironmentFile=-/srv/app/b.env\n"}, "a.env=systemd b.env=systemd"},
		{"systemd, a glob", map[string]string{"conf/a.env": e, "conf/b.env": e, ".env": e, "app.service": "[Service]\nEnvironmentFile=/etc/app/conf/*.env\n"}, "conf/a.env=systemd conf/b.env=systemd"},
		{"a drop-in", map[string]string{".env": e, "deploy/app.service.d/10-env.conf": "[Service]\nEnvironmentFile=-%h/app/.env\n"}, ".env=systemd"},
		{"bash, a part filled in", map[string]string{".env.staging": e, "run.sh": "set -a; . \"./.env.$STAGE\"; set +a\n"}, ".env.staging=bash"},
		{"bash, all filled in", map[string]string{".env": e, "run.sh": "set -a; . \"$FILE\"; set +a\n"}, ""},
		{"two services, one file", map[string]string{".env": e, "api/compose.yml": "services:\n  a:\n    env_file: ../.env\n", "web/compose.yml": "services:\n  b:\n    env_file: ../.env\n"}, ".env=compose"},
		{"a name of its own", map[string]string{"deploy/app.conf": e, "deploy/compose.yml": "services:\n  a:\n    env_file: app.conf\n"}, "deploy/app.conf=compose"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: plant(t, tt.files)})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, file := range slices.Sorted(maps.Keys(r.Readers)) {
				var names []string
				for _, reader := range r.Readers[file] {
					names = append(names, cmp.Or(reader.Own, reader.Dialect))
					if reader.Line < 1 || reader.File == "" {
						t.Errorf("%s: no place: %+v", file, reader)
					}
				}
				got = append(got, file+"="+strings.Join(names, ","))
				if r.Readers[file][0].Own == "" && r.Dialects[file] != names[0] {
					t.Errorf("%s is read as by %s", file, r.Dialects[file])
				}
			}
			if all := strings.Join(got, " "); all != tt.want {
				t.Errorf("got %q, want %q", all, tt.want)
			}
		})
	}
}

// The value that goes to Vault is the reader's; where two readers differ on it
// nothing is planned, until somebody says who counts.
func TestReadersDecide(t *testing.T) {
	unit := "[Service]\nEnvironmentFile=/srv/app/.env\n"
	loads := "from dotenv import load_dotenv\nload_dotenv()\n"
	compose := "services:\n  a:\n    env_file:\n      - path: .env\n        format: raw\n"
	tests := []struct {
		name  string
		env   string
		files map[string]string
		opts  migrate.ScanOptions
		stops string // NAME, NAME; "-" for the file
		value string // of DB_PASSWORD where nothing stops
	}{
		{"systemd's comment", "DB_PASSWORD=abc-77 # prod\n", map[string]string{"a.service": unit}, migrate.ScanOptions{}, "", "abc-77 # prod"},
		{"systemd's backslash", "DB_PASSWORD=pa\\ss-77\n", map[string]string{"a.service": unit}, migrate.ScanOptions{}, "", "pass-77"},
		{"systemd's quotes", "DB_PASSWORD=\"l1\\nl2-77\"\n", map[string]string{"a.service": unit}, migrate.ScanOptions{}, "", `l1\nl2-77`},
		{"docker's quotes", "DB_PASSWORD='abc-77'\n", map[string]string{"c/../compose.yml": compose}, migrate.ScanOptions{}, "", "'abc-77'"},
		{"Node's #", "DB_PASSWORD=pa#ss-77\n", map[string]string{"package.json": `{"dependencies": {"dotenv": "17"}}`}, migrate.ScanOptions{}, "", "pa"},
		{"bash's backslash", "DB_PASSWORD=pa\\ss-77\n", map[string]string{"run.sh": "set -a\n. ./.env\n"}, migrate.ScanOptions{}, "", "pass-77"},
		{"nobody", "DB_PASSWORD=pa#ss-77\n", nil, migrate.ScanOptions{}, "", "pa#ss-77"},
		{"a framework that expands", "DB_PASSWORD=pa$ss-77\n", map[string]string{"package.json": `{"dependencies": {"next": "15"}}`}, migrate.ScanOptions{}, "DB_PASSWORD", ""},
		{"a framework, no dollar", "DB_PASSWORD=pass-77\n", map[string]string{"package.json": `{"dependencies": {"dotenv": "17", "vite": "5"}}`}, migrate.ScanOptions{}, "", "pass-77"},
		{"a framework beside dotenv", "DB_PASSWORD=pa$ss-77\n", map[string]string{"package.json": `{"dependencies": {"dotenv": "17", "vite": "5"}}`}, migrate.ScanOptions{}, "DB_PASSWORD", ""},
		{"dotenv alone keeps a dollar", "DB_PASSWORD=pa$ss-77\n", map[string]string{"package.json": `{"dependencies": {"dotenv": "17"}}`}, migrate.ScanOptions{}, "", "pa$ss-77"},
		{"two that agree", "DB_PASSWORD='abc-77'\n", map[string]string{"a.service": unit, "a.py": loads}, migrate.ScanOptions{}, "", "abc-77"},
		{"two that do not", "X=1\nDB_PASSWORD=abc-77 # prod\n", map[string]string{"a.service": unit, "a.py": loads}, migrate.ScanOptions{}, "DB_PASSWORD", ""},
		{"two, of a plain variable", "DB_PASSWORD=abc-77\nLOG_LEVEL=info # or debug\n", map[string]string{"a.service": unit, "a.py": loads}, migrate.ScanOptions{}, "", "abc-77"},
		{"one does not read it", "export DB_PASSWORD=abc-77\n", map[string]string{"a.service": unit, "a.py": loads}, migrate.ScanOptions{}, "-", ""},
		{"one does not read it, nothing moves", "export LOG_LEVEL=info\n", map[string]string{"a.service": unit, "a.py": loads}, migrate.ScanOptions{}, "", ""},
		{"three", "DB_PASSWORD='abc-77'\n", map[string]string{"a.service": unit, "a.py": loads, "compose.yml": compose}, migrate.ScanOptions{}, "DB_PASSWORD", ""},
		{"chosen for the file", "DB_PASSWORD=abc-77 # prod\n", map[string]string{"a.service": unit, "a.py": loads},
			migrate.ScanOptions{Dialects: map[string]dotenv.Dialect{".env": dotenv.Systemd}}, "", "abc-77 # prod"},
		{"chosen for all", "DB_PASSWORD=abc-77 # prod\n", map[string]string{"a.service": unit}, migrate.ScanOptions{Dialect: dotenv.Python}, "", "abc-77"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{".env": tt.env}
			maps.Copy(files, tt.files)
			tt.opts.Root, tt.opts.Reveal = plant(t, files), true
			r, err := migrate.Scan(t.Context(), tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Fatal()) > 0 {
				t.Fatalf("faults: %v", r.Fatal())
			}
			var stops []string
			for _, d := range r.Stops() {
				if stops = append(stops, d.Name); d.Name == "" {
					stops[len(stops)-1] = "-"
				}
				if strings.Contains(d.Why, "77") || !strings.Contains(d.Why, ".py:2") && !strings.Contains(d.Why, ".service:2") && !strings.Contains(d.Why, "compose.yml:4") && !strings.Contains(d.Why, "package.json:1") {
					t.Errorf("it says %q", d.Why)
				}
			}
			if got := strings.Join(slices.Compact(stops), " "); got != tt.stops {
				t.Fatalf("stops at %q, want %q: %+v", got, tt.stops, r.Differences)
			}
			if tt.stops != "" {
				return
			}
			for _, v := range r.Variables {
				for _, d := range v.Definitions {
					if v.Name == "DB_PASSWORD" && d.Value != tt.value {
						t.Errorf("the value is %q, want %q", d.Value, tt.value)
					}
				}
			}
			p, err := migrate.NewPlan(r, "app")
			if err != nil {
				t.Fatal(err)
			}
			again, err := migrate.ParsePlan("plan", p.Encode())
			if err != nil {
				t.Fatal(err)
			}
			if d, err := again.DialectOf(".env"); err != nil || d.String() != r.Dialects[".env"] {
				t.Errorf("the plan follows %v (%v), the scan %s", d, err, r.Dialects[".env"])
			}
		})
	}
}

// A file that its only reader does not understand is an error that says whose
// reading that is.
func TestReadersFault(t *testing.T) {
	dir := plant(t, map[string]string{".env": "DB_PASSWORD=abc 77\n", "run.sh": "set -a\n. ./.env\n"})
	r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.Fatal()); !strings.Contains(got, ".env:1: a command: bash would run it (bash reads it by run.sh:2") || strings.Contains(got, "77") {
		t.Errorf("got %s", got)
	}
}

// Where a file is read by who has a grammar of its own, a value that could be read in two
// ways stops the plan, unless it was said whose reading counts; one that could not does not.
func TestReadersWithTheirOwnGrammar(t *testing.T) {
	for by, file := range map[string][2]string{
		"python-decouple": {"s.py", "from decouple import config\n"},
		"django-environ":  {"s.py", "import environ\nenviron.Env.read_env('.env')\n"},
		"direnv":          {".envrc", "dotenv\n"},
		"the shell":       {"r.sh", "export $(cat .env | xargs)\n"},
	} {
		dir := plant(t, map[string]string{".env": "A_TOKEN=Fjord-77\nB_TOKEN='Fjord-78'\nPLAIN=a # b\nC_TOKEN=Fjord-79 # live\nD_TOKEN=\"Fjord\\n80\"\n", file[0]: file[1]})
		r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir})
		if err != nil {
			t.Fatal(err)
		}
		stops := r.Stops()
		if len(stops) != 2 || stops[0].Name != "C_TOKEN" || stops[1].Name != "D_TOKEN" || !strings.Contains(stops[0].Why, by) || strings.Contains(fmt.Sprint(stops), "Fjord") || len(r.Fatal()) > 0 {
			t.Errorf("%s: %+v %v", by, stops, r.Fatal())
		}
		r, err = migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Dialects: map[string]dotenv.Dialect{".env": dotenv.Python}})
		if err != nil || len(r.Stops()) > 0 {
			t.Errorf("%s: %+v, %v", by, r.Stops(), err)
		}
	}
}
