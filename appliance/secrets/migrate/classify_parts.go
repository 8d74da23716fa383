package migrate

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxComposite bounds a value that is taken apart, in bytes.
const maxComposite = 1 << 20

// parts of a composite value that are secret, each as a person says it
// ("password of the URL"). No text of the value is in them: names come from a
// fixed vocabulary.
func parts(value string) []string {
	if len(value) > maxComposite {
		return nil
	}
	var out partList
	takeApart(value, 0, out.add)
	return out
}

// partList has each part once.
type partList []string

func (l *partList) add(part string) {
	if !slices.Contains(*l, part) {
		*l = append(*l, part)
	}
}

func takeApart(value string, depth int, add func(string)) {
	trimmed := strings.TrimSpace(value)
	switch {
	case depth > 3 || len(trimmed) < 6:
		return
	case trimmed[0] == '{' || trimmed[0] == '[':
		if jsonParts(trimmed, depth, add) {
			return
		}
	case strings.HasPrefix(trimmed, "eyJ") || strings.HasPrefix(trimmed, "eyAi") || strings.HasPrefix(trimmed, "ewog"):
		if doc, err := base64.StdEncoding.DecodeString(trimmed); err == nil && utf8.Valid(doc) {
			jsonParts(string(doc), depth, add)
			return
		}
	case strings.HasPrefix(trimmed, pemBase64):
		if head, err := base64.StdEncoding.DecodeString(trimmed[:min(len(trimmed), 64)/4*4]); err == nil && bytes.Contains(head, []byte("PRIVATE KEY")) {
			add("private key in base64")
			return
		}
	}
	urlParts(trimmed, add)
	pairParts(trimmed, add)
	if bearer.MatchString(trimmed) {
		add("credential of the header")
	}
}

// jsonParts says whether the text is JSON.
func jsonParts(text string, depth int, add func(string)) bool {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil || dec.More() {
		return false
	}
	var walk func(key string, v any, level int)
	walk = func(key string, v any, level int) {
		switch v := v.(type) {
		case map[string]any:
			for k, x := range v {
				walk(k, x, level+1)
			}
		case []any:
			for _, x := range v {
				walk(key, x, level+1)
			}
		case json.Number:
			if n := parsePart(key); n.class == nameSecret {
				add("JSON: " + strings.ToLower(n.word))
			}
		case string:
			if n := parsePart(key); n.secretValue(v) {
				add("JSON: " + strings.ToLower(n.word))
				return
			}
			if strings.Contains(v, "-----BEGIN ") && strings.Contains(v, "PRIVATE KEY") {
				add("JSON: private key")
				return
			}
			takeApart(v, depth+1, add)
		}
	}
	walk("", v, 0)
	return true
}

// parsePart is parseName for a key within a composite value, where PWD is no
// folder of the shell's.
func parsePart(key string) name {
	if strings.EqualFold(key, "pwd") {
		return name{class: nameSecret, word: "PWD", words: []string{"PWD"}}
	}
	return parseName(key)
}

// secretValue says whether a part of that name is a secret.
func (n name) secretValue(value string) bool {
	if n.word == "AUTH" && (len(value) < 8 || setting.MatchString(value)) {
		return false // a part of a program: auth=info
	}
	switch n.class {
	case nameSecret:
		return placeholder(n, value) == "" && !strings.HasPrefix(value, "${") && !keyFile.MatchString(value)
	case nameMaybe:
		return n.maybe(value)
	}
	return false
}

var (
	urlStart = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://`)
	webhook  = regexp.MustCompile(`(?i)://(?:hooks\.slack\.com/(?:services|workflows|triggers)/|(?:[a-z]+\.)?discord(?:app)?\.com/api/webhooks/\d+/|[a-z0-9.-]*webhook\.office\.com/|outlook\.office\.com/webhook/|hooks\.zapier\.com/hooks/|api\.telegram\.org/bot)[A-Za-z0-9:_/@-]{16,}`)
	// schemeless are user:password@tcp(host), user:password@host:port and user/password@//host.
	// Source: https://github.com/go-sql-driver/mysql#dsn-data-source-name, Oracle's easy connect
	schemeless = regexp.MustCompile(`^[\w.-]+(?::(\S+)@(?:[a-z]+\([^()\s]*\)|[A-Za-z0-9.-]+:\d{2,5})(?:/|$)|/([^/\s]+)@(?://|[A-Za-z0-9.-]+:\d{2,5}/))`)
	oracle     = regexp.MustCompile(`(?i)\bjdbc:oracle:(?:thin|oci8?):[^/@\s]+/([^@\s]+)@`)
	// sentryDSN is for browsers and apps, too. Source: https://docs.sentry.io/concepts/key-terms/dsn-explainer/
	sentryDSN = regexp.MustCompile(`^https?://[0-9a-f]{32}@[^/@\s]+/(?:[^?#@\s]*/)?\d+$`)
	// reserved are parameters whose names say more in a URL than elsewhere.
	reserved = set("SIG SIGNATURE AUTH SAS")
	bearer   = regexp.MustCompile(`^(?i:bearer|basic|token)(?: |%20)[A-Za-z0-9+/=_.~-]{12,}$`)
)

// urlParts looks at every URL of the value. It also knows those that net/url
// refuses for the signs in their passwords.
func urlParts(value string, add func(string)) {
	if strings.HasPrefix(value, "jdbc:") {
		if m := oracle.FindStringSubmatch(value); m != nil && placeholder(name{}, m[1]) == "" {
			add("password of the URL")
		}
	}
	starts := urlStart.FindAllStringIndex(value, -1)
	if len(starts) == 0 {
		if m := schemeless.FindStringSubmatch(value); m != nil && placeholder(name{words: []string{"PASSWORD", "PASS", "PW"}}, m[1]+m[2]) == "" {
			add("password of the connection string")
		}
	}
	for i, s := range starts {
		end := len(value)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		text := value[s[0]:end]
		if j := strings.IndexAny(text, " \t\r\n\"'`<>"); j >= 0 && strings.IndexByte(text[j:], '@') < 0 {
			text = text[:j]
		}
		rest := text[s[1]-s[0]:]
		userinfo := userinfoOf(rest)
		user, password, has := strings.Cut(userinfo, ":")
		switch {
		case has && password != "" && placeholder(name{words: []string{"PASSWORD", "PASS", "PW"}}, unescape(password)) == "":
			add("password of the URL")
		case !has && looksRandom(unescape(user), 20) && !sentryDSN.MatchString(text):
			add("user of the URL")
		}
		if webhook.MatchString(text) {
			add("path of the URL")
		}
		if _, query, ok := strings.Cut(rest, "?"); ok {
			queryParts(query, add)
		}
	}
	if len(starts) == 0 && strings.Contains(value, "=") && strings.Contains(value, "&") && !strings.ContainsAny(value, " \t\n") {
		queryParts(strings.TrimPrefix(value, "?"), add)
	}
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// userinfoOf the part of a URL after its "://".
func userinfoOf(rest string) string {
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		return authority[:at]
	}
	// A password with a sign that ends an authority: what stands after the colon
	// is no port then.
	if _, port, ok := strings.Cut(authority, ":"); ok && !strings.HasPrefix(authority, "[") {
		first, _, _ := strings.Cut(port, ",")
		if _, err := strconv.ParseUint(first, 10, 16); err != nil {
			if at := strings.LastIndexByte(rest, '@'); at >= 0 {
				return rest[:at]
			}
		}
	}
	return ""
}

func queryParts(query string, add func(string)) {
	query, _, _ = strings.Cut(query, "#")
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || value == "" {
			continue
		}
		n, v := parsePart(unescape(key)), unescape(value)
		last := ""
		if len(n.words) > 0 {
			last = n.words[len(n.words)-1]
		}
		if n.secretValue(v) || reserved[last] && len(v) >= 12 && placeholder(n, v) == "" {
			word := n.word
			if word == "" {
				word = last
			}
			add("parameter " + strings.ToLower(word) + " of the URL")
		} else if s, err := url.QueryUnescape(value); err == nil && strings.Contains(s, ";") {
			pairParts(s, add) // odbc_connect of SQLAlchemy
		}
	}
}

var (
	// pair is one assignment of a connection string, of a DSN, of a list of
	// headers, or one long option. The name begins the value or follows a sign
	// that ends the assignment before.
	pair       = regexp.MustCompile(`(?:^|[\s;,{(])-{0,2}["']?([A-Za-z][A-Za-z0-9_.-]*(?: [A-Za-z][A-Za-z0-9]*){0,2})(?:["']?\s*=\s*|["']\s*:\s*|:\s+|:["'])`)
	nextPair   = regexp.MustCompile(`^[a-z_]+=`)
	longOption = regexp.MustCompile(`(?:^|\s)--?([A-Za-z][A-Za-z0-9-]*)[ \t]+([^\s-][^\s]*)`)
	userOption = regexp.MustCompile(`(?:^|\s)(?:-u|--user)[ =]?["']?[^\s:"'+][^\s:"']*:([^\s"']+)`)
)

// pairParts looks at every NAME=VALUE within a value.
// Sources: postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING,
// learn.microsoft.com/dotnet/framework/data/adonet/connection-string-syntax
func pairParts(value string, add func(string)) {
	for _, m := range pair.FindAllStringSubmatchIndex(value, -1) {
		key := value[m[2]:m[3]]
		if strings.HasPrefix(value[m[3]:], "://") {
			continue
		}
		v := pairValue(value, m[1])
		n := parsePart(strings.ReplaceAll(key, " ", "_"))
		if v != "" && n.secretValue(v) {
			add(strings.ToLower(n.word) + " of the connection string")
		}
	}
	optionParts(value, add)
}

// optionParts looks at the options of a command.
func optionParts(value string, add func(string)) {
	if !strings.Contains(value, "-") {
		return
	}
	for _, m := range longOption.FindAllStringSubmatch(value, -1) {
		if n := parsePart(m[1]); n.class == nameSecret && n.secretValue(strings.Trim(m[2], `"'`)) {
			add("option --" + strings.ToLower(strings.ReplaceAll(n.word, "_", "-")))
		}
	}
	if m := userOption.FindStringSubmatch(value); m != nil && placeholder(name{}, m[1]) == "" {
		add("option --user")
	}
}

// pairValue is the value at an offset: within its quotes or braces, or up to
// the sign that ends it.
func pairValue(s string, from int) string {
	if from >= len(s) {
		return ""
	}
	if q := s[from-1]; (q == '"' || q == '\'') && from >= 2 && s[from-2] == ':' {
		from-- // {password:'x'}
	}
	rest := s[from:]
	if strings.ContainsAny(s[from-1:from], " \t\r\n") && nextPair.MatchString(rest) {
		return "" // password= dbname=x
	}
	switch q := rest[0]; q {
	case '"', '\'':
		if i := strings.IndexByte(rest[1:], q); i >= 0 {
			return rest[1 : 1+i]
		}
		return rest[1:]
	case '{':
		if i := strings.IndexByte(rest, '}'); i > 0 && !strings.HasPrefix(rest, "{{") {
			return rest[1:i]
		}
	}
	end := ","
	switch {
	case strings.Contains(s, ";"):
		end = ";"
	case !strings.Contains(s, ","):
		end = " \t\n&"
	}
	if i := strings.IndexAny(rest, end); i >= 0 {
		rest = rest[:i]
	}
	return strings.TrimSpace(rest)
}

// describe the parts in one reason.
func describe(found []string) string {
	if len(found) == 1 {
		return "holds a secret: " + found[0]
	}
	return fmt.Sprintf("holds %d secrets: %s", len(found), strings.Join(found, ", "))
}
