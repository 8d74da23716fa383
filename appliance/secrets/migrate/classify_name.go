package migrate

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// nameClass is what a name alone says of a value.
type nameClass int

const (
	nameUnclear nameClass = iota // says nothing
	namePublic                   // names something about a secret, or what is published anyway: a look at the value would mislead
	nameMaybe                    // may name a secret: the value decides
	nameSecret                   // names a secret: no look at the value changes that
)

// name is a variable's name, or a key within a composite value, taken apart.
type name struct {
	class nameClass
	word  string // in capitals, what the class is from; of a fixed vocabulary
	words []string
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

var (
	// secretHeads end the name of a secret.
	secretHeads = set(`PASSWORD PASSWORDS PASSWD PASSWDS PASSWRD PSWD PSWRD PASSPHRASE PASSPHRASES PASS PWD PW PASSCODE SECRET SECRETS TOKEN APIKEY APIKEYS
		PAT SALT PEPPER CREDENTIAL CREDENTIALS CREDS CRED PSK MNEMONIC REQUIREPASS MASTERAUTH AUTHORIZATION PASSWORT KENNWORT CONTRASENA SENHA`)
	// keyOf says which keys are secret: API_KEY, SIGNING_KEY, ...
	keyOf = set(`API APP ACCESS SECRET PRIVATE PRIV ENCRYPTION ENCRYPT ENC DECRYPTION DECRYPT CRYPTO CRYPT CIPHER SIGNING SIGNATURE SIGN MASTER
		ACCOUNT SERVICE ROLE AUTH SSH DEPLOY LICENSE LICENCE FERNET HMAC WEBHOOK SESSION COOKIE COOKIES JWT JWK JWE TOKEN SHARED STORAGE ADMIN ROOT
		SERVER VAULT TOTP SETUP SALT SIG UNSEAL SUBSCRIPTION RECOVERY DETERMINISTIC PREVIOUS OPENSSL CREDS AES INGEST INGESTION INTEGRATION SAS OAUTH PRESHARED PSK RSA GPG STREAM TRANSIT`)
	// publicKeys are told to everybody, or are no keys of a lock.
	publicKeys = set(`PUBLIC PUBLISHABLE PUB SITE PARTITION SORT FOREIGN CACHE UNIQUE SURROGATE HOT SHORTCUT IDEMPOTENCY INSTRUMENTATION`)
	// strongWords make a name clear wherever they stand, but before an aspect.
	strongWords = set(`PASSWORD PASSWD PASSPHRASE APIKEY SECRETKEY ACCESSKEY PRIVATEKEY`)
	// weakWords may: SECRET_SANTA, TOKEN_RING.
	weakWords = set(`SECRET SECRETS TOKEN CREDENTIAL CREDENTIALS PASS PWD PW`)
	// qualifiers follow the word that counts: DB_PASSWORD_PROD, SECRET_KEY_BASE.
	qualifiers = set(`PROD PRODUCTION STAGING STAGE DEV DEVELOPMENT TEST TESTING LIVE SANDBOX LOCAL OLD NEW PREVIOUS PREV CURRENT NEXT PRIMARY SECONDARY
		MAIN BACKUP FALLBACK FALLBACKS DEFAULT V A B BASE PEM JSON RO RW READ WRITE READONLY ADMIN ROOT EU US ENCODED RAW PLAIN VALUE STRING TEXT CONTENT
		CONTENTS HASH HASHED APP API WEB SHARED ONE TWO`)
	// aspects end the name of something about a secret, which is none itself.
	aspects = set(`ID IDS NAME NAMES USERNAME USER USERS LOGIN FILE FILES FILENAME PATH PATHS DIR FOLDER TTL EXPIRY EXPIRE EXPIRES EXPIRATION LIFETIME AGE
		LENGTH LEN SIZE TIMEOUT HEADER ALGORITHM ALGORITHMS ALG ALGO ISSUER AUDIENCE ENDPOINT ENDPOINTS URI URIS URL URLS HOST HOSTS HOSTNAME PORT ARN REGION
		TYPE VERSION SECONDS MINUTES HOURS DAYS MS LIMIT LIMITS COUNT PREFIX SUFFIX FIELD FIELDS FORMAT POLICY POLICIES METHOD METHODS MODE PROVIDER PROVIDERS
		MANAGER BACKEND BACKENDS CLASS STORE LOCATION ALIAS ROUNDS ITERATIONS TEMPLATE ENABLED DISABLED REQUIRED SERIALIZER DESERIALIZER SCOPE SCOPES EMAIL
		SOCK CMD COMMAND HASHER HASHERS VALIDATOR VALIDATORS VALIDATION FINGERPRINT DOMAIN RESET CHANGE GENERATOR STRENGTH CHECK CHECKER ENCODER REGEX PATTERN
		HINT PROMPT ROTATION HELPER AUTHENTICATION COMPLEXITY HISTORY REUSE CHARS CHARSET ALPHABET FLOW PAGE FORM ATTEMPTS RETRIES COLUMN COLUMNS LABEL DESCRIPTION
		TITLE BUCKET MAP IN ATTRIBUTE CLAIM SAMESITE SERVER SERVERS CONFIG SETTINGS MIN MAX NAMESPACE KIND INDEX TABLE STRATEGY INTERVAL PERIOD GRACE LEEWAY
		DATE BROKER RULES FROM SOURCE ACTION SUBNET SUBNETS SHA COMMIT DIGEST CHECKSUM SUM UUID GUID SID ETAG TAG IMAGE MODEL BRANCH REVISION ORGANIZATION ORG TENANT PROJECT CLIENT
		WORKSPACE CLUSTER DATABASE SCHEMA QUEUE TOPIC CHANNEL EXPIRED REALM ORIGIN ORIGINS TAGS IMAGES MODELS LOCALE`)
	// captions begin the name of a text for people: LABEL_PASSWORD.
	captions = set(`LABEL TOOLTIP PLACEHOLDER BUTTON CAPTION`)
	// identifiers are aspects whose values are long and random, and known to all.
	// HASH is one where no secret's word stands before it.
	identifiers = set(`ID IDS UUID GUID SID ETAG SHA COMMIT HASH DIGEST CHECKSUM SUM FINGERPRINT ARN TAG REVISION VERSION IMAGE BUCKET HOST HOSTNAME ORGANIZATION
		ORG TENANT PROJECT CLIENT ACCOUNT WORKSPACE CLUSTER NAME USER USERNAME MODEL PATH FILE DIR REGION CERT CERTIFICATE HOSTS REF BRANCH RELEASE BUILD SOURCE`)
	// browserPrefixes begin the names of what a build tool writes into pages.
	browserPrefixes = []string{"NEXT_PUBLIC_", "VITE_", "REACT_APP_", "EXPO_PUBLIC_", "NUXT_PUBLIC_", "GATSBY_", "PUBLIC_"}
	// glued ends are found in words without bounds: PGPASSWORD, AUTHTOKEN.
	gluedEnds = []string{"PASSWORD", "PASSPHRASE", "PASSWD", "CREDENTIALS", "CREDENTIAL", "SECRETKEY", "ACCESSKEY", "PRIVATEKEY", "PUBLICKEY", "APIKEY",
		"ENCRYPTIONKEY", "SIGNINGKEY", "LICENSEKEY", "MASTERKEY", "SESSIONKEY", "ACCOUNTKEY", "AUTHKEY", "PASSWORT", "KENNWORT", "PASSWRD", "PSWD", "SECRET", "TOKEN", "CREDS", "PASS", "PWD", "PW"}
	// unglued are words of their own with such an end.
	unglued = set(`COMPASS BYPASS TRESPASS SURPASS ENCOMPASS OVERPASS UNDERPASS REQUIREPASS OLDPWD`)
)

// parseName takes a name apart at underscores, dots, changes of case and
// digits, and says what it means.
func parseName(s string) name {
	n := name{words: words(s)}
	n.class, n.word = classOf(n.words)
	upper := strings.ToUpper(s)
	switch {
	case strings.HasPrefix(upper, "DBT_ENV_SECRET_"), strings.HasPrefix(upper, "TF_TOKEN_"):
		// Source: docs.getdbt.com/docs/build/environment-variables, developer.hashicorp.com/terraform/cli/config/config-file
		n.class, n.word = nameSecret, "SECRET"
	case upper == "VAULT_DEV_ROOT_TOKEN_ID":
		n.class, n.word = nameSecret, "TOKEN" // Source: developer.hashicorp.com/vault/docs/commands/server
	case upper == "PWD", upper == "OLDPWD", upper == "INIT_PWD":
		n.class = namePublic // the shell's
	case upper == "GOOGLE_APPLICATION_CREDENTIALS":
		n.class = namePublic // a path. Source: cloud.google.com/docs/authentication/application-default-credentials
	case forBrowser(s) && (n.class == nameMaybe || n.class == nameSecret && !strings.HasPrefix(n.word, "PASS") && !strings.HasPrefix(n.word, "SECRET") && !strings.HasPrefix(n.word, "PRIV")):
		n.class = namePublic
	}
	return n
}

// forBrowser says whether a build tool writes the variable into pages.
func forBrowser(s string) bool {
	upper := strings.ToUpper(s)
	return slices.ContainsFunc(browserPrefixes, func(p string) bool { return strings.HasPrefix(upper, p) })
}

// identifier says whether long random values of that name are known to all.
func (n name) identifier() bool {
	return n.class == namePublic || len(n.words) > 0 && identifiers[n.words[len(n.words)-1]]
}

func (n name) has(word string) bool { return slices.Contains(n.words, word) }

func classOf(w []string) (nameClass, string) {
	// SECRET_ID is the secret half of an AppRole, but of a secrets manager a name.
	if len(w) >= 2 && w[len(w)-2] == "SECRET" && w[len(w)-1] == "ID" {
		if (slices.Contains(w, "VAULT") && !slices.Contains(w, "KEY")) || slices.Contains(w, "APPROLE") || slices.Contains(w, "BAO") {
			return nameSecret, "SECRET_ID"
		}
		return nameMaybe, "SECRET_ID"
	}
	if n := len(w); n >= 3 && w[n-1] == "ID" && w[n-2] == "KEY" && w[n-3] == "ACCESS" {
		return nameSecret, "ACCESS_KEY_ID"
	}
	if len(w) == 0 {
		return nameUnclear, ""
	}
	if captions[w[0]] && len(w) > 1 {
		return namePublic, ""
	}
	if c, word := headOf(w); c != nameUnclear {
		return c, word
	}
	if slices.Contains(w, "BASIC") && slices.Contains(w, "AUTH") {
		switch w[len(w)-1] {
		case "INFO":
			return nameSecret, "AUTH" // basic.auth.user.info. Source: docs.confluent.io
		case "USERS":
			return nameMaybe, "AUTH" // user:password, or user:hash. Source: doc.traefik.io/traefik/middlewares/http/basicauth
		}
	}
	if aspects[w[len(w)-1]] {
		for _, x := range w {
			if strongWords[x] || weakWords[x] || x == "KEY" || x == "KEYS" || x == "TOKENS" {
				return namePublic, ""
			}
		}
		return nameUnclear, ""
	}
	for end := len(w) - 1; end >= 1; end-- {
		if !qualifiers[w[end]] {
			break
		}
		if c, word := headOf(w[:end]); c != nameUnclear {
			return c, word
		}
	}
	for i, x := range w[:len(w)-1] {
		if strongWords[x] || x == "KEY" && i > 0 && keyOf[w[i-1]] && w[i-1] != "APP" {
			return nameSecret, x
		}
	}
	for _, x := range w[:len(w)-1] {
		if weakWords[x] {
			return nameMaybe, x
		}
	}
	return nameUnclear, ""
}

// headOf goes by the last word: a name is a compound, and its end says what it
// is of.
func headOf(w []string) (nameClass, string) {
	last, before := w[len(w)-1], ""
	if len(w) > 1 {
		before = w[len(w)-2]
	}
	switch last {
	case "KEY", "KEYS":
		switch {
		case publicKeys[before]:
			return namePublic, ""
		case before == "TOKEN" && len(w) > 2 && w[len(w)-3] == "PUBLIC":
			return namePublic, ""
		case keyOf[before]:
			return nameSecret, before + "_KEY"
		}
		for i := len(w) - 2; i > 0 && qualifiers[w[i]]; i-- { // ENCRYPTION_SECONDARY_KEY
			if keyOf[w[i-1]] {
				return nameSecret, w[i-1] + "_KEY"
			}
		}
		return nameMaybe, "KEY"
	case "TOKENS":
		if slices.ContainsFunc(w, func(x string) bool {
			return x == "API" || x == "ACCESS" || x == "AUTH" || x == "BOT" || x == "REFRESH" || x == "BEARER"
		}) {
			return nameSecret, "TOKENS"
		}
		return nameMaybe, "TOKENS"
	case "TOKEN":
		if before == "PUBLIC" || before == "KEY" && len(w) > 2 && w[len(w)-3] == "PUBLIC" { // that of a .NET assembly
			return namePublic, ""
		}
	case "AUTH":
		if before == "REDIS" || before == "REDISCLI" || before == "VALKEY" || before == "BASIC" || before == "J" { // NEO4J_AUTH
			return nameSecret, "AUTH"
		}
		return nameMaybe, "AUTH"
	case "CODE", "PHRASE", "WORD", "WORDS":
		if before == "PIN" && last == "CODE" {
			return nameMaybe, before
		}
		if before == "PASS" || (before == "SEED" || before == "MNEMONIC" || before == "RECOVERY") && last != "CODE" || last == "CODE" && (before == "AUTH" || before == "ACCESS") {
			return nameSecret, last
		}
	case "PIN":
		return nameMaybe, last
	case "COOKIE", "IV", "JWT", "SEED", "BEARER", "SIG", "SIGNATURE", "OTP", "NONCE":
		return nameMaybe, last
	}
	if secretHeads[last] {
		return nameSecret, last
	}
	return nameUnclear, ""
}

// words of a name, in capitals. Digits bound words and are left out.
func words(s string) []string {
	var out []string
	var word []rune
	flush := func() {
		if len(word) > 0 {
			out = append(out, unglue(strings.ToUpper(string(word)))...)
			word = word[:0]
		}
	}
	runes := []rune(s)
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r):
			flush()
			continue
		case unicode.IsUpper(r) && i > 0 && unicode.IsLower(runes[i-1]):
			flush() // fooBar
		case unicode.IsUpper(r) && i > 0 && unicode.IsUpper(runes[i-1]) && i+1 < len(runes) && unicode.IsLower(runes[i+1]):
			flush() // DBPassword
		}
		word = append(word, r)
	}
	flush()
	return out
}

// unglue takes a secret's word off the end of a word without bounds.
func unglue(word string) []string {
	if unglued[word] || secretHeads[word] {
		return []string{word}
	}
	for _, end := range []string{"FILE", "PATH"} {
		if begin, ok := strings.CutSuffix(word, end); ok && len(begin) >= 3 {
			if b := unglue(begin); len(b) > 1 || secretHeads[begin] || begin == "KEY" || begin == "CERT" {
				return append(b, end)
			}
		}
	}
	for _, end := range gluedEnds {
		begin, ok := strings.CutSuffix(word, end)
		if !ok || len(begin) == 1 {
			continue
		}
		var out []string
		if begin != "" {
			out = unglue(begin)
		}
		if b, ok := strings.CutSuffix(end, "KEY"); ok {
			return append(out, b, "KEY")
		}
		return append(out, end)
	}
	return []string{word}
}

var (
	// switches are values of settings, whatever these are called.
	switches  = regexp.MustCompile(`(?i)^(?:true|false|yes|no|on|off|enabled?|disabled?)$`)
	nothing   = regexp.MustCompile(`(?i)^(?:none|null|nil|undefined|n/a|unset|empty|\{\}|\[\]|""|''|\?)$`)
	crossed   = regexp.MustCompile(`^(?:[A-Za-z0-9_-]{0,20}?)(?:[xX]{4,}|\*{3,}|\.{3,}|…+|_{3,}|\?{3,}|-{3,}|#{3,})$`)
	reference = regexp.MustCompile(`^(?:\$\{[^{}]*\}|\$\([^()]*\)|\$\$?[A-Z_][A-Z0-9_]+|\$\$\{[^{}]*\}|\$\{\{.*\}\}|\{\{.*\}\}|%[A-Z_]+%|%\([A-Za-z_]+\)s|<[^<>]*>|\[[A-Za-z _-]+\]|\{[A-Za-z_0-9.!]*\}|%[sdvrq]|\$\.[A-Za-z_]+(?:[.\[][A-Za-z_0-9\]*]+)*|__[A-Z_]+__` +
		`|@Microsoft\.KeyVault\(.*\)|ENC\[.*\]|ENC\(.*\)|encrypted:[A-Za-z0-9+/=]{40,}|(?:op|ref\+[a-z0-9]+|sm|gcp-sm|awssm|secretsmanager|azkv)://.*|vault:[A-Za-z0-9/_.-]+#[A-Za-z0-9_.-]+|arn:aws[a-z-]*:(?:secretsmanager|ssm):.*|projects/[^/\s]+/secrets/\S+|https://[a-z0-9-]+\.vault\.(?:azure\.net|azure\.cn|usgovcloudapi\.net)/secrets/\S+)$`)
	// scheme begins the value of a header.
	scheme     = regexp.MustCompile(`^(?i:bearer|basic|token)\s+`)
	documented = regexp.MustCompile(`EXAMPLE(?:KEY)?$`)

	// asks begin or end a sentence that asks for a value.
	asks = set(`YOUR CHANGE CHANGEME REPLACE REPLACEME INSERT ENTER FILL SET GET PUT ADD PASTE GENERATE PROVIDE PROVIDED HERE TODO TBD FIXME PLACEHOLDER EXAMPLE
		SAMPLE DUMMY FAKE REDACTED XXX`)
	// asked is what else such a sentence has.
	asked = set(`A AN THE ME THIS IT IN WITH FROM OF TO FOR BE AND OR AT LEAST MIN MUST LONG LONGER SUPER VERY STRONG SECURE RANDOM RANDOMLY GENERATED NEW OWN REAL
		SOME UNIQUE ABOVE BELOW CHARACTER CHARACTERS CHARS CHAR BIT BYTES BYTE STRING VALUE PASSWORD PASS PASSWD SECRET KEY TOKEN API ACCESS ID CLIENT APP USER
		ENCRYPTION JWT PRODUCTION PROD DEV LOCAL DB DATABASE PLEASE IS AS`)
)

// placeholder says why a value stands for one that is still to come; "" if it
// may well be one. A name's own words are no part of a secret.
func placeholder(n name, value string) string {
	v := scheme.ReplaceAllString(strings.TrimSpace(value), "")
	switch {
	case v == "":
		return "is empty"
	case switches.MatchString(v):
		return "is a switch"
	case nothing.MatchString(v), crossed.MatchString(v), documented.MatchString(v):
		return "is a placeholder"
	case reference.MatchString(v):
		return "is a reference"
	}
	w := strings.FieldsFunc(v, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if len(w) == 1 && strings.IndexFunc(v, func(r rune) bool { return !unicode.IsLetter(r) }) < 0 && strings.ToUpper(v) != v {
		w = words(v) // YourSecretKey
	}
	asking := false
	for _, x := range w {
		numbered := strings.ToUpper(x)
		x = strings.TrimRight(numbered, "0123456789")
		if x == "" {
			continue
		}
		switch {
		case asks[x] && len(w) == 1 && x != numbered:
			return "" // changeme7 is a password
		case asks[x]:
			asking = true
		case asked[x], n.has(x), crossed.MatchString(x):
		default:
			return ""
		}
	}
	if asking {
		return "is a placeholder"
	}
	return ""
}
