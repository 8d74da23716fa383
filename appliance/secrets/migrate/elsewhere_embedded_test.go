package migrate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// A file within a file is looked at as the one that it becomes: here-documents, what
// cloud-init writes, templates, texts in code.
func TestEmbedded(t *testing.T) {
	for name, tc := range map[string]struct{ file, text, want string }{
		"a manifest in a script":     {"deploy.sh", "kubectl apply -f - <<EOF\napiVersion: v1\nkind: Secret\nstringData:\n  db: Fjord-77\n  other: Fjord-78\nEOF\n", "kubernetes db:5, kubernetes other:6"},
		"with tabs":                  {"deploy.sh", "f() {\n\tcat > /etc/app.conf <<-'E'\n\t[db]\n\tpassword = Fjord-77\n\tE\n}\n", "commands db.password:4"},
		"yaml by its name":           {"s.sh", "cat <<\"YML\" >cfg.yml\ndatabase:\n  password: Fjord-77\nYML\n", "commands database.password:3"},
		"yaml by its content":        {"s.sh", "x=$(cat <<E\ndatabase:\n  user: a\n  password: Fjord-77\nE\n)\n", "commands database.password:4"},
		"json":                       {"s.sh", "curl -d @- https://h <<E\n{\"user\": \"a\",\n \"password\": \"Fjord-77\"}\nE\n", "commands password:3"},
		"sql":                        {"s.sh", "psql <<SQL\nCREATE ROLE a LOGIN PASSWORD 'Fjord-77';\nSQL\n", "commands :2"},
		"two, one behind the other":  {"s.sh", "cat <<A >a.env\nA_PASSWORD=Fjord-77\nA\ncat <<B >b.yml\nb_password: Fjord-78\nB\n", "commands A_PASSWORD:2, commands b_password:5"},
		"without an end":             {"s.sh", "cat <<E >a.yml\npassword: Fjord-77\n", ""},
		"a here-string and a shift":  {"s.sh", "grep x <<< \"$y\"\necho $((1 << 2))\n", ""},
		"a commented one":            {"s.sh", "# cat <<E\necho password: Fjord-77 is told here\n# E\n", ""},
		"dockerfile":                 {"Dockerfile", "FROM x\nCOPY <<EOF /app/config.ini\n[db]\npassword=Fjord-77\nEOF\nRUN <<EOF\nmysql -pFjord-78 -e x\nEOF\n", "commands :7, commands db.password:4"},
		"terraform":                  {"main.tf", "resource \"x\" \"y\" {\n  user_data = <<-EOF\n    #!/bin/bash\n    export DB_PASSWORD=Fjord-77\n    echo 'password: \"Fjord-78\"' > /etc/a.yml\n  EOF\n}\n", "terraform DB_PASSWORD:4, terraform password:5"},
		"ruby":                       {"a.rb", "X = <<~YAML\n  db:\n    password: Fjord-77\nYAML\n", "code db.password:3"},
		"python":                     {"a.py", "X = \"\"\"\n[db]\npassword = Fjord-77\n\"\"\"\nY = '''\ndb:\n  password: Fjord-78\n'''\n", "code db.password:3, code db.password:7"},
		"a text for people":          {"a.py", "def f():\n    \"\"\"Log in.\n\n    password: what the user types, such as hunter2-or-so\n    token: str\n    \"\"\"\n", ""},
		"an example for people":      {"a.py", "def f():\n    \"\"\"\n    user: str\n    password: str\n    token: optional\n    \"\"\"\n", ""},
		"go":                         {"a.go", "package a\n\nconst x = `\ndb:\n  password: Fjord-77\n`\n", "code db.password:5"},
		"powershell":                 {"a.ps1", "$x = @\"\napiVersion: v1\nkind: Secret\nstringData:\n  a: Fjord-77\n\"@\n$env:DB_PASSWORD = \"Fjord-78\"\n", "commands DB_PASSWORD:7, kubernetes a:5"},
		"cmd":                        {"a.bat", "set DB_PASSWORD=Fjord-77\r\nsetx API_TOKEN Fjord-78\r\nset PATH=%PATH%;C:\\x\r\n", "commands API_TOKEN:2, commands DB_PASSWORD:1"},
		"in a job of gitlab":         {".gitlab-ci.yml", "a:\n  script:\n    - |\n      kubectl apply -f - <<EOF\n      apiVersion: v1\n      kind: Secret\n      stringData:\n        any: Fjord-77\n      EOF\n    - echo hello\n", "kubernetes any:8"},
		"in a workflow":              {".github/workflows/a.yml", "jobs:\n  a:\n    steps:\n      - run: |\n          cat <<EOF > .env\n          DB_PASSWORD=Fjord-77\n          EOF\n", "yaml DB_PASSWORD:6"},
		"options":                    {"Makefile", "a:\n\tkubectl create secret generic x --from-literal=password=Fjord-77\n\thelm upgrade x y --set db.password=Fjord-78\n\thelm upgrade x y --set image.tag=v1,key=$(KEY)\n", "commands db.password:3, commands password:2"},
		"what a command writes":      {"a.sh", "echo \"DB_PASSWORD=Fjord-77\" >> .env\nprintf 'API_TOKEN=Fjord-78\\n' | tee .env\necho \"password: wrong\"\n", "commands API_TOKEN:2, commands DB_PASSWORD:1"},
		"cloud-init":                 {"user-data.yml", "#cloud-config\nwrite_files:\n  - path: /etc/a/a.env\n    content: |\n      DB_PASSWORD=Fjord-77\n      DEBUG=1\n  - path: /etc/a/c.yml\n    content: |\n      db:\n        password: Fjord-78\n  - content: SMTP_PASSWORD=Fjord-79\n    path: /etc/a/one.env\n", "yaml write_files.DB_PASSWORD:5, yaml write_files.SMTP_PASSWORD:11, yaml write_files.db.password:10"},
		"cloud-init, encoded":        {"user-data.yml", "write_files:\n  - encoding: b64\n    path: /etc/b\n    content: REJfUEFTU1dPUkQ9RmpvcmQtNzcK\n", "yaml write_files.DB_PASSWORD:4"},
		"cloud-init, users":          {"user-data.yml", "chpasswd:\n  list: |\n    root:Fjord-77\n    app:RANDOM\nusers:\n  - name: x\n    plain_text_passwd: Fjord-78\nruncmd:\n  - [ sh, -c, \"mysql -pFjord-79 app\" ]\n  - redis-cli -a Fjord-80 ping\n", "yaml password of root:3, yaml runcmd:10, yaml runcmd:9, yaml users.plain_text_passwd:7"},
		"json in a ConfigMap":        {"cm.yml", "apiVersion: v1\nkind: ConfigMap\ndata:\n  a.json: |\n    {\n      \"password\": \"Fjord-77\"\n    }\n", "kubernetes data.a.json.password:6"},
		"helm":                       {"templates/a.yaml", "{{- if .Values.x }}\napiVersion: v1\nkind: Secret\nmetadata:\n  labels:\n    {{- include \"x\" . | nindent 4 }}\ndata:\n  one: {{ .Values.one | b64enc }}\n  two: RmpvcmQtNzc=\nstringData:\n  three: Fjord-78\n{{- end }}\n", "kubernetes three:11, kubernetes two:9"},
		"jinja":                      {"templates/a.yml.j2", "{% if x %}\ndb:\n  password: Fjord-77\n  token: {{ token }}\n{% endif %}\n", "yaml db.password:3"},
		"jinja, ini":                 {"templates/my.cnf.j2", "[client]\npassword={{ pw }}\n[other]\npassword = Fjord-77\n", "settings other.password:4"},
		"jinja, variables":           {"templates/app.env.j2", "DB_PASSWORD={{ vault_db }}\nSMTP_PASSWORD=Fjord-77\n", "template SMTP_PASSWORD:2"},
		"erb without another name":   {"manifest.erb", "db:\n  user: <%= @user %>\n  password: Fjord-77\n", "text db.password:3"},
		"a template for people":      {"app.env.dist", "DB_PASSWORD=Fjord-77\n", ""},
		"a file in a file in a file": {"u.yml", "write_files:\n  - path: /a.sh\n    content: |\n      cat > b.yml <<E\n      apiVersion: v1\n      kind: Secret\n      stringData:\n        a: Fjord-77\n      E\n", "kubernetes write_files.a:8"},
	} {
		t.Run(name, func(t *testing.T) {
			r := scanTree(t, map[string]string{tc.file: tc.text}, migrate.ScanOptions{})
			var got []string
			for _, f := range r.NotMoved {
				got = append(got, fmt.Sprintf("%s %s:%d", f.Kind, f.Name, f.Line))
			}
			slices.Sort(got)
			if s := strings.Join(got, ", "); s != tc.want {
				t.Errorf("got %q, want %q", s, tc.want)
			}
			if text := fmt.Sprintf("%+v", r.NotMoved); strings.Contains(text, "Fjord") {
				t.Errorf("a value shows: %s", text)
			}
		})
	}
}
