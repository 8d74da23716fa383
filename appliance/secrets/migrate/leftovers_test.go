package migrate_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/secrets/migrate"
)

// cutOver applies and cuts over the project, with more files in its tree, and
// gives what a search that was made before finds afterwards.
func (p *project) cutOver(t *testing.T, files map[string]string, dryRun bool) migrate.Remains {
	t.Helper()
	for name, text := range files {
		write(t, p.dir, name, text)
	}
	s := newFake()
	if _, err := p.apply(t, s); err != nil {
		t.Fatal(err)
	}
	search, err := migrate.NewSearch(t.Context(), p.dir, p.plan, s)
	if err != nil {
		t.Fatal(err)
	}
	o := migrate.CutoverOptions{Root: p.dir, Plan: p.plan, Store: s, Recipients: []age.Recipient{p.key.Recipient()}, DryRun: dryRun}
	o.OnePython()
	if _, err := migrate.Cutover(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r, err := search.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Whoever looks later knows the values from Vault.
	later, err := migrate.Remaining(t.Context(), p.dir, p.plan, s)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprint(r.Left), fmt.Sprint(later.Left); a != b {
		t.Errorf("found with the files' values\n%s\nwith Vault's\n%s", a, b)
	}
	for _, shown := range []string{fmt.Sprint(r), fmt.Sprint(later)} {
		for _, secret := range []string{"pro d-1", "prod-key-1", "stag-pw-1"} {
			if strings.Contains(shown, secret) {
				t.Errorf("a value shows: %s", shown)
			}
		}
	}
	return r
}

// Every place that still holds a moved value is listed, with its line and what
// to do.
func TestLeftovers(t *testing.T) {
	const value = "prod-key-1" // of API_KEY
	b64 := base64.StdEncoding.EncodeToString([]byte(value))
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string // FILE:LINE FORM|what to do
	}{
		"nothing":                 {nil, nil},
		"a comment of its file":   {map[string]string{".env.production": "# was " + value + "\nDB_PASSWORD='pro d-1'\nAPI_KEY=" + value + "\n"}, []string{".env.production:1 |comment"}},
		"a commented-out line":    {map[string]string{".env.production": "#API_KEY=" + value + "\nDB_PASSWORD='pro d-1'\nAPI_KEY=" + value + "\n"}, []string{".env.production:1 |comment"}},
		"another variable":        {map[string]string{".env.production": "X=https://h/?k=" + value + "\nDB_PASSWORD='pro d-1'\nAPI_KEY=" + value + "\n"}, []string{".env.production:1 |plan this variable"}},
		"another .env":            {map[string]string{".env.local": "A=1\nKEY=" + value + "\n"}, []string{".env.local:2 |plan this variable"}},
		"a template":              {map[string]string{".env.example": "KEY=" + value + "\n"}, []string{".env.example:1 |placeholder"}},
		"a copy of an editor":     {map[string]string{".env~": "API_KEY=" + value + "\n"}, []string{".env~:1 |delete it"}},
		"copies of people":        {map[string]string{".env.production.bak": value, "env.old": value, ".env.swp": value, "env-backup": value}, []string{".env.production.bak:1 |delete it", ".env.swp:1 |delete it", "env-backup:1 |delete it", "env.old:1 |delete it"}},
		"compose":                 {map[string]string{"docker-compose.yml": "services:\n  a:\n    environment:\n      KEY: \"" + value + "\"\n"}, []string{"docker-compose.yml:4 |env exec"}},
		"a page":                  {map[string]string{"README.md": "# x\n\n    curl -H 'Key: " + value + "'\n"}, []string{"README.md:3 |text"}},
		"a unit":                  {map[string]string{"a.service": "[Service]\nEnvironment=KEY=" + value + "\n"}, []string{"a.service:2 |env exec"}},
		"an image":                {map[string]string{"Dockerfile": "FROM x\nENV KEY=" + value + "\n"}, []string{"Dockerfile:2 |layer"}},
		"a workflow":              {map[string]string{".github/workflows/a.yml": "env:\n  KEY: " + value + "\n"}, []string{".github/workflows/a.yml:2 |GitHub"}},
		"code":                    {map[string]string{"b.py": "K = '" + value + "'\n", "b.rb": "K = '" + value + "'\n", "b.ts": value}, []string{"b.py:1 |read it from", "b.rb:1 |read it from", "b.ts:1 |read it from"}},
		"a notebook":              {map[string]string{"n.ipynb": "{\n \"cells\": [\"" + value + "\"]}\n"}, []string{"n.ipynb:2 |output"}},
		"a Kubernetes secret":     {map[string]string{"k8s/s.yaml": "kind: Secret\ndata:\n  key: " + b64 + "\n"}, []string{"k8s/s.yaml:3 base64|not moved by strongroom"}},
		"base64 of a longer text": {map[string]string{"a.txt": base64.StdEncoding.EncodeToString([]byte("user:" + value))}, []string{"a.txt:1 base64|text"}},
		"URL-encoded":             {map[string]string{"a.txt": "?p=pro%20d-1"}, []string{"a.txt:1 URL-encoded|text"}},
		"Terraform":               {map[string]string{"a.tfvars": "k = \"" + value + "\"", "terraform.tfstate": value}, []string{"a.tfvars:1 |Terraform", "terraform.tfstate:1 |Terraform"}},
		"a binary":                {map[string]string{"a.bin": "\x00\x01\x02" + value + "\x00"}, []string{"a.bin:0 |delete"}},
		"a dump":                  {map[string]string{"d.sql.gz": pack(t, "gzip", "x '"+value+"'")}, []string{"d.sql.gz:0 compressed|delete"}},
		"a program's archive":     {map[string]string{"a.jar": pack(t, "zip", "k="+base64.StdEncoding.EncodeToString([]byte(value)))}, []string{"a.jar:0 base64, compressed|"}},
		"an archive in another":   {map[string]string{"a.zip": pack(t, "zip", pack(t, "gzip", value))}, []string{"a.zip:0 compressed|delete"}},
		"zlib":                    {map[string]string{"a.bin": pack(t, "zlib", value)}, []string{"a.bin:0 compressed|delete"}},
		"bytecode":                {map[string]string{"__pycache__/a.pyc": "\x00" + value}, []string{"__pycache__/a.pyc:0 |made anew"}},
		"what git ignores":        {map[string]string{".gitignore": "out/\n", "out/x.log": "a\nb\n" + value + "\n"}, []string{"out/x.log:3 |delete"}},
		"git's configuration":     {map[string]string{".git/config": "[remote]\n\turl = https://u:" + value + "@h/r\n"}, []string{".git/config:2 |git keeps"}},
		"a folder of a vendor":    {map[string]string{"vendor/modules.txt": "x", "vendor/a.go": "// " + value}, []string{"vendor/a.go:1 |read it from"}},
		"twice on a line":         {map[string]string{"a.md": value + " " + value + "\n" + value}, []string{"a.md:1 |text", "a.md:2 |text"}},
		"line ends of Windows":    {map[string]string{"a.md": "x\r\ny\r\n" + value + "\r\n"}, []string{"a.md:3 |text"}},
		"text of UTF-16":          {map[string]string{"a.txt": "\xff\xfe" + strings.Join(strings.Split("a\n"+value, ""), "\x00") + "\x00"}, []string{"a.txt:2 UTF-16|text"}},
		"in a patch":              {map[string]string{".env.patch": "-KEY=" + value + "\n"}, []string{".env.patch:1 |"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, dryRun := range []bool{true, false} {
				p := newProject(t)
				r := p.cutOver(t, tt.files, dryRun)
				var got []string
				for _, l := range r.Left {
					got = append(got, fmt.Sprintf("%s:%d %s|%s", l.File, l.Line, l.Form, l.Do))
					if len(l.Names) != 1 {
						t.Errorf("names %q", l.Names)
					}
				}
				ok := len(got) == len(tt.want)
				for i := range got {
					place, do, _ := strings.Cut(tt.want[min(i, max(len(tt.want)-1, 0))], "|")
					ok = ok && strings.HasPrefix(got[i], place+"|") && strings.Contains(got[i], do)
				}
				if !ok {
					t.Errorf("dry run %v: left %q, want %q", dryRun, got, tt.want)
				}
				if len(r.NotSearched) > 0 {
					t.Errorf("not searched for: %v", r.NotSearched)
				}
			}
		})
	}
}

// The password of a URL is looked for by itself, and one place that holds two
// values is told once for each form.
func TestLeftoverParts(t *testing.T) {
	p := newProject(t)
	p.files[".env.production"] = "DB_PASSWORD=postgres://u:s3cr3t-7x@h/db\nAPI_KEY=prod-key-1\n"
	r := p.cutOver(t, map[string]string{".env.production": p.files[".env.production"], "docker-compose.yml": "a: s3cr3t-7x\nb: postgres://u:s3cr3t-7x@h/db\nc: s3cr3t-7x prod-key-1\n"}, false)
	var got []string
	for _, l := range r.Left {
		got = append(got, fmt.Sprintf("%d %s %s", l.Line, strings.Join(l.Names, "+"), l.Form))
	}
	want := []string{"1 DB_PASSWORD the password in it", "2 DB_PASSWORD ", "3 API_KEY ", "3 DB_PASSWORD the password in it"}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What was not looked at, or not looked for, is said.
func TestNotLookedAt(t *testing.T) {
	p := newProject(t)
	p.files[".env.staging"] = "DB_PASSWORD=postgres\n"
	outside := t.TempDir()
	write(t, outside, "x", "prod-key-1")
	if err := os.Symlink(filepath.Join(outside, "x"), filepath.Join(p.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("app.py", filepath.Join(p.dir, "inside")); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(p.dir, "large.bin")
	write(t, p.dir, "large.bin", "")
	if err := os.Truncate(large, 64<<20+1); err != nil {
		t.Fatal(err)
	}
	r := p.cutOver(t, map[string]string{
		".env.staging": p.files[".env.staging"], "node_modules/a/index.js": "prod-key-1", ".venv39/pyvenv.cfg": "", ".venv39/x.py": "prod-key-1", "a.zip": "PK\x03\x04", "a.txz": "\xfd7zXZ\x00", "dump.sql.gz": "\x1f\x8b\x08",
	}, false)
	var got []string
	for _, n := range r.NotLookedAt {
		got = append(got, n.String())
	}
	want := []string{
		".venv39: a virtual environment", "a.txz: compressed (xz): not looked into", "a.zip: compressed (zip): damaged, or not looked into to its end", "dump.sql.gz: compressed (gzip): damaged, or not looked into to its end",
		"large.bin: 67108865 bytes are more than 67108864", "link: a symbolic link out of the tree", "node_modules: installed packages",
	}
	if !slices.Equal(got, want) {
		t.Errorf("not looked at %q, want %q", got, want)
	}
	if len(r.Left) > 0 {
		t.Errorf("left: %v", r.Left)
	}
	if len(r.NotSearched) != 1 || r.NotSearched[0].String() != "DB_PASSWORD of .env.staging: a common word" {
		t.Errorf("not searched for: %v", r.NotSearched)
	}
}

// What names a moved variable, and is no Python code, is listed by its line.
func TestUsesWithoutPatch(t *testing.T) {
	for file, tt := range map[string]struct{ text, want string }{
		"docker-compose.yml":  {"services:\n  a:\n    environment:\n      X: ${DB_PASSWORD}\n", "4: names DB_PASSWORD: start docker compose"},
		"compose.yaml":        {"a: ${DB_PASSWORD:?missing}\nb: $API_KEY\n", "1: names DB_PASSWORD|2: names API_KEY"},
		"a.service":           {"[Service]\nPassEnvironment=DB_PASSWORD\nExecStart=/x ${DB_PASSWORD}\n", "2: names DB_PASSWORD: start the program|3: "},
		"Dockerfile":          {"ARG DB_PASSWORD\nRUN x $DB_PASSWORD\n", "1: names DB_PASSWORD: a build|2: "},
		"run.sh":              {"# x\npsql \"$DB_PASSWORD\"\n", "2: names DB_PASSWORD: start the program"},
		"n.ipynb":             {"{\n\"source\": [\"os.environ['DB_PASSWORD']\"]\n}", "2: names DB_PASSWORD: in a notebook"},
		"a.rb":                {"ENV['DB_PASSWORD']\n", "1: names DB_PASSWORD: start the program"},
		"A.java":              {"System.getenv(\"DB_PASSWORD\")\n", "1: "},
		"main.go":             {"os.Getenv(\"DB_PASSWORD\")\n", "1: "},
		"a.ts":                {"process.env.DB_PASSWORD\nprocess.env['API_KEY']\n", "1: |2: "},
		"k8s.yaml":            {"env:\n- name: DB_PASSWORD\n  valueFrom: {secretKeyRef: {name: x, key: DB_PASSWORD}}\n", "2: |3: "},
		"Procfile":            {"web: x --p $DB_PASSWORD\n", "1: "},
		"tox.ini":             {"passenv = DB_PASSWORD\n", "1: "},
		"compose.yml":         {"services:\n  a:\n    env_file: .env.production\n", "3: reads DB_PASSWORD, API_KEY from .env.production: name them under environment:"},
		"docker-compose.yaml": {"services:\n  a:\n    env_file:\n      - path: ./.env.staging\n", "4: reads DB_PASSWORD from .env.staging: "},
		"b.service":           {"[Service]\nEnvironmentFile=-/srv/a/.env.staging\n", "2: reads DB_PASSWORD from .env.staging: start the program"},
		"start.sh":            {"set -a\n. ./.env.staging\n", "2: reads DB_PASSWORD from .env.staging: start the program"},
		"Makefile":            {"x:\n\tdocker run --env-file .env.production x\n", "2: reads DB_PASSWORD, API_KEY from .env.production: "},
		"c.service":           {"[Service]\nEnvironmentFile=/srv/a/other.env\n", ""},
		"README.md":           {"Set DB_PASSWORD. docker run --env-file .env.production x\n", ""},
		".env.local":          {"X=${DB_PASSWORD}\n", ""},
		"other.sh":            {"echo $MY_DB_PASSWORD $DB_PASSWORDS\n", ""},
		"a.bin":               {"\x00DB_PASSWORD\n", ""},
	} {
		t.Run(file, func(t *testing.T) {
			p := newProject(t)
			r := p.cutOver(t, map[string]string{file: tt.text}, true)
			var want []string
			if tt.want != "" {
				want = strings.Split(tt.want, "|")
			}
			ok := len(r.Uses) == len(want)
			for i, u := range r.Uses {
				ok = ok && strings.HasPrefix(u.String(), file+":"+want[min(i, len(want)-1)])
			}
			if !ok {
				t.Errorf("uses %v, want %q", r.Uses, want)
			}
		})
	}
}
