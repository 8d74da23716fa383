package migrate_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// What sets a moved variable is found by its line, and what reads it is not.
func TestCheck(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, "app.conf", "# x\nexport DB_PASSWORD='s3cret-4711'\n")
	for name, tt := range map[string]struct{ file, text, want string }{
		"unit":                       {"a.service", "[Service]\nEnvironment=DB_PASSWORD=s3cret-4711\n", "2 DB_PASSWORD"},
		"unit with quotes":           {"a.service", "[Service]\nEnvironment=\"A=1 2\" 'DB_PASSWORD=s3cret 4711' API_KEY=x\n", "2 API_KEY,2 DB_PASSWORD"},
		"unit with a quoted value":   {"a.service", "[Service]\nEnvironment=A=\"x y\" DB_PASSWORD=\"s3cret 4711\"\n", "2 DB_PASSWORD"},
		"unit over lines":            {"a.service", "[Service]\nEnvironment=A=1 \\\n# DB_PASSWORD=no\n  DB_PASSWORD=s3cret-4711\nEnvironment=API_KEY=x\n", "2 DB_PASSWORD,5 API_KEY"},
		"unit that is commented out": {"a.service", "[Service]\n#Environment=DB_PASSWORD=x\n;Environment=API_KEY=x\n", ""},
		"unit that sets nothing":     {"a.service", "[Service]\nEnvironment=DB_PASSWORD= \"API_KEY=\"\n", ""},
		"unit that reads":            {"a.service", "[Service]\nExecStart=/x --p ${DB_PASSWORD}\nEnvironment=A=DB_PASSWORD\n", ""},
		"unit that passes on":        {"a.service", "[Service]\nPassEnvironment=HOME DB_PASSWORD\n", "2 DB_PASSWORD"},
		"unit with env":              {"a.service", "[Service]\nExecStart=/usr/bin/env DB_PASSWORD=s3cret-4711 /x\n", "2 DB_PASSWORD"},
		"drop-in":                    {"a.service.d/10.conf", "[Service]\nEnvironment=DB_PASSWORD=s3cret-4711\n", "2 DB_PASSWORD"},
		"another's .conf":            {"nginx.conf", "Environment DB_PASSWORD;\n", ""},
		"manager":                    {"systemd/system.conf", "[Manager]\nDefaultEnvironment=DB_PASSWORD=x\n", "2 DB_PASSWORD"},
		"quadlet":                    {"a.container", "[Container]\nEnvironment=DB_PASSWORD=x\nPodmanArgs=--env API_KEY=x\n", "2 DB_PASSWORD,3 API_KEY"},
		"environment.d":              {"environment.d/50.conf", "DB_PASSWORD=x\n", "1 DB_PASSWORD"},
		"compose":                    {"docker-compose.yml", "services:\n  a:\n    environment:\n      A: 1\n      DB_PASSWORD: s3cret-4711\n", "5 DB_PASSWORD"},
		"compose, a list":            {"compose.yaml", "services:\n  a:\n    environment:\n      - DB_PASSWORD=s3cret-4711\n      - \"API_KEY=x y\"\n", "4 DB_PASSWORD,5 API_KEY"},
		"compose, passed on":         {"compose.yaml", "services:\n  a:\n    environment:\n      - DB_PASSWORD\n  b:\n    environment:\n      API_KEY:\n", "4 DB_PASSWORD,7 API_KEY"},
		"compose, from outside":      {"compose.prod.yml", "services:\n  a:\n    environment:\n      DB_PASSWORD: ${DB_PASSWORD}\n", "4 DB_PASSWORD"},
		"compose, empty":             {"compose.yml", "services:\n  a:\n    environment:\n      DB_PASSWORD: \"\"\n      X: ${DB_PASSWORD}\n", ""},
		"compose, a command":         {"compose.yml", "services:\n  a:\n    command: sh -c \"DB_PASSWORD=x run\"\n", "3 DB_PASSWORD"},
		"compose, commented out":     {"compose.yml", "services:\n  a:\n    environment:\n      # DB_PASSWORD: x\n      A: 1\n", ""},
		"compose, an anchor":         {"compose.yml", "x-e: &e\n  DB_PASSWORD: x\nservices:\n  a:\n    environment: *e\n", "2 DB_PASSWORD"},
		"Kubernetes":                 {"k8s/d.yaml", "apiVersion: apps/v1\nkind: Deployment\nspec:\n  containers:\n    - name: DB_PASSWORD\n      env:\n        - name: DB_PASSWORD\n          value: x\n        - name: API_KEY\n          valueFrom: {secretKeyRef: {name: s, key: k}}\n", "7 DB_PASSWORD,9 API_KEY"},
		"Kubernetes' secrets":        {"k8s/s.yaml", "apiVersion: v1\nkind: Secret\nstringData:\n  DB_PASSWORD: x\n---\nkind: ConfigMap\ndata:\n  API_KEY: x\n", "4 DB_PASSWORD,8 API_KEY"},
		"a template of Helm":         {"chart/templates/d.yaml", "apiVersion: v1\nkind: x\n{{- if .Values.x }}\nenv:\n  - name: DB_PASSWORD\n    value: {{ .Values.p }}\n  API_KEY: {{ .k }}\n{{- end }}\n", "5 DB_PASSWORD,7 API_KEY"},
		"a task definition":          {"task.json", "{\n\t\"environment\": [\n\t\t{\"name\": \"DB_PASSWORD\", \"value\": \"x\"}\n\t]\n}\n", "3 DB_PASSWORD"},
		"launch.json":                {".vscode/launch.json", "{\n  // ours\n  \"env\": {\n    \"DB_PASSWORD\": \"x\",\n    \"API_KEY\": \"\"\n  }\n}\n", "4 DB_PASSWORD"},
		"package.json":               {"package.json", "{\n  \"scripts\": {\n    \"start\": \"DB_PASSWORD=x node .\"\n  }\n}\n", "3 DB_PASSWORD"},
		"workflow":                   {".github/workflows/a.yml", "env:\n  DB_PASSWORD: ${{ secrets.DB_PASSWORD }}\njobs:\n  t:\n    steps:\n      - run: |\n          true\n          API_KEY=x ./run\n", "2 DB_PASSWORD,8 API_KEY"},
		"GitLab, in full":            {".gitlab-ci.yml", "variables:\n  DB_PASSWORD:\n    value: x\n    description: y\n  API_KEY: {description: z}\n", "2 DB_PASSWORD"},
		"quadlet, a secret":          {"a.container", "[Container]\nSecret=x,type=env,target=DB_PASSWORD\nSecret=y,type=mount,target=API_KEY\n", "2 DB_PASSWORD"},
		"pam_env":                    {"security/pam_env.conf", "DB_PASSWORD DEFAULT=x\n", "1 DB_PASSWORD"},
		"python, several":            {"a.py", "os.environ.update(DB_PASSWORD='x', A='API_KEY')\nos.environ |= {'API_KEY': 'y'}\nx.update(DB_PASSWORD='z')\n", "1 DB_PASSWORD,2 API_KEY"},
		"putenv of PHP":              {"a.php", "putenv(\"DB_PASSWORD=x\"); putenv('A=API_KEY');\n", "1 DB_PASSWORD"},
		"pm2":                        {"ecosystem.config.js", "module.exports = {apps: [{env: {A: 1, DB_PASSWORD: 'x'}, env_production: {API_KEY: \"y\"}}]}\n", "1 API_KEY,1 DB_PASSWORD"},
		"GitLab":                     {".gitlab-ci.yml", "variables:\n  DB_PASSWORD: x\n", "2 DB_PASSWORD"},
		"Dockerfile":                 {"Dockerfile", "FROM x\nENV A=1 DB_PASSWORD=s3cret-4711\nENV API_KEY x\nRUN echo $DB_PASSWORD\n", "2 DB_PASSWORD,3 API_KEY"},
		"crontab":                    {"crontab", "MAILTO=x\nDB_PASSWORD=s3cret-4711\n* * * * * API_KEY=x /run\n", "2 DB_PASSWORD,3 API_KEY"},
		"cron.d":                     {"etc/cron.d/app", "DB_PASSWORD = x\n# API_KEY=x\n", "1 DB_PASSWORD"},
		"shell":                      {"run.sh", "export DB_PASSWORD=x\necho $API_KEY\n[ \"$DB_PASSWORD\" = x ]\n", "1 DB_PASSWORD"},
		"a command in a shell":       {"run.sh", "docker run -e DB_PASSWORD=x -e API_KEY img\nsystemd-run --setenv=API_KEY=x y\n", "1 DB_PASSWORD,2 API_KEY"},
		".envrc":                     {".envrc", "export DB_PASSWORD=$(pass show x)\n", "1 DB_PASSWORD"},
		"fish":                       {"config.fish", "set -gx DB_PASSWORD x\n", "1 DB_PASSWORD"},
		"Procfile":                   {"Procfile", "web: DB_PASSWORD=x gunicorn\n", "1 DB_PASSWORD"},
		"/etc/environment":           {"environment", "DB_PASSWORD=\"x\"\n", "1 DB_PASSWORD"},
		"supervisor":                 {"supervisord.conf", "[program:a]\nenvironment=DB_PASSWORD=\"x\",API_KEY=\"y\"\n", "2 API_KEY,2 DB_PASSWORD"},
		"tox":                        {"tox.ini", "[testenv]\nsetenv =\n    DB_PASSWORD = x\npassenv = API_KEY\n", "3 DB_PASSWORD"},
		"PHP":                        {"fpm/www.conf", "env[DB_PASSWORD] = x\n", "1 DB_PASSWORD"},
		"Apache":                     {"site.conf", "SetEnv DB_PASSWORD x\n", "1 DB_PASSWORD"},
		"launchd":                    {"a.plist", "<dict>\n<key>DB_PASSWORD</key>\n<string>x</string>\n", "2 DB_PASSWORD"},
		"Terraform":                  {"a.tf", "environment {\n  DB_PASSWORD = var.p\n}\n", "2 DB_PASSWORD"},
		"PowerShell":                 {"a.ps", "$env:DB_PASSWORD = 'x'\n", "1 DB_PASSWORD"},
		".env":                       {".env.production", "A=1\nDB_PASSWORD=s3cret-4711\nAPI_KEY=\n", "2 DB_PASSWORD"},
		".env of another":            {".env", "DB_PASSWORD=${X}\n", "1 DB_PASSWORD"},
		".env that is faulty":        {".env", "DB_PASSWORD=x\nA='\n", "1 DB_PASSWORD"},
		"a template of .env":         {".env.example", "DB_PASSWORD=x\n", ""},
		"code that sets":             {"a.py", "import os\nos.environ['DB_PASSWORD'] = 'x'\nos.environ.setdefault(\"API_KEY\", 'x')\n", "2 DB_PASSWORD,3 API_KEY"},
		"code that reads":            {"a.py", "import os\nf(os.environ['DB_PASSWORD'], x)\nif os.environ['DB_PASSWORD'] == 1: g(DB_PASSWORD=1)\nDB_PASSWORD = os.getenv('DB_PASSWORD')\n", ""},
		"JavaScript":                 {"a.js", "process.env.DB_PASSWORD = 'x';\nconst y = process.env.API_KEY === 'x', z = process.env.API_KEY;\n", "1 DB_PASSWORD"},
		"prose":                      {"README.md", "DB_PASSWORD=x\n", ""},
		"a longer name":              {"run.sh", "export MY_DB_PASSWORD=x DB_PASSWORD_OLD=y\n", ""},
		"the mapping file":           {"strongroom-env.staging.toml", "# Which variable is which secret of a in staging. Written by strongroom migrate.\nformat = 1\n\n[variables.DB_PASSWORD]\npath = \"x\"\n", ""},
		"a binary":                   {"a.conf", "DB_PASSWORD=x\x00\n", ""},
		"a file that a unit names":   {"a.service", "[Service]\nEnvironmentFile=" + outside + "/app.conf\n", outside + "/app.conf:2 DB_PASSWORD"},
		"files that a unit names":    {"a.service", "[Service]\nEnvironmentFile=-" + outside + "/*.conf\n", outside + "/app.conf:2 DB_PASSWORD"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.file, tt.text)
			r, err := migrate.Check(t.Context(), dir, map[string]bool{"DB_PASSWORD": true, "API_KEY": true})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range r.Setters {
				place := fmt.Sprintf("%d %s", s.Line, s.Name)
				if s.File != tt.file {
					place = s.File + ":" + place
				}
				got = append(got, place)
				if strings.Contains(s.String(), "4711") {
					t.Errorf("a value shows: %s", s)
				}
				if s.How == "" || s.Do == "" {
					t.Errorf("%+v", s)
				}
			}
			if s := strings.Join(got, ","); s != tt.want {
				t.Errorf("found %q, want %q", s, tt.want)
			}
			if len(r.NotLookedAt) > 0 || r.Files != 1 || r.Names != 2 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// What a unit names and is not here is said, and a unit that is a link is read.
func TestCheckLooksFurther(t *testing.T) {
	dir, packages := t.TempDir(), t.TempDir()
	write(t, packages, "b.service", "[Service]\nEnvironment=DB_PASSWORD=x\n")
	write(t, dir, "a.service", "[Service]\nEnvironmentFile=/nowhere/app.env\nEnvironmentFile=-/nowhere/other.env\nEnvironmentFile=/etc/%i.env\nEnvironmentFile=/etc/app/env\n")
	write(t, dir, "etc/app/env", "API_KEY=x\n")
	write(t, dir, "node_modules/x/.env", "API_KEY=x\n")
	write(t, dir, ".git/hooks/pre-commit", "export API_KEY=x\n")
	for to, link := range map[string]string{filepath.Join(packages, "b.service"): "b.service", "/dev/null": "masked.service", packages: "folder"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := migrate.Check(t.Context(), dir, map[string]bool{"DB_PASSWORD": true, "API_KEY": true})
	if err != nil {
		t.Fatal(err)
	}
	var set, not []string
	for _, s := range r.Setters {
		set = append(set, fmt.Sprintf("%s:%d %s", s.File, s.Line, s.Name))
	}
	for _, p := range r.NotLookedAt {
		not = append(not, p.String())
	}
	if want := []string{"b.service:2 DB_PASSWORD", "etc/app/env:1 API_KEY"}; !slices.Equal(set, want) {
		t.Errorf("found %q, want %q", set, want)
	}
	if want := []string{
		"/etc/%i.env: EnvironmentFile= of a.service:4: its name is not known before it is used", "/nowhere/app.env: EnvironmentFile= of a.service:2: it is not here",
		"folder: a symbolic link out of the tree", "node_modules: installed packages",
	}; !slices.Equal(not, want) {
		t.Errorf("not looked at %q, want %q", not, want)
	}
}

// A unit names the tree's own file by the place where it is deployed: that file was
// looked at by itself, and is not among those that were not.
func TestCheckKnowsTheTreesOwnFile(t *testing.T) {
	for names, looked := range map[string]bool{
		"/srv/app/conf/worker.env": true, "/srv/app/.env": true, "%h/app/.env": true, "/srv/%i/conf/worker.env": true,
		"/srv/app/api.env": false, "/etc/%i.env": false, "/srv/app/.env.example": false,
	} {
		dir := t.TempDir()
		write(t, dir, "units/a.service", "[Service]\nEnvironmentFile="+names+"\n")
		write(t, dir, "conf/worker.env", "API_KEY=x\n")
		write(t, dir, ".env", "PORT=1\n")
		write(t, dir, ".env.example", "API_KEY=x\n")
		r, err := migrate.Check(t.Context(), dir, map[string]bool{"API_KEY": true})
		if err != nil {
			t.Fatal(err)
		}
		if (len(r.NotLookedAt) == 0) != looked || len(r.Setters) != 1 {
			t.Errorf("%s: %+v", names, r)
		}
	}
}

// A file that compose needs and that is not here is told, in each form of env_file.
func TestCheckFilesOfCompose(t *testing.T) {
	for text, want := range map[string]string{
		"/nowhere/a.env":                                            "/nowhere/a.env: env_file of compose.yml:3: it is not here",
		"[/nowhere/a.env]":                                          "/nowhere/a.env: env_file of compose.yml:3: it is not here",
		"[{path: /nowhere/a.env, format: raw}]":                     "/nowhere/a.env: env_file of compose.yml:3: it is not here",
		"[{path: /nowhere/a.env, required: false}]":                 "",
		"[{path: ./conf/here.env, required: true, format: raw}]":    "",
		"[{path: '/etc/${STAGE}/other.cfg', required: true}, \"\"]": "/etc/${STAGE}/other.cfg: env_file of compose.yml:3: its name is not known before it is used",
	} {
		dir := t.TempDir()
		write(t, dir, "compose.yml", "services:\n  a:\n    env_file: "+text+"\n")
		write(t, dir, "conf/here.env", "PORT=1\n")
		r, err := migrate.Check(t.Context(), dir, map[string]bool{"API_KEY": true})
		if err != nil {
			t.Fatal(err)
		}
		var not []string
		for _, p := range r.NotLookedAt {
			not = append(not, p.String())
		}
		if got := strings.Join(not, "; "); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// The names are those of the plan and of all mapping files.
func TestMovedNames(t *testing.T) {
	dir := t.TempDir()
	if _, err := migrate.MovedNames(dir, nil); !errors.Is(err, migrate.ErrNothingMoved) {
		t.Errorf("got %v", err)
	}
	write(t, dir, "strongroom-env.staging.toml", "# Which variable is which secret of a in staging. Written by strongroom migrate.\nformat = 1\n\n[variables.OLD]\npath = \"x\"\n")
	p := newProject(t)
	names, err := migrate.MovedNames(dir, p.plan)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for n := range names {
		got = append(got, n)
	}
	slices.Sort(got)
	if want := []string{"API_KEY", "DB_PASSWORD", "OLD"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	write(t, dir, "strongroom-env.staging.toml", "format = [")
	if _, err := migrate.MovedNames(dir, nil); err == nil {
		t.Error("a damaged mapping file is taken")
	}
}
