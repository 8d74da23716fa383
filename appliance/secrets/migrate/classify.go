package migrate

import (
	"fmt"
	"regexp"
	"strings"

	"strongroom.example/appliance/secrets/migrate/rules"
)

// Classifier says whether a variable looks like a secret, and why. It errs on
// the side of secrets: the plan is there to be corrected.
//
// A clear name (DB_PASSWORD, apiKey, spring.mail.password) is a secret whatever
// its value looks like, placeholders apart. Other names are secrets by the form
// of their value, by a secret part of it, or if it looks random.
type Classifier struct{ rules *rules.Set }

// NewClassifier uses the built-in rules.
func NewClassifier() (*Classifier, error) {
	set, err := rules.Default()
	if err != nil {
		return nil, err
	}
	return &Classifier{set}, nil
}

// Judgment is what the classifier makes of one variable. Nothing in it quotes
// the value.
type Judgment struct {
	// Secret reasons; none for plain configuration.
	Secret []string
	// Rule names the first of them: "name", "part", "random", "private-key", or
	// "token-" and the id of gitleaks' rule.
	Rule string
	// Parts of a composite value that are secret: "password of the URL".
	Parts []string
	// Placeholder says, of a value under a secret's name that stands for one to
	// come, why it is taken for that.
	Placeholder string
}

// Why gives the reasons to take a variable for a secret; none if it looks like
// plain configuration. The reasons do not quote the value.
func (c *Classifier) Why(name, value string) []string { return c.Judge(name, value).Secret }

// Judge is Why with all that was found on the way.
func (c *Classifier) Judge(variable, value string) Judgment {
	var j Judgment
	if strings.TrimSpace(value) == "" {
		return j
	}
	n := parseName(variable)
	value = resolveDefaults(value)
	because := func(rule, format string, args ...any) {
		if j.Rule == "" {
			j.Rule = rule
		}
		j.Secret = append(j.Secret, fmt.Sprintf(format, args...))
	}
	for _, id := range c.tokens(n, variable, value) {
		because("token-"+id, "has the form of a %s", id)
	}
	if strings.Contains(value, "-----BEGIN ") && strings.Contains(value, "PRIVATE KEY") && len(j.Secret) == 0 {
		because("private-key", "is a private key")
	}
	if j.Parts = parts(value); len(j.Parts) > 0 {
		because("part", "%s", describe(j.Parts))
	}
	if len(j.Secret) > 0 {
		return j
	}
	switch {
	case n.class == nameSecret && keyFile.MatchString(value) && !strings.HasPrefix(n.word, "PASS"):
		// PRIVATE_KEY=/etc/ssl/private/app.key names the file.
	case n.class == nameSecret:
		if j.Placeholder = placeholder(n, value); value == "0" || value == "1" {
			j.Placeholder = "is a switch"
		}
		if j.Placeholder == "" {
			because("name", "is named like one (%s)", n.word)
		}
	case n.class == nameMaybe && n.maybe(value):
		because("name", "is named like one (%s)", n.word)
	case !n.identifier() && !forBrowser(variable) && !publicKey.MatchString(value) && placeholder(n, value) == "" && looksRandom(value, entropyLength) && rules.Entropy(value) >= entropyBits:
		because("random", "looks random (%.1f bits per byte)", rules.Entropy(value))
	}
	return j
}

// withDefault is a reference as a shell or docker-compose has it, or Spring.
var withDefault = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*(?:(:?[-=?+])([^{}]*)|:([^{}]*))?\}`)

// resolveDefaults puts the default in the place of each reference, and a mark
// that placeholder knows where there is none: what it stands for comes from
// elsewhere.
func resolveDefaults(value string) string {
	if !strings.Contains(value, "${") {
		return value
	}
	return withDefault.ReplaceAllStringFunc(value, func(ref string) string {
		m := withDefault.FindStringSubmatch(ref)
		if strings.HasSuffix(m[1], "-") || strings.HasSuffix(m[1], "=") {
			return m[2]
		}
		if len(m[3]) > 3 || letters.MatchString(m[3]) { // a length, as ${password:32}, is none
			return m[3]
		}
		return "__REF__"
	})
}

// tokens are the rules that know the value. Of a name that ends as an
// identifier's does, the value alone is looked at: HEROKU_APP_ID has the form of
// an API key only beside its name.
func (c *Classifier) tokens(n name, variable, value string) []string {
	beside := variable
	if n.identifier() {
		beside = "VALUE"
	}
	var out []string
	for _, id := range c.rules.Match(beside + `="` + value + `"`) {
		published := n.class == namePublic && forBrowser(variable) && (id == "jwt" || id == "gcp-api-key")
		if !strings.Contains(id, "generic") && !strings.HasSuffix(id, "-client-id") && !published {
			out = append(out, id)
		}
	}
	return out
}

const (
	// A token of at least this length, in bytes, ...
	entropyLength = 20
	// ... with at least this many bits per byte, letters and digits: random
	// base64 of 20 bytes has about 4, English text and host names less.
	entropyBits = 3.7
)

var (
	tokenChars = regexp.MustCompile(`^[A-Za-z0-9+/=_.\-]+$`)
	letters    = regexp.MustCompile(`[A-Za-z]`)
	digits     = regexp.MustCompile(`[0-9]`)
	// userPassword is what HTTP's basic authentication takes, of one user or more.
	userPassword = regexp.MustCompile(`^[A-Za-z0-9_.@-]+:[^/\s:][^\s:]{2,}$`)
	number       = regexp.MustCompile(`^[0-9.,_]{1,15}(?i:ms|s|m|h|d|w|k|kb|mb|gb|b)?$`)
	date         = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}(?:[T ][0-9:.]+(?:Z|[+-]\d{2}:?\d{2})?)?$`)
	location     = regexp.MustCompile(`^(?:\.{0,2}/|~/|[a-z][a-z0-9+.-]*://|[A-Za-z]:\\|[a-z]+:[a-z0-9_./-]+$)`)
	keyFile      = regexp.MustCompile(`(?i)^(?:classpath:|file:(?://)?)?(?:~|\.{1,2})?[A-Za-z0-9_./\\:-]*[A-Za-z0-9_-]\.(?:pem|key|json|p12|pfx|p8|jks|crt|cer|der|txt|asc|gpg|ppk|pub|kdbx|yml|yaml|toml|ini)$|^~?/[A-Za-z0-9_./-]*\.ssh/[A-Za-z0-9_.-]+$|^/(?:run|var/run)/(?:secrets|credentials)/[A-Za-z0-9_./-]+$`)
	pin          = regexp.MustCompile(`^[0-9]{4,12}$`)
	publicKey    = regexp.MustCompile(`^(?:pk_(?:live|test)_|pk-lf-|phc_|ssh-(?:rsa|ed25519) )`)
	uuid         = regexp.MustCompile(`(?i)^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$`)
	// resource is what AWS and Stripe call things. Source: docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html, docs.stripe.com/api
	resource   = regexp.MustCompile(`^(?:[a-z]{1,10}-[0-9a-f]{8,17}|(?:price|prod|plan|acct|cus|sub|promo|txr)_[A-Za-z0-9]+)$`)
	hostName   = regexp.MustCompile(`(?i)^(?:[a-z0-9_-]+\.)+[a-z]{2,}(?::\d+)?(?:/[a-z0-9_./-]*)?$`)
	authMethod = regexp.MustCompile(`(?i)^(?:plain|login|basic|digest|none|any|trust|md5|ident|peer|cram-?md5|scram-[a-z0-9-]+|oauth2?|oidc|bearer|jwt|saml|ldap|kerberos|gssapi|ntlm|cert|ssl|tls|token|password|session|iam|pat|aws|approle|userpass|kubernetes|required?|optional|internal|external|local)$`)
)

// maybe says whether a value under a name that may be a secret's is one.
func (n name) maybe(value string) bool {
	value = strings.TrimSpace(value)
	if placeholder(n, value) != "" || keyFile.MatchString(value) {
		return false
	}
	switch n.word {
	case "AUTH":
		return userPassword.MatchString(value) || !authMethod.MatchString(value) && !number.MatchString(value) && !location.MatchString(value)
	case "PIN":
		return pin.MatchString(value) // LED_PIN=13 is a wire
	case "SECRET_ID":
		return uuid.MatchString(value) || looksRandom(value, 24)
	case "KEY", "TOKENS", "COOKIE", "IV", "JWT", "SEED", "BEARER", "SIG", "SIGNATURE", "OTP", "NONCE":
		return strings.IndexByte(value, ' ') < 0 && (looksRandom(value, 16) || uuid.MatchString(value) || longKey.MatchString(value))
	}
	// A secret's word amid others: what a person would not write as a setting.
	return len(value) >= 6 && value[0] != '{' && value[0] != '[' && !number.MatchString(value) && !date.MatchString(value) && !location.MatchString(value) && !hostName.MatchString(value) && !setting.MatchString(value)
}

var (
	// longKey is a key that is all of one kind of letters.
	longKey = regexp.MustCompile(`^(?:[A-Z]{20,}|[a-z]{24,}|[A-Za-z0-9]*[^A-Za-z0-9\s/.,:_-][^\s/]{16,})$`)
	// setting is a word or some, as settings have them.
	setting = regexp.MustCompile(`^(?:[a-z]+|[A-Z]+|[A-Z]?[a-z]+)(?:[-_., ]+(?:[a-z]+|[A-Z]+|[A-Z]?[a-z]+))*$`)
)

// pemBase64 is how "-----BEGIN " begins in base64; a private key in it is found
// as a part, and a certificate is none of a secret.
const pemBase64 = "LS0tLS1CRUdJTi"

// versioned are words with a number behind them: ScoreObservationV3.
var versioned = regexp.MustCompile(`^(?:[A-Z]?[a-z]{2,}|[A-Z]{2,4})+(?:V|v)?\d{1,4}$`)

// looksRandom says of a value of at least n bytes whether its letters and
// digits are mixed as in no word, path or host name.
func looksRandom(value string, n int) bool {
	if len(value) < n || location.MatchString(value) && !strings.HasPrefix(value, "/") || !tokenChars.MatchString(value) || uuid.MatchString(value) || hostName.MatchString(value) || resource.MatchString(value) || strings.HasPrefix(value, pemBase64) {
		return false
	}
	if !letters.MatchString(value) || !digits.MatchString(value) || rules.Entropy(value) < 3 {
		return false
	}
	mixed := 0
	for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return strings.ContainsRune("-_./+=", r) }) {
		if letters.MatchString(part) && digits.MatchString(part) && !versioned.MatchString(part) || mixesCase(part) {
			mixed += len(part)
		}
	}
	return mixed*10 >= len(value)*6
}

// mixesCase is true of aBcDe, not of camelCase or Words.
func mixesCase(s string) bool {
	changes := 0
	for i := 1; i < len(s); i++ {
		if (s[i-1] >= 'a') != (s[i] >= 'a') {
			changes++
		}
	}
	return len(s) >= 4 && changes*3 > len(s)
}
