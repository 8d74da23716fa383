package migrate

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"strongroom.example/appliance/secrets/migrate/rules"
)

// Classifier says whether a variable looks like a secret, and why. It errs on
// the side of secrets: the plan is there to be corrected.
type Classifier struct{ rules *rules.Set }

// NewClassifier uses the built-in rules.
func NewClassifier() (*Classifier, error) {
	set, err := rules.Default()
	if err != nil {
		return nil, err
	}
	return &Classifier{set}, nil
}

var (
	// secretName is looked for in a name's words.
	secretName = regexp.MustCompile(`(?:^|_)(PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|SECRETS?|TOKENS?|APIKEYS?|CREDENTIALS?|CREDS|DSN|SALT|PEPPER|PRIVATE|` +
		`(?:API|ACCESS|PRIVATE|ENCRYPTION|SIGNING|MASTER|ACCOUNT|SERVICE|AUTH|SSH|DEPLOY|LICENSE|FERNET|HMAC|WEBHOOK)_?KEYS?|KEY)(?:_|$|[0-9])`)
	// publicName ends the name of something about a secret.
	publicName = regexp.MustCompile(`(?:_(?:ID|IDS|NAME|FILE|PATH|DIR|TTL|EXPIRY|EXPIRE|EXPIRES|LENGTH|TIMEOUT|HEADER|ALGORITHM|ALG|ISSUER|AUDIENCE|ENDPOINT|URI|ARN|REGION|TYPE|VERSION|SECONDS|MINUTES|HOURS|DAYS|LIMIT|COUNT|SIZE)|^PUBLIC_KEY|_PUBLIC_KEY|PUBLISHABLE_KEY|_KEY_PREFIX|SORT_KEY|PRIMARY_KEY|PARTITION_KEY|CACHE_KEY)$`)
	smallValue = regexp.MustCompile(`(?i)^(?:|true|false|yes|no|on|off|none|null|\d{1,5}|\d+(?:ms|s|m|h|d))$`)
	tokenChars = regexp.MustCompile(`^[A-Za-z0-9+/=_.\-]+$`)
	letters    = regexp.MustCompile(`[A-Za-z]`)
	digits     = regexp.MustCompile(`[0-9]`)
	location   = regexp.MustCompile(`^(?:\.{0,2}/|[a-z][a-z0-9+.-]*://|[A-Za-z]:\\)`)
	placehold  = regexp.MustCompile(`(?i)^(?:change[-_ ]?me|your[-_ ].*|<.*>|\.\.\.|todo|dummy|placeholder|example)$`)
)

const (
	// A token of at least this length, in bytes, ...
	entropyLength = 20
	// ... with at least this many bits per byte, letters and digits: random
	// base64 of 20 bytes has about 4, English text and host names less.
	entropyBits = 3.7
)

// Why gives the reasons to take a variable for a secret; none if it looks like
// plain configuration. The reasons do not quote the value.
func (c *Classifier) Why(name, value string) []string {
	var why []string
	for _, id := range c.rules.Match(name + `="` + value + `"`) {
		if !strings.Contains(id, "generic") {
			why = append(why, fmt.Sprintf("has the form of a %s", id))
		}
	}
	if strings.Contains(value, "-----BEGIN ") && strings.Contains(value, "PRIVATE KEY") && len(why) == 0 {
		why = append(why, "is a private key")
	}
	if hasPassword(value) {
		why = append(why, "is a URL with a password")
	}
	if len(why) > 0 {
		return why
	}
	if smallValue.MatchString(value) || placehold.MatchString(value) || c.rules.Allowed(value) {
		return nil
	}
	upper := strings.ToUpper(name)
	public := publicName.MatchString(upper)
	if m := secretName.FindStringSubmatch(upper); m != nil && !public && !isLocation(value) {
		why = append(why, fmt.Sprintf("is named like one (%s)", m[1]))
	}
	if len(value) >= entropyLength && !public && !isLocation(value) && tokenChars.MatchString(value) &&
		letters.MatchString(value) && digits.MatchString(value) && rules.Entropy(value) >= entropyBits {
		why = append(why, fmt.Sprintf("looks random (%.1f bits per byte)", rules.Entropy(value)))
	}
	return why
}

func isLocation(value string) bool { return location.MatchString(value) }

// hasPassword also knows the URLs that net/url refuses for the signs in their
// passwords.
func hasPassword(value string) bool {
	i := strings.Index(value, "://")
	if i <= 0 || strings.ContainsAny(value[:i], " \t\n/") {
		return false
	}
	if u, err := url.Parse(value); err == nil {
		p, ok := u.User.Password()
		return ok && p != ""
	}
	authority := value[i+3:]
	at := strings.LastIndexByte(authority, '@')
	if at < 0 {
		return false
	}
	_, password, ok := strings.Cut(authority[:at], ":")
	return ok && password != ""
}
