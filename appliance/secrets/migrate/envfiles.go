package migrate

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The kinds of .env files are told by their names. Names of others, with the
// program that reads them:
//   - .flaskenv: https://flask.palletsprojects.com/en/stable/cli/#environment-variables-from-dotenv
//   - .dev.vars: https://developers.cloudflare.com/workers/configuration/secrets/#local-development-with-secrets
//   - .secrets, .vars: https://nektosact.com/usage/index.html#envsecrets-files-structure
//   - .envs/.production/.django: https://cookiecutter-django.readthedocs.io/
var (
	dotEnv   = regexp.MustCompile(`(?i)^\.env(?:[^a-z0-9].*)?$`)
	otherEnv = regexp.MustCompile(`^(?:\.flaskenv|\.dev\.vars(?:\.[A-Za-z0-9_-]+)?|\.secrets)$`)
	// written in a language, and no .env file: .env.js, .env.json.
	languageEnv = regexp.MustCompile(`(?i)^\.env\..*\.?(?:[cm]?js|ts|json|ya?ml|py|rb|php)$`)
	// sealed files hold what is encrypted already.
	sealed   = regexp.MustCompile(`^\.env\.(?:vault|encrypted|enc|gpg|age|sops|asc)$|\.env\.(?:enc|gpg|age|asc)$`)
	nameWord = regexp.MustCompile(`[A-Za-z0-9]+`)
)

// isEnvFile goes by the name: .env, .env.NAME, .env-NAME, .env_NAME, NAME.env,
// NAME.env.NAME and env.NAME for a usual environment, and what some programs call theirs.
func isEnvFile(rel string) bool {
	base := path.Base(rel)
	switch {
	case sealed.MatchString(base), languageEnv.MatchString(base):
		return false
	case dotEnv.MatchString(base), otherEnv.MatchString(base), strings.HasSuffix(base, ".env"):
		return true
	case strings.Contains(base, ".env."): // web.env.production, prod.env.local
		_, ends, _ := strings.Cut(base, ".env.")
		return !slices.ContainsFunc(strings.Split(ends, "."), func(w string) bool { return environments[strings.ToLower(w)] == "" }) || isTemplate(base)
	case strings.HasPrefix(base, "env."):
		return environments[strings.TrimPrefix(base, "env.")] != "" || isTemplate(base)
	}
	return strings.Contains("/"+rel, "/.envs/") && strings.HasPrefix(base, ".") && !strings.HasPrefix(base, ".git")
}

// IsEnvFile says whether a file of the tree goes for a .env file by its name.
func IsEnvFile(rel string) bool { return isEnvFile(rel) }

// isTemplate is a .env file that shows what others should hold.
func isTemplate(rel string) bool {
	for _, part := range nameWord.FindAllString(path.Base(rel), -1) {
		switch strings.ToLower(part) {
		case "example", "examples", "sample", "template", "dist", "tmpl", "tpl", "schema", "defaults", "j2", "jinja", "jinja2", "erb", "gotmpl", "ctmpl":
			return true
		}
	}
	return false
}

// isEnvCopy is one that no program reads, and that holds secrets all the same.
func isEnvCopy(rel string) bool {
	base := strings.ToLower(path.Base(rel))
	return isEnvFile(rel) && (isCopy(base) || isPatch[path.Ext(base)] || strings.Contains(base, "copy") || strings.Contains(base, "("))
}

var isPatch = map[string]bool{".patch": true, ".diff": true}

var fixtureDirs = set(`TEST TESTS TESTDATA FIXTURE FIXTURES SPEC SPECS EXAMPLE EXAMPLES SAMPLES MOCKS __TESTS__ __FIXTURES__`)

// mustRead is a .env file by a name that programs read of themselves, at a
// place where they do: while it is malformed, nothing is written. A fault in
// any other is a note, and what it holds stays as it is.
func mustRead(rel string) bool {
	if !isEnvFile(rel) || isTemplate(rel) || isEnvCopy(rel) {
		return false
	}
	for dir := range strings.SplitSeq(path.Dir(rel), "/") {
		if fixtureDirs[strings.ToUpper(dir)] {
			return false
		}
	}
	words := nameWord.FindAllString(path.Base(rel), -1)
	for _, w := range words {
		w = strings.ToLower(w)
		if w != "env" && w != "flaskenv" && w != "secrets" && w != "vars" && environments[w] == "" {
			return false
		}
	}
	return len(words) > 0
}

var diffStart = regexp.MustCompile(`(?m)\A(?:.*\n){0,20}?(?:diff --git |--- \S.*\n\+\+\+ \S|@@ -\d)`)

// isDiff says whether a file is a patch, whatever it is called.
func isDiff(data []byte) bool {
	return diffStart.Match(data[:min(len(data), sniff)]) && bytes.Contains(data, []byte("\n@@ "))
}
