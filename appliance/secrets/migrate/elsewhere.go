package migrate

import (
	"bytes"
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"strongroom.example/appliance/secrets/migrate/rules"
)

// Finding is a secret in a place that this tool does not move: everything but
// the variables of .env files.
type Finding struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1
	// Kind of the file: dbt, kubernetes, compose, terraform, notebook, code, ...
	Kind string `json:"kind"`
	// Name as the file has it, a path of keys with dots where there is one;
	// empty for a token that stands alone.
	Name   string   `json:"name,omitempty"`
	Secret []string `json:"secret"`
	Rule   string   `json:"rule"`
	Advice string   `json:"advice"`
	// InHistory is as that of a Definition.
	InHistory string `json:"in_history,omitempty"`
}

// lookup collects the findings of one file.
type lookup struct {
	c     *Classifier
	src   source
	kind  string
	sure  bool // the file is for such settings: a name is enough
	depth int  // of files within files
	found []Finding
	bad   []Problem
	// values of those of them that are known, by file, line and name.
	values map[string]string
}

// search notes the value of what was found last on a line, for git's history.
func (l *lookup) search(line int, name, value string) {
	l.values[definitionKey(l.src.path, line, shorten(l.maskName(name)))] = value
}

// finder looks through one file.
type finder struct {
	kind string
	sure bool
	look func(*lookup)
}

// elsewhere gives what looks through a file for secrets that stay there.
func elsewhere(rel string) *finder {
	rel = rendered(rel)
	base, ext := strings.ToLower(path.Base(rel)), strings.ToLower(path.Ext(rel))
	switch {
	case isLock(base) || isOurs(rel) || isTranslation.MatchString(rel):
		return nil
	case base == ".netrc" || base == "_netrc" || ext == ".netrc":
		return &finder{"netrc", true, lookNetrc}
	case base == ".pgpass" || base == "pgpass.conf":
		return &finder{"pgpass", true, lookPgpass}
	case listOf(base) != nil:
		found := listOf(base)
		return &finder{found.kind, true, found.look}
	case path.Base(rel) == "Jenkinsfile" || base == "vagrantfile" || base == "fastfile" || base == "rakefile":
		return &finder{"code", false, lookCode}
	case ext == ".sql":
		return &finder{"code", false, lookSQL}
	case ext == ".conf" && strings.HasSuffix(path.Dir(rel), ".service.d"):
		return &finder{"commands", false, lookCommands}
	case rel == gitConfig:
		return &finder{"git-config", true, lookSettings}
	case base == ".git-credentials":
		return &finder{"git-credentials", true, lookText}
	case base == "profiles.yml" || base == "profiles.yaml":
		return &finder{"dbt", true, lookYAML}
	case ext == ".ipynb":
		return &finder{"notebook", false, lookNotebook}
	case strings.HasSuffix(base, ".tfvars") || strings.HasSuffix(base, ".tf") || ext == ".hcl" || ext == ".nomad":
		return &finder{"terraform", ext == ".tfvars", lookSettings}
	case strings.HasSuffix(base, ".tfvars.json") || strings.HasSuffix(base, ".tfstate") || strings.HasSuffix(base, ".tfstate.backup"):
		return &finder{"terraform", true, lookJSON}
	case strings.HasPrefix(base, "appsettings") && ext == ".json", base == "local.settings.json", base == "secrets.json":
		return &finder{"dotnet", true, lookJSON}
	case (strings.HasPrefix(base, "application") || strings.HasPrefix(base, "bootstrap")) && (ext == ".yml" || ext == ".yaml"):
		return &finder{"spring", true, lookYAML}
	case strings.HasPrefix(base, "docker-compose") || strings.HasPrefix(base, "compose"):
		if ext == ".yml" || ext == ".yaml" {
			return &finder{"compose", true, lookYAML}
		}
	}
	switch ext {
	case ".yml", ".yaml":
		return &finder{"yaml", strings.Contains(base, "secret"), lookYAML}
	case ".json", ".json5", ".jsonc":
		return &finder{"json", strings.Contains(base, "secret") || strings.Contains(base, "credential"), lookJSON}
	case ".toml", ".ini", ".cfg", ".properties", ".cnf", ".conf", ".credentials", ".pypirc", ".s3cfg", ".boto", ".npmrc", ".yarnrc", ".pgservice", ".editrc", ".cred", ".creds":
		return &finder{"settings", true, lookSettings}
	case ".xml", ".config", ".plist", ".csproj", ".props":
		return &finder{"xml", false, lookXML}
	case ".pem", ".key", ".ppk", ".p8":
		return &finder{"private-key", true, lookPrivateKey}
	case ".py", ".pyi", ".pyw", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts", ".vue", ".svelte", ".go":
		return &finder{"code", false, lookCode}
	case ".sh", ".bash", ".zsh", ".ksh", ".envrc", ".service", ".timer", ".container", ".cron", ".bat", ".ps1", ".http", ".rest":
		return &finder{"commands", false, lookCommands}
	}
	switch {
	case isCode[ext]:
		return &finder{"code", false, lookCode}
	case base == "credentials" || base == "config" && path.Base(path.Dir(rel)) == ".aws" || strings.HasSuffix(base, "credentials") || strings.HasSuffix(base, "rc") && (ext == "" || ext == base):
		return &finder{"settings", true, lookSettings}
	case strings.HasPrefix(base, "id_") && ext == "":
		return &finder{"private-key", true, lookPrivateKey}
	case strings.Contains(base, "dockerfile") || base == "containerfile" || base == "makefile" || base == "justfile" || base == "procfile" || base == "crontab" || base == "entrypoint":
		return &finder{"commands", false, lookCommands}
	case base == "config.json" || base == ".dockercfg" || base == ".dockerconfigjson":
		return &finder{"json", true, lookJSON}
	}
	return nil
}

// gitConfig holds remotes, with a password in their URLs if somebody cloned so.
const gitConfig = ".git/config"

// isLock are files that list what others made, with sums that look random.
func isLock(base string) bool {
	switch base {
	case "package-lock.json", "npm-shrinkwrap.json", "composer.lock", "pnpm-lock.yaml", "pipfile.lock", "manifest.json", "tsconfig.json", "go.sum", "poetry.lock", "uv.lock", "cargo.lock":
		return true
	}
	return strings.HasSuffix(base, ".lock") || strings.HasSuffix(base, ".min.js") || strings.HasSuffix(base, ".map")
}

// wantedByScan are the files that a scan reads: every one may be text with a
// token in it, but for what others made and what is no text by its name.
func wantedByScan(rel string) bool {
	return wanted(rel) || elsewhere(rel) != nil || anyText(rel)
}

func anyText(rel string) bool {
	return !isLock(strings.ToLower(path.Base(rel))) && !isOurs(rel) && !isEnvFile(rel) && !noText[strings.ToLower(path.Ext(rel))]
}

var noText = set(`.png .jpg .jpeg .gif .webp .bmp .tif .tiff .ico .icns .avif .heic .psd .pdf .zip .gz .tgz .bz2 .xz .zst .7z .rar .tar .jar .war .whl .egg .deb .rpm .apk .iso
	.so .dll .exe .o .a .dylib .class .pyc .pyo .wasm .bin .dat .db .sqlite .sqlite3 .parquet .avro .orc .feather .npy .npz .pkl .h5 .onnx .pt .safetensors
	.mp3 .mp4 .mov .avi .mkv .webm .ogg .wav .flac .ttf .otf .woff .woff2 .eot .sum .sha256 .p12 .pfx .jks .keystore .der .crl .gpg .sig`)

// signs are what a file must hold to be worth a closer look, in lower case.
var signs = [][]byte{
	[]byte("pass"), []byte("secret"), []byte("token"), []byte("key"), []byte("cred"), []byte("auth"), []byte("pwd"), []byte("_pw"), []byte("://"), []byte("salt"), []byte("psk"), []byte("dsn"), []byte("mysql"), []byte("redis-cli"), []byte(" login"), []byte("bearer"), []byte("b64"),
	[]byte("akia"), []byte("asia"), []byte("ghp_"), []byte("gho_"), []byte("ghs_"), []byte("github_pat"), []byte("glpat"), []byte("xox"), []byte("xapp-"), []byte("sk_live"), []byte("sk_test"), []byte("rk_live"),
	[]byte("aiza"), []byte("sg."), []byte("eyj"), []byte("hvs."), []byte("npm_"), []byte("pypi-"), []byte("dapi"), []byte("sk-"), []byte("shp"), []byte("dop_v1"), []byte("hf_"), []byte("whsec_"), []byte("private"),
}

func hasSign(data []byte) bool {
	lower := bytes.ToLower(data)
	return slices.ContainsFunc(signs, func(s []byte) bool { return bytes.Contains(lower, s) })
}

// look goes through a file that is no .env file.
func (c *Classifier) look(src source) *lookup {
	l := &lookup{c: c, src: src, values: map[string]string{}}
	f := elsewhere(src.path)
	if isKubeconfig(src.data) {
		f = &finder{"yaml", true, lookYAML}
	}
	if f != nil {
		l.kind, l.sure = f.kind, f.sure
		if f.kind == "pgpass" || listOf(strings.ToLower(path.Base(src.path))) != nil || f.kind == "private-key" || hasSign(src.data) {
			f.look(l)
		}
	}
	if anyText(src.path) {
		l.kind = cmp.Or(l.kind, "text")
		if f == nil && !isTranslation.MatchString(src.path) && hasSign(src.data) {
			l.assignments()
			if rendered(src.path) != src.path {
				l.embedded(string(src.data), 1, "", "")
			}
		}
		l.tokens()
		if len(l.found) == 0 {
			l.whole()
		}
	}
	return l
}

// name judges a value that has a name, and notes it.
func (l *lookup) name(line int, name, value string) {
	if len(value) > maxComposite || value == "" {
		return
	}
	last := lastKey(name)
	switch above := lastKey(strings.TrimSuffix(name, "."+last)); {
	case strings.EqualFold(last, "pwd"):
		last = "DB_PWD" // only a shell's is a folder
	case (last == "value" || last == "default" || last == "Value" || last == "Default") && above != "":
		last = above // a variable of GitLab, of CloudFormation, an output of Terraform
	case last == "result" && strings.Contains(l.src.path, ".tfstate"):
		last = "PASSWORD" // of a random_password
	case last == "secure":
		return // Pulumi's and Travis's: encrypted
	}
	n := parseName(last)
	if l.sure && (n.class == nameUnclear || n.class == nameMaybe) {
		// The keys above may say more: spring.datasource: {url: …}.
		if whole := parseName(name); whole.class == nameSecret {
			last = name
		}
	}
	j := l.c.Judge(last, value)
	if j.Rule == "part" && !l.sure && strings.Count(value, "\n") > 1 {
		return // a text for people
	}
	if len(j.Secret) == 0 || !l.sure && !plausible(parseName(last), j, value) {
		return
	}
	l.note(line, name, j.Secret, j.Rule)
	l.search(line, name, value)
}

func lastKey(name string) string {
	if i := strings.LastIndexAny(name, ".[/"); i >= 0 && !strings.HasPrefix(name, "//") {
		return name[i+1:]
	}
	return name
}

// option notes the secrets in the options and URLs of a command.
func (l *lookup) command(line int, name, text string) {
	if found := commandParts(text); len(found) > 0 {
		l.note(line, name, []string{describe(found)}, "part")
	}
}

func (l *lookup) note(line int, name string, secret []string, rule string) {
	name = shorten(l.maskName(name))
	for i, f := range l.found {
		if f.Line == line && (f.Name == name || f.Rule == rule && (f.Name == "" || name == "")) {
			if f.Name == "" {
				l.found[i].Name = name
			}
			return
		}
	}
	l.found = append(l.found, Finding{File: l.src.path, Line: line, Kind: l.kind, Name: name, Secret: secret, Rule: rule, Advice: advice(l.kind, l.src.path)})
}

// maskName takes out of a name what may be a secret itself: a map of tokens has
// them for keys.
func (l *lookup) maskName(name string) string {
	if len(name) < 16 {
		return name
	}
	if len(parts(name)) > 0 || len(l.c.tokens(parseName(""), "", name)) > 0 {
		return masked
	}
	keys := strings.Split(name, ".")
	for i, k := range keys {
		if looksRandom(k, 16) {
			keys[i] = masked
		}
	}
	return strings.Join(keys, ".")
}

// shorten bounds a name that may be anything.
func shorten(name string) string {
	const most = 120
	if len(name) <= most {
		return name
	}
	return strings.ToValidUTF8(name[:most], "") + "…"
}

var codeName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

// plausible says of a finding in a file of code or of data whether it is more
// than a label: "password": "Your password" is a text, token = "access_token" a
// name, secret: "required|string" a rule.
func plausible(n name, j Judgment, value string) bool {
	if j.Rule != "name" && j.Rule != "random" {
		return true
	}
	if len(value) < 4 || strings.ContainsAny(value, " \t\n(){}<>") || strings.Contains(value, "__REF__") || location.MatchString(value) || formRule.MatchString(value) ||
		strings.IndexFunc(value, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
		return false
	}
	if versionRange.MatchString(value) || strings.Contains(value, "...") || number.MatchString(value) && len(value) < 8 {
		return false // a dependency, a text for people, a code of an error
	}
	if n.class != nameSecret {
		return n.class == nameMaybe && looksRandom(value, 16)
	}
	pass := strings.HasPrefix(n.word, "PASS") || n.word == "PWD" || n.word == "PW"
	if !pass && (setting.MatchString(value) || !unusual.MatchString(value) && (!digits.MatchString(value) || browserKeys[n.word] && !looksRandom(value, 12))) {
		return false // STORAGE_KEY = "sidebar:width-2" is the browser's
	}
	if !codeName.MatchString(value) || digits.MatchString(value) {
		return !(codeName.MatchString(value) && setting.MatchString(strings.TrimRight(value, "0123456789")) && parseName(value).class == nameSecret)
	}
	// A word, or words: of a password it may be all.
	if !pass || !lowerWord.MatchString(value) {
		return false
	}
	for _, w := range words(value) {
		if !asked[w] && !n.has(w) && !labels[w] {
			return true
		}
	}
	return false
}

var (
	versionRange = regexp.MustCompile(`^[\^~<>=v]*\d+(?:\.(?:\d+|x|\*))+(?:-[a-z]+[0-9.]*)?$`)
	// unusual are signs that texts for programs do not have.
	unusual   = regexp.MustCompile(`[^A-Za-z0-9_.:/-]`)
	lowerWord = regexp.MustCompile(`^[a-z]+$`)
	formRule  = regexp.MustCompile(`^[a-z_]+(?:[|,][a-z_]+(?::[a-z0-9_,]+)?)+$`)
	// browserKeys are also what programs call entries of a browser's storage.
	browserKeys = set("STORAGE_KEY SESSION_KEY COOKIE_KEY TOKEN_KEY AUTH_KEY")
	// labels are what programs write beside a secret's name.
	labels = set("AUTH REFRESH PASSWORDS BEARER CSRF SESSION COOKIE HASHED ENCRYPTED REQUIRED NULLABLE HIDDEN USERS CONFIRMED TEXT INPUT EMAIL LOGIN RESET BASIC CURRENT CONFIRM NUMBER BOOLEAN OBJECT")
	// isTranslation are files of texts for people.
	isTranslation = regexp.MustCompile(`(?i)(?:^|/)(?:lang|langs|languages|locale|locales|i18n|l10n|translations?)/`)
	// nginxPass hands a request on, and is no password.
	nginxPass = regexp.MustCompile(`^(?:proxy|fastcgi|uwsgi|scgi|grpc|memcached)_pass$`)
)

// advice is what to do about a secret in a file of that kind.
func advice(kind, rel string) string {
	switch kind {
	case "dbt":
		return "write {{ env_var('NAME') }} there, and run dbt under strongroom env exec"
	case "kubernetes":
		return "take it out of the file, and have the cluster fetch it from Vault (Vault Secrets Operator, External Secrets)"
	case "notebook":
		return "read it by strongroom_dagster.env or from the environment, and clear the outputs"
	case "netrc", "pgpass", "git-credentials", "htpasswd", "userlist", "ppp", "ipsec", "postfix", "redis", "fstab":
		return "keep it outside of the tree, or write it at the start of the program from strongroom env exec"
	case "dotnet":
		return "leave the key empty: an environment variable of the same name, with __ between the parts, overrides it under strongroom env exec"
	case "spring":
		return "write ${NAME} there, and start the program under strongroom env exec"
	case "git-config":
		return "take it out of the URL (git remote set-url), have a credential helper or SSH in its place, and rotate it"
	case "private-key":
		return "keep it outside of the tree; rotate it if it is in git"
	case "comment":
		return "take it out of the comment; rotate it if it is still in use"
	case "copy":
		return "a copy of another file: delete it"
	case "unnamed":
		return "rename the file, and plan again"
	case "malformed":
		return "correct the file, and plan again"
	case "template":
		return "everybody gets this file: put a placeholder there, and rotate it"
	}
	return whatToDo(rel, "")
}

// envElsewhere looks for what a .env file holds beside its variables: secrets
// that are commented out, all of a file that is not planned, and in a template
// what looks alive.
func (c *Classifier) envElsewhere(src source, kind string) *lookup {
	l := &lookup{c: c, src: src, sure: true, values: map[string]string{}}
	for i, line := range strings.Split(string(src.data), "\n") {
		m := envLine.FindStringSubmatch(strings.TrimSuffix(line, "\r"))
		if m == nil || kind == "" && m[1] == "" {
			continue
		}
		l.kind = kind
		if m[1] != "" {
			l.kind = "comment"
		}
		value := unquote(m[3])
		switch {
		case kind == "template" && isProgrammed[strings.ToLower(path.Ext(src.path))]:
			l.kind = kind // what is written out in it stands in each file made of it
		case kind == "template":
			l.kind = kind
			j := c.Judge(m[2], value)
			if len(j.Secret) == 0 || !strings.HasPrefix(j.Rule, "token-") && j.Rule != "private-key" && !(j.Rule == "name" || j.Rule == "random") ||
				(j.Rule == "name" || j.Rule == "random") && (!looksRandom(value, entropyLength) || rules.Entropy(value) < entropyBits) {
				continue
			}
		}
		if m[1] != "" && strings.Contains(value, " ") && parseName(m[2]).class != nameSecret {
			continue // a sentence
		}
		l.name(i+1, m[2], value)
	}
	return l
}

// isProgrammed are the ends of templates that a program fills in, and no person.
var isProgrammed = set(".j2 .jinja .jinja2 .erb .gotmpl .ctmpl")

var envLine = regexp.MustCompile(`^[+\- ]?[ \t]*(#+[ \t]*)?(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*(.*)$`)

// unquote takes the quotes or the comment off the value of a line.
func unquote(v string) string {
	v = strings.TrimSpace(v)
	if v == "" {
		return v
	}
	if q := v[0]; q == '"' || q == '\'' || q == '`' {
		if i := strings.LastIndexByte(v, q); i > 0 {
			return v[1:i]
		}
		return v[1:]
	}
	for _, c := range []string{" #", "\t#", " //"} {
		if i := strings.Index(v, c); i >= 0 {
			v = v[:i]
		}
	}
	return strings.TrimSpace(v)
}

func sortFindings(f []Finding) {
	slices.SortFunc(f, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.Name, b.Name), strings.Compare(a.Rule, b.Rule))
	})
}
