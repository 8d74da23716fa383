package migrate

import (
	"bytes"
	"encoding/json"
	"iter"
	"path"
	"regexp"
	"strings"
)

// eachLine visits the lines of a file, from 1.
func (l *lookup) eachLine(visit func(n int, line string)) {
	n := 0
	for raw := range bytes.Lines(l.src.data) {
		n++
		visit(n, strings.TrimRight(string(raw), "\r\n"))
	}
}

var (
	settingsSection = regexp.MustCompile(`^\s*\[+\s*([^\[\]]+?)\s*\]+\s*(?:[#;].*)?$`)
	settingsLine    = regexp.MustCompile(`^\s*(?:export\s+|set\s+)?["':]?([A-Za-z_/@][\w.\-/:@]*(?: [\w.\-]+)*?)["']?\s*(=|:)\s*(.*)$`)
	settingsPlain   = regexp.MustCompile(`^\s*([A-Za-z][\w-]*)[ \t]+(\S+)\s*$`)
	blockVariable   = regexp.MustCompile(`^\s*(?:variable|resource\s+"[^"]*"|data\s+"[^"]*")\s+"([^"]+)"\s*\{`)
)

// lookSettings reads ini, TOML, properties, .npmrc, tfvars and the like: a line
// is one setting, below a section.
func lookSettings(l *lookup) {
	section, block := "", ""
	if l.kind == "terraform" {
		l.hereDocs(string(l.src.data), 1)
	}
	l.eachLine(func(n int, line string) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";") || strings.HasPrefix(trimmed, "//") && !strings.Contains(trimmed, "/:_") || strings.HasPrefix(trimmed, "!") {
			return
		}
		if m := settingsSection.FindStringSubmatch(line); m != nil {
			section = m[1] + "."
			return
		}
		if m := blockVariable.FindStringSubmatch(line); m != nil {
			block = m[1]
			return
		}
		if q := trimmed[0]; q == '"' || q == '\'' { // an item of a list: "NAME=value",
			if item, ok := strings.CutSuffix(strings.TrimRight(trimmed[1:], ", ]"), string(q)); ok && strings.IndexByte(item, q) < 0 {
				line, trimmed = item, item
			}
		}
		if word, _, _ := strings.Cut(trimmed, " "); nginxPass.MatchString(word) {
			return
		}
		if trimmed[0] == '{' { // an item of a list
			l.literals(n, line)
			return
		}
		m := settingsLine.FindStringSubmatch(line)
		if m == nil {
			if p := settingsPlain.FindStringSubmatch(line); p != nil && l.kind == "settings" && parseName(p[1]).class == nameSecret {
				l.name(n, section+p[1], unquote(p[2]))
			}
			return
		}
		name, value := m[1], m[3]
		if m[2] == ":" { // a name with a colon in it: //registry/:_authToken=x
			if i := strings.LastIndexByte(line, '='); i >= 0 && strings.HasPrefix(trimmed, "//") {
				name, value = strings.TrimSpace(line[:i]), line[i+1:]
			}
		}
		if name == "default" && block != "" && l.kind == "terraform" {
			name = block
		}
		switch v := strings.TrimSpace(value); {
		case strings.HasPrefix(v, "{") || strings.HasPrefix(v, "["):
			l.literals(n, line)
		case l.kind == "terraform" && !strings.HasPrefix(v, `"`) && !strings.Contains(line, name+"="+v):
			// a reference or a number; A=x without spaces is a line of a text
		default:
			l.name(n, section+name, unquote(value))
		}
	})
}

// lookNetrc reads the words of a .netrc.
// Source: https://www.gnu.org/software/inetutils/manual/html_node/The-_002enetrc-file.html
func lookNetrc(l *lookup) {
	machine, last := "default", ""
	l.eachLine(func(n int, line string) {
		for _, w := range strings.Fields(line) {
			switch last {
			case "machine":
				machine, last = w, ""
			case "password":
				last = ""
				if placeholder(name{words: []string{"PASSWORD"}}, w) == "" {
					l.note(n, "password of "+machine, []string{"is a password"}, "name")
					l.search(n, "password of "+machine, w)
				}
			case "login", "account", "macdef":
				last = ""
			default:
				if strings.HasPrefix(w, "#") {
					return
				}
				last = w
			}
		}
	})
}

// lookPgpass reads hostname:port:database:username:password.
// Source: https://www.postgresql.org/docs/current/libpq-pgpass.html
func lookPgpass(l *lookup) {
	l.eachLine(func(n int, line string) {
		if strings.HasPrefix(line, "#") {
			return
		}
		var fields []string
		var f strings.Builder
		for i := 0; i < len(line); i++ {
			switch {
			case line[i] == '\\' && i+1 < len(line):
				i++
				f.WriteByte(line[i])
			case line[i] == ':' && len(fields) < 4:
				fields = append(fields, f.String())
				f.Reset()
			default:
				f.WriteByte(line[i])
			}
		}
		if password := f.String(); len(fields) == 4 && placeholder(name{words: []string{"PASSWORD"}}, password) == "" {
			whose := "password of " + fields[3] + " at " + fields[0]
			l.note(n, whose, []string{"is a password"}, "name")
			l.search(n, whose, password)
		}
	})
}

var sqlPassword = regexp.MustCompile(`(?i)\b(?:PASSWORD|IDENTIFIED\s+(?:WITH\s+\S+\s+)?(?:BY|AS))\s*(?:PASSWORD\s+|=\s*)?'((?:[^'\n]|'')+)'`)

// lookSQL finds the passwords of CREATE ROLE, CREATE USER and their like.
// Sources: https://www.postgresql.org/docs/current/sql-createrole.html, https://dev.mysql.com/doc/refman/8.4/en/create-user.html
func lookSQL(l *lookup) {
	l.eachLine(func(n int, line string) {
		if m := sqlPassword.FindStringSubmatch(line); m != nil && placeholder(name{words: []string{"PASSWORD"}}, m[1]) == "" && m[1] != "?" && !strings.HasPrefix(m[1], ":") {
			l.note(n, "", []string{"is a password"}, "name")
			l.search(n, "", strings.ReplaceAll(m[1], "''", "'"))
		}
	})
	lookCode(l)
}

var (
	pemKey = regexp.MustCompile(`-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\\r|\\n|[\s"',+>|])*[A-Za-z0-9+/]{20}`)
)

// maxToken bounds what is taken for a token, in bytes: what is longer is data.
const maxToken = 8 << 10

// tokens looks at any text, prose and data too, for what is a secret by its form
// alone: a token of a known service, a private key, a URL with a password that
// nobody would write into an example.
func (l *lookup) tokens() {
	known := map[int]bool{}
	for _, f := range l.found {
		known[f.Line] = true
	}
	note := func(n int, secret []string, rule, value string) {
		if !known[n] {
			l.note(n, "", secret, rule)
			l.search(n, "", value)
		}
	}
	if bytes.Contains(l.src.data, []byte("PRIVATE KEY")) {
		for _, m := range pemKey.FindAllIndex(l.src.data, -1) {
			note(bytes.Count(l.src.data[:m[0]], []byte("\n"))+1, []string{"is a private key"}, "private-key", string(l.src.data[m[1]-20:m[1]]))
		}
	}
	n := 0
	for line := range bytes.Lines(l.src.data) {
		n++
		if len(line) < 16 {
			continue
		}
		l.hashes(n, line)
		for run := range tokenRuns(line) {
			if ids := l.c.tokens(name{}, "", string(run)); len(ids) > 0 {
				note(n, []string{"has the form of a " + ids[0]}, "token-"+ids[0], string(run))
			}
		}
		if l.kind == "text" && len(line) < maxToken && bytes.Contains(line, []byte("://")) && bytes.IndexByte(line, '@') >= 0 {
			for _, text := range proseURL.FindAllStringSubmatch(string(line), -1) {
				if p := unescape(text[1]); looksRandom(p, 8) && parts(text[0]) != nil {
					note(n, []string{"holds a secret: password of the URL"}, "part", text[0])
				}
			}
		}
	}
}

// tokenRuns are the texts of a line in which a token may be, wherever it stands:
// of at least 16 bytes, with a digit, and more than a sum in hexadecimal.
func tokenRuns(line []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		start, digit, other := 0, false, false
		for i := 0; i <= len(line); i++ {
			c := byte(' ')
			if i < len(line) {
				c = line[i]
			}
			switch {
			case c >= '0' && c <= '9':
				digit = true
			case c >= 'a' && c <= 'f', c >= 'A' && c <= 'F', c == '-', c == '.', c == ':':
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '+', c == '/', c == '=', c == '~':
				other = true
			default:
				if n := i - start; digit && other && n >= 16 && n <= maxToken && !yield(line[start:i]) {
					return
				}
				start, digit, other = i+1, false, false
			}
		}
	}
}

// proseURL is a URL with a password in a text for people.
var proseURL = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@"'<>]*:([^\s/@"'<>]{8,})@[^\s"'<>]+`)

// lookText looks for URLs with a password, and for tokens.
func lookText(l *lookup) {
	l.eachLine(func(n int, line string) { l.name(n, "", line) })
}

func lookPrivateKey(l *lookup) {
	l.eachLine(func(n int, line string) {
		if strings.HasPrefix(line, "-----BEGIN ") && strings.Contains(line, "PRIVATE KEY") || strings.HasPrefix(line, "PuTTY-User-Key-File-") {
			l.note(n, "", []string{"is a private key"}, "private-key")
		}
	})
	// A file that is nothing but a key, such as Rails' master.key.
	if text := strings.TrimSpace(string(l.src.data)); looksRandom(text, 16) {
		l.note(1, "", []string{"is a key"}, "random")
	}
}

var (
	// codeAssign is an assignment of a text, an argument, or a pair of a map.
	codeAssign = regexp.MustCompile("([A-Za-z_$][\\w$.\\-:]*)[\"'\\])]*\\s*(?::\\s*(?:&?(?:'static )?[A-Za-z_.\\[\\]<>?|]+\\s*)?=|:=|===?|=>|=|:|,)\\s*[rRbBuUfF$@]{0,2}(?:\"((?:[^\"\\\\\n]|\\\\.)+)\"|'((?:[^'\\\\\n]|\\\\.)+)'|`([^`\n]+)`)")
	// anyLiteral is a text that may be a token, or a URL.
	anyLiteral = regexp.MustCompile("[\"'`]([^\"'`\\s]{16,})[\"'`]")
	// connLiteral is a connection string.
	connLiteral   = regexp.MustCompile("(?i)[\"'`]([^\"'`]{0,300}(?:password|passwd|pwd|accountkey|accesskey|sharedaccesskey)\\s*=[^=\"'`][^\"'`]{1,300})[\"'`]")
	bearerLiteral = regexp.MustCompile("[\"'`](?i:bearer|basic) ([A-Za-z0-9+/=_.~-]{20,})[\"'`]")
	// interpolation is what a program puts into a text.
	interpolation = regexp.MustCompile(`[#$]?\{[$A-Za-z_][^{}"]*\}|\$[A-Za-z_]\w*(?:->\w+)*|%[sdvq]|%\([A-Za-z_]+\)s|\{\d*\}`)
	// comparison says that a name is compared, and not given a value.
	comparison = regexp.MustCompile(`[=!]==?\s*[rRbBuU]?["'` + "`]")
)

// lookCode reads programs of any language that writes texts in quotes.
func lookCode(l *lookup) {
	if n := bytes.Count(l.src.data, []byte("\n")) + 1; len(l.src.data)/n > 400 {
		return // made by a program
	}
	l.hereDocs(string(l.src.data), 1)
	l.literalTexts()
	l.eachLine(func(n int, line string) {
		if len(line) > 4000 || !strings.ContainsAny(line, "\"'`") {
			return
		}
		l.literals(n, line)
	})
}

// literals looks at what is in quotes on one line.
func (l *lookup) literals(n int, line string) {
	if !hasSign([]byte(line)) && !anyLiteral.MatchString(line) {
		return
	}
	for _, m := range codeAssign.FindAllStringSubmatchIndex(line, -1) {
		name := line[m[2]:m[3]]
		between := line[m[3]:m[1]]
		if comparison.MatchString(between) {
			continue
		}
		value := ""
		for g := 4; g < len(m); g += 2 {
			if m[g] >= 0 {
				value = interpolation.ReplaceAllString(line[m[g]:m[g+1]], "__REF__")
			}
		}
		if c := parseName(name).class; c != nameSecret && c != nameMaybe {
			continue // URLs and tokens are found below, whatever their names
		}
		sets := strings.Contains(between, "]") && strings.Contains(between, "=") // environ["X"] = "y"
		if isLookup(line[:m[2]]) && !sets || strings.Contains(between, ",") && !isSetter(line[:m[2]]) {
			continue
		}
		l.name(n, strings.TrimSuffix(name, ":"), value)
	}
	line = interpolation.ReplaceAllString(line, "__REF__")
	for _, m := range anyLiteral.FindAllStringSubmatch(line, -1) {
		if j := l.c.Judge("", m[1]); len(j.Secret) > 0 && j.Rule != "random" && j.Rule != "name" {
			l.note(n, "", j.Secret, j.Rule)
		}
	}
	l.connection(n, line)
	if m := bearerLiteral.FindStringSubmatch(line); m != nil && looksRandom(m[1], entropyLength) {
		l.note(n, "", []string{"holds a secret: credential of the header"}, "part")
	}
}

// connection notes a connection string within a text in quotes.
func (l *lookup) connection(n int, line string) {
	if m := connLiteral.FindStringSubmatch(line); m != nil {
		if j := l.c.Judge("", m[1]); j.Rule == "part" {
			l.note(n, "", j.Secret, j.Rule)
		}
	}
}

// isLookup says whether what follows is the name of a variable that is read:
// getenv("X", "default") is a use, whose default the extractors find.
func isLookup(before string) bool {
	before = strings.TrimRight(before, "\"'` ([")
	return strings.HasSuffix(before, "getenv") || strings.HasSuffix(before, "environ") || strings.HasSuffix(before, "environ.get") || strings.HasSuffix(before, "env")
}

// isSetter is true of set("password", "x"), environ.setdefault("X", "y").
func isSetter(before string) bool {
	before = strings.ToLower(strings.TrimRight(before, "\"'` ("))
	return strings.HasSuffix(before, "setdefault") || strings.HasSuffix(before, "set") || strings.HasSuffix(before, "setenv") || strings.HasSuffix(before, "setproperty") ||
		strings.HasSuffix(before, "put") || strings.HasSuffix(before, "define") || strings.HasSuffix(before, "option")
}

// notebookEnv sets a variable. Source: https://ipython.readthedocs.io/en/stable/interactive/magics.html#magic-env
var notebookEnv = regexp.MustCompile(`^\s*%(?:set_)?env\s+([A-Za-z_]\w*)[= ]\s*(\S+)`)

// lookNotebook reads the code of a notebook, and what it printed. nbformat
// writes each line of a cell as a text on a line of its own.
// Source: https://nbformat.readthedocs.io/en/latest/format_description.html
func lookNotebook(l *lookup) {
	lines := 0
	l.eachLine(func(n int, line string) {
		lines++
		text := strings.TrimSuffix(strings.TrimSpace(line), ",")
		if !strings.HasPrefix(text, `"`) || !strings.HasSuffix(text, `"`) {
			if _, after, ok := strings.Cut(text, `": "`); ok {
				text = `"` + after
			}
		}
		var s string
		if json.Unmarshal([]byte(text), &s) == nil {
			s = strings.TrimRight(s, "\n")
			l.literals(n, s)
			if m := notebookEnv.FindStringSubmatch(s); m != nil {
				l.name(n, m[1], strings.Trim(m[2], `"'`))
			}
		}
	})
	if lines > 3 {
		return
	}
	var doc struct {
		Cells []struct {
			Source any `json:"source"`
		} `json:"cells"`
	}
	if json.Unmarshal(l.src.data, &doc) != nil {
		return
	}
	for _, c := range doc.Cells {
		texts, _ := c.Source.([]any)
		if s, ok := c.Source.(string); ok {
			for line := range strings.SplitSeq(s, "\n") {
				texts = append(texts, line)
			}
		}
		for _, t := range texts {
			if s, ok := t.(string); ok {
				l.literals(1, strings.TrimRight(s, "\n"))
			}
		}
	}
}

// lookCommands reads scripts, units and Dockerfiles for secrets in options and
// URLs; what they assign is the extractors' business.
func lookCommands(l *lookup) {
	l.hereDocs(string(l.src.data), 1)
	l.literalTexts()
	l.eachLine(func(n int, line string) {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, "//") || len(line) > 4000 || !hasSign([]byte(line)) {
			return
		}
		before := len(l.found)
		l.commandSets(n, trimmed)
		l.command(n, "", line)
		if !strings.HasPrefix(trimmed, "Environment") && len(l.found) == before {
			l.connection(n, line)
		}
		if m := cronAssign.FindStringSubmatch(trimmed); m != nil && isCron(l.src.path) {
			l.name(n, m[1], strings.Trim(m[2], `"'`))
		}
		for _, m := range anyLiteral.FindAllStringSubmatch(line, -1) {
			if j := l.c.Judge("", m[1]); strings.HasPrefix(j.Rule, "token-") {
				l.note(n, "", j.Secret, j.Rule)
			}
		}
	})
}

// commandSets notes what a line of commands gives a value.
func (l *lookup) commandSets(n int, line string) {
	for _, re := range []*regexp.Regexp{inlineAssign, defaultOf, configSet, optionAssign, psAssign, echoAssign} {
		for _, m := range re.FindAllStringSubmatch(line, -1) {
			l.name(n, m[1], strings.Trim(m[2], `"'`))
		}
	}
}

// inlineAssign is NAME=value before a command, as in PGPASSWORD=x psql.
var inlineAssign = regexp.MustCompile(`(?:^|[\s;&|@])([A-Za-z_][A-Za-z0-9_]*)=("[^"$]+"|'[^']+'|[^\s"'$;&|()<>\x60]+)[ \t]+[A-Za-z./]`)

var (
	// defaultOf is ${NAME:-x}, in a script that sets what nobody has set.
	defaultOf = regexp.MustCompile(`\$\{([A-Za-z_]\w*):?[-=]([^{}$]+)\}`)
	// configSet is aws configure set NAME x, npm config set NAME x, heroku config:set NAME=x.
	configSet = regexp.MustCompile(`\b(?:config|configure|secrets?|variables?)(?::| )set\s+(?:--?[a-z-]+\s+)*([A-Za-z/_][\w./:-]*)[ =]("[^"$]+"|'[^']+'|[^\s"'$;&|()-][^\s"';&|]*)`)
	// optionAssign is an option that gives a name a value: --set, --from-literal, -e.
	optionAssign = regexp.MustCompile(`\s(?:--(?:set|set-string|from-literal|build-arg|env|var|setenv|secret|param|parameter)|-e|-var)[= ]["']?([A-Za-z_][\w.\-]*)=("[^"$]+"|'[^']+'|[^\s"'$;&|()<>\x60{}]+)`)
	// psAssign is PowerShell's, and that of cmd.
	psAssign = regexp.MustCompile(`^(?i:\$(?:env:|script:|global:)?|set(?:x)?\s+"?)([A-Za-z_]\w*)(?:\s*=\s*|\s+)("[^"$]+"|'[^']+'|[^\s"'$%]+)"?\s*$`)
	// echoAssign is what a command writes into a file.
	echoAssign = regexp.MustCompile(`\b(?:echo|printf)\s+(?:-\w+\s+)*["']([A-Za-z_][\w.-]*)(?:=|:[ \t]+)("[^"$]+"|'[^']+'|[^\s"'$\\]+)(?:\\n)?["']\s*(?:>|\|)`)
	// cronAssign is a line of a crontab that sets a variable. Source: crontab(5)
	cronAssign = regexp.MustCompile(`^([A-Za-z_]\w*)\s*=\s*(\S.*)$`)
)

func isCron(rel string) bool {
	base := strings.ToLower(path.Base(rel))
	return strings.Contains(base, "crontab") || strings.HasSuffix(base, ".cron")
}

var (
	optionPair = regexp.MustCompile(`(?:^|[\s"'\[,])--?([A-Za-z][A-Za-z0-9-]*)=("[^"]*"|'[^']*'|[^\s"',]+)`)
	mysqlP     = regexp.MustCompile(`\bmysql\w*\b[^|;&\n]*\s-p([^\s"'$][^\s"']*)`)
	sqlcmdP    = regexp.MustCompile(`\b(?:sqlcmd|bcp)\b[^|;&\n]*\s-P\s*["']?([^\s"'$][^\s"']*)`)
	redisA     = regexp.MustCompile(`\bredis-cli\b[^|;&\n]*\s-a\s*["']?([^\s"'$][^\s"']*)`)
	loginP     = regexp.MustCompile(`\b(?:docker|podman|buildah|skopeo|nerdctl|helm registry|oc|az acr)\s+login\b[^|;&\n]*\s-p[ =]?["']?([^\s"'$-][^\s"']*)`)
	sshpass    = regexp.MustCompile(`\bsshpass\s+-p\s*["']?([^\s"'$][^\s"']*)`)
	authHeader = regexp.MustCompile(`(?i)\b(?:authorization|x-api-key|x-vault-token|private-token|x-auth-token)["']?\s*:\s*(?:(?:bearer|basic|token)\s+)?([^\s"'$<{][^\s"']{7,})`)
)

// commandParts are the secrets in one line of commands.
func commandParts(text string) []string {
	var out partList
	add := out.add
	urlParts(text, add)
	for _, m := range optionPair.FindAllStringSubmatch(text, -1) {
		if n := parsePart(m[1]); n.class == nameSecret && n.secretValue(strings.Trim(m[2], `"'`)) {
			add("option --" + strings.ToLower(strings.ReplaceAll(n.word, "_", "-")))
		}
	}
	optionParts(text, add)
	for _, re := range []*regexp.Regexp{mysqlP, sqlcmdP, redisA, loginP, sshpass} {
		if m := re.FindStringSubmatch(text); m != nil && placeholder(name{words: []string{"PASSWORD"}}, m[1]) == "" {
			add("option -p")
		}
	}
	if m := authHeader.FindStringSubmatch(text); m != nil && placeholder(name{}, m[1]) == "" {
		add("credential of the header")
	}
	return out
}
