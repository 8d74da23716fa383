package migrate_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// row is one line of testdata/classifier.
type row struct {
	file, source, name, format, part string
	template, value                  string // as written, and with its parts made
	secret                           bool
	line                             int
}

// unseen rows, a third (of the second table: half) drawn by a hash of the row,
// are only counted: whoever works on the classifier does not look at which of
// them it gets wrong.
func (r row) unseen() bool {
	sum := sha256.Sum256(fmt.Appendf(nil, "%t|%s|%s|%s|%s", r.secret, r.source, r.name, r.format, r.template))
	if strings.HasSuffix(r.file, "2.txt") {
		return sum[8]%2 == 0
	}
	return binary.BigEndian.Uint64(sum[:8])%3 == 0
}

var templatePart = regexp.MustCompile(`\{(hex|b64|b64url|alnum|upper|lower|digits|b32):(\d+)\}|\{uuid\}`)

// expand makes the random parts of a value, always the same ones for a row. No
// value of the table is anybody's, and none stands in the repository.
func expand(seed, template string) string {
	sum := sha256.Sum256([]byte(seed + "|" + template))
	r := rand.New(rand.NewPCG(binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16])))
	const lower, upper, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	alphabets := map[string]string{
		"hex": digits + "abcdef", "lower": lower, "upper": upper, "digits": digits, "alnum": lower + upper + digits,
		"b64": lower + upper + digits + "+/", "b64url": lower + upper + digits + "-_", "b32": upper + "234567",
	}
	draw := func(alphabet string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		return string(b)
	}
	out := templatePart.ReplaceAllStringFunc(template, func(part string) string {
		m := templatePart.FindStringSubmatch(part)
		if m[1] == "" {
			h := func(n int) string { return draw(alphabets["hex"], n) }
			return h(8) + "-" + h(4) + "-4" + h(3) + "-a" + h(3) + "-" + h(12)
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			panic(err)
		}
		return draw(alphabets[m[1]], n)
	})
	return out
}

func classifierTable(t *testing.T) []row {
	t.Helper()
	var rows []row
	for file, secret := range map[string]bool{"secrets.txt": true, "plain.txt": false, "secrets2.txt": true, "plain2.txt": false} {
		data, err := os.ReadFile(filepath.Join("testdata", "classifier", file))
		if err != nil {
			t.Fatal(err)
		}
		source, n := "", 0
		for raw := range bytes.Lines(data) {
			n++
			line := strings.TrimSuffix(string(raw), "\n")
			switch {
			case strings.HasPrefix(line, "#") || line == "":
				continue
			case strings.HasPrefix(line, "@ "):
				id, text, ok := strings.Cut(line[2:], " | ")
				if !ok || text == "" {
					t.Fatalf("%s:%d: a source without a place", file, n)
				}
				source = id
				continue
			}
			f := strings.SplitN(line, " | ", 4)
			if len(f) != 4 || source == "" {
				t.Fatalf("%s:%d: not name | format | part | value below a source", file, n)
			}
			r := row{file: file, source: source, name: f[0], format: f[1], part: f[2], template: f[3], secret: secret, line: n}
			r.value = expand(r.name, r.template)
			if r.format == "pem" {
				r.value = strings.ReplaceAll(r.value, `\n`, "\n")
			}
			rows = append(rows, r)
		}
	}
	return rows
}

// The table is large, drawn from what is documented, and says nothing twice.
func TestClassifierTableForm(t *testing.T) {
	counts, seen := map[string]int{}, map[string]bool{}
	for _, r := range classifierTable(t) {
		key := fmt.Sprintf("%t %s %s %s", r.secret, r.source, r.name, r.template)
		if seen[key] {
			t.Errorf("twice: %s", key)
		}
		seen[key] = true
		counts[fmt.Sprintf("secret=%t", r.secret)]++
		counts[fmt.Sprintf("secret=%t unseen=%t", r.secret, r.unseen())]++
		if r.secret {
			counts[r.source]++
		}
	}
	for _, kind := range []string{"secret=true", "secret=false"} {
		if counts[kind] < 300 || counts[kind+" unseen=true"] < counts[kind]/4 {
			t.Errorf("%s: %d rows, %d of them unseen", kind, counts[kind], counts[kind+" unseen=true"])
		}
	}
	for _, source := range []string{"libpq", "django", "airflow", "dbt", "aws"} {
		if counts[source] < 10 {
			t.Errorf("%s: only %d rows", source, counts[source])
		}
	}
}

// How many secrets are found and how many others are taken for secrets, in the
// part of the table that is tuned with and in the part that is not.
func TestClassifierTable(t *testing.T) {
	c, err := migrate.NewClassifier()
	if err != nil {
		t.Fatal(err)
	}
	type count struct{ rows, right int }
	counts := map[string]*count{}
	documented := set("libpq", "django", "airflow", "dbt", "aws")
	for _, r := range classifierTable(t) {
		key := fmt.Sprintf("secret=%t unseen=%t", r.secret, r.unseen())
		if counts[key] == nil {
			counts[key] = &count{}
		}
		counts[key].rows++
		j := c.Judge(r.name, r.value)
		right := (len(j.Secret) > 0) == r.secret
		if right {
			counts[key].right++
		}
		switch {
		case right || r.unseen() && !(r.secret && documented[r.source]):
		case r.unseen():
			t.Errorf("a secret of %s is missed, in the unseen third", r.source)
		default:
			t.Logf("secret=%t: %s | %s | %s (%s)", r.secret, r.name, r.format, r.template, j.Placeholder)
			if documented[r.source] && r.secret {
				t.Errorf("%s of %s is missed", r.name, r.source)
			}
		}
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "migrate.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, third := range []string{"false", "true"} {
		s, p := counts["secret=true unseen="+third], counts["secret=false unseen="+third]
		if s.right*100 < s.rows*97 || (p.rows-p.right)*100 >= p.rows*5 {
			t.Errorf("unseen=%s: at least 97 %% of the secrets must be found, and less than 5 %% of the others taken for secrets", third)
		}
		says := fmt.Sprintf("%d of %d secrets are found (%.1f %%), and %d of %d others are taken for secrets (%.1f %%)",
			s.right, s.rows, 100*float64(s.right)/float64(s.rows), p.rows-p.right, p.rows, 100*float64(p.rows-p.right)/float64(p.rows))
		if third == "true" && !bytes.Contains(page, []byte(says)) {
			t.Errorf("docs/migrate.md has other figures: %s", says)
		}
		t.Logf("unseen=%s: %s", third, says)
	}
}

func set(words ...string) map[string]bool {
	m := map[string]bool{}
	for _, w := range words {
		m[w] = true
	}
	return m
}

// No reason shows the value, nor a part of it.
func TestClassifierShowsNothing(t *testing.T) {
	c, err := migrate.NewClassifier()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range classifierTable(t) {
		j := c.Judge(r.name, r.value)
		said := strings.ToLower(fmt.Sprintf("%q %q %q %q", j.Secret, j.Rule, j.Parts, j.Placeholder))
		for _, made := range regexp.MustCompile(`[A-Za-z0-9+/_-]{8,}`).FindAllString(r.value, -1) {
			if !strings.Contains(r.template, made) && strings.Contains(said, strings.ToLower(made)) {
				t.Errorf("%s | %s: %s", r.name, r.template, said)
			}
		}
	}
}

// The parts of a composite value are named, each.
func TestClassifierParts(t *testing.T) {
	c, err := migrate.NewClassifier()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ value, want string }{
		{"postgres://u:p4ss@h/d", "password of the URL"},
		{"postgres://u:p%zz@h/d", "password of the URL"},
		{"postgres://u:pa/ss@h/d", "password of the URL"},
		{"postgres://u:pa#ss?x@h/d", "password of the URL"},
		{"postgres://u@h/d", ""},
		{"postgres://u:@h/d", ""},
		{"postgres://u:${PW}@h/d", ""},
		{"postgres://u:${PW:-p4ss}@h/d", "password of the URL"},
		{"postgres://u:<password>@h/d", ""},
		{"https://h/@user", ""},
		{"http://[::1]:80/@x", ""},
		{"redis://a:1@h,b", "password of the URL"},
		{"sentinel://:x1@a;sentinel://:x2@b", "password of the URL"},
		{"jdbc:postgresql://h/db?user=u&password=x1", "parameter password of the URL"},
		{"jdbc:oracle:thin:scott/tiger1@h:1521:x", "password of the URL"},
		{"jdbc:sqlserver://h:1433;user=u;password=x1;encrypt=true", "password of the connection string"},
		{"https://h/p?api_key=x1&page=2", "parameter api_key of the URL"},
		{"https://h/p?next=token&page=2", ""},
		{"u:p4ss@tcp(h:3306)/d", "password of the connection string"},
		{"u:p4ss@unix(/run/x.sock)/d", "password of the connection string"},
		{"u:p4ss@h:5432/d", "password of the connection string"},
		{"scott/tiger1@//h:1521/x", "password of the connection string"},
		{"git@github.com:acme/shop.git", ""},
		{"u:<password>@tcp(h:3306)/d", ""},
		{"https://" + strings.Repeat("0a1b2c3d", 4) + "@o1.ingest.example/42", ""}, // a Sentry DSN
		{"Server=db;User Id=u;Password=x1;", "password of the connection string"},
		{"Server=db;User Id=u;Pwd={a;b};", "pwd of the connection string"},
		{"Server=db;Trusted_Connection=True;", ""},
		{"AccountName=a;AccountKey=" + strings.Repeat("Ab1+", 20) + "==;EndpointSuffix=x", "account_key of the connection string"},
		{"Endpoint=sb://x/;SharedAccessKeyName=Root;SharedAccessKey=Zm9vYmFy", "access_key of the connection string"},
		{"host=db user=b password=x1", "password of the connection string"},
		{"host=db user=b password = 'x 1'", "password of the connection string"},
		{"host=db user=b password= dbname=x", ""},
		{"host=db user=b passfile=/root/.pgpass", ""},
		{"h:6380,password=x1,ssl=True", "password of the connection string"},
		{`{"conn_type":"postgres","password":"x1"}`, "JSON: password"},
		{`{"a":{"b":[{"token":"x1"}]},"url":"amqp://u:p4@h"}`, "JSON: token|password of the URL"},
		{`{"password":"${PW}"}`, ""},
		{`{"password":8712}`, "JSON: password"},
		{`{"max_tokens":8712}`, ""},
		{`{'password': 'x1'}`, "password of the connection string"},
		{"eyJwYXNzd29yZCI6Imh1bnRlcjIifQ==", "JSON: password"},
		{"mysqldump -u root --password=x1 db", "password of the connection string"},
		{"curl -u admin:x1 https://h", "option --user"},
		{"redis-server --requirepass x1", "option --requirepass"},
		{"redis-server --appendonly yes", ""},
		{"Bearer abcdef0123456789", "credential of the header"},
	} {
		got := c.Judge("SETTING", tt.value).Parts
		want := strings.FieldsFunc(tt.want, func(r rune) bool { return r == '|' })
		if len(got) != len(want) {
			t.Errorf("%s: %q, want %q", tt.value, got, want)
			continue
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: %q, want %q", tt.value, got, want)
			}
		}
	}
}

// What a value looks like does not overrule a clear name, and no name is plain
// for its bounds.
func TestClassifierNames(t *testing.T) {
	c, err := migrate.NewClassifier()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(`PGPASSWORD DBPASSWORD dbPassword AUTHTOKEN SECRETKEY db.password DB_PW REDIS_AUTH VAULT_SECRET_ID
		db-password DB.PASSWORD dbpass DBPASS smtpPass MYSQLPASSWORD ROOTPW userpw adminPwd apitoken accesstoken Apikey PRIVATEKEY clientsecret
		OAUTH2SECRET S3SECRET DB1PASSWORD password2 TOKEN_V2 DB_PASSWORD_PROD API_KEY_1 SECRET_KEY_BASE encryptionKey app.jwt.signing-key
		SEED_PHRASE pass_phrase PASS_CODE ACCESSKEYSECRET HTPASSWD PRESHARED_KEY MYSQL_ROOT_PW jwtsecret Jwt__Secret userPassphrase ldapBindPw HTTP_PASSWD MyAppSecret2 X-Api-Key x_auth_token TF_VAR_db_password DB_PASSWORD_ANALYTICS`) {
		for _, value := range []string{"/Xq8zr2Lw0Xv6Kt9", "TrueGrit-2024!", "is-not-null", "your-horse-is-blue-77", "8712", "null-and-void", "trueblue", "none-of-this", "hunter2",
			"./relative", `C:\dir`, "https://x.example/y", "${unbalanced", "a", "password", "false-friend", "changeover", "example.org", "yes-sir", "10s", "/etc/passwd"} {
			if j := c.Judge(name, value); len(j.Secret) == 0 {
				t.Errorf("%s=%s is plain (%s)", name, value, j.Placeholder)
			}
		}
		for _, value := range []string{"changeme", "change-me", "your-password-here", "<secret>", "xxxxxxxx", "${OTHER}", "true", "null", "TODO", "REPLACE_ME", "{{ .Values.x }}", "***", "YourSecretHere"} {
			if j := c.Judge(name, value); len(j.Secret) > 0 || j.Placeholder == "" {
				t.Errorf("%s=%s: %q, %q, want a placeholder", name, value, j.Secret, j.Placeholder)
			}
		}
	}
	for _, tt := range [][2]string{{"SIM_PIN", "8712"}, {"PIN_CODE", "8712"}, {"PREFECT_API_AUTH_STRING", "admin:hunter22"}, {"HTTP_BASIC_AUTH_USERS", "a:hunter22,b:x1"}, {"DB_PASSWORD", "changeme7"}, {"RECOVERY_PHRASE", "blue horse"}, {"dbpasswort", "hunter22"},
		{"VITE_SECRET_KEY", "hunter22"}, {"JAVA_OPTS", "-Xmx1g -Djavax.net.ssl.keyStorePassword=hunter22"},
		{"DOCKER_AUTH_CONFIG", `{"auths":{"r.example":{"auth":"dTpodW50ZXIyMg=="}}}`}} {
		if j := c.Judge(tt[0], tt[1]); len(j.Secret) == 0 {
			t.Errorf("%s=%s is plain", tt[0], tt[1])
		}
	}
	for _, tt := range [][2]string{
		{"MAX_TOKENS", "128000"}, {"max_tokens", "4096"}, {"PRIVATE_SUBNETS", "10.0.1.0/24,10.0.2.0/24"}, {"S3_KEY", "path/x.csv"}, {"GIT_SHA", strings.Repeat("0a1b2c3d4e", 4)},
		{"DB_HOST", "shop.c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com"}, {"NODE_OPTIONS", "--max-old-space-size=4096"}, {"TOKEN_TTL", "3600"}, {"maxTokens", "1"}, {"PASSWORD_MIN_LENGTH", "8"},
		{"COMPASS_HOST", "h"}, {"BYPASS", "yes"}, {"MONKEY", "banana"}, {"DONKEY_KONG", "1"}, {"KEYBOARD", "us"}, {"TOKENIZER", "cl100k_base"}, {"keyspace", "x"}, {"secretName", "prod/db"},
		{"KEY_FILE", "/etc/key.pem"}, {"DB_PASSWORD_FILE", "/run/secrets/db"}, {"CI_COMMIT_SHA", strings.Repeat("0a1b2c3d4e", 4)}, {"TENANT_ID", "3f2b8c1d-0e4a-4b6c-9d8e-7f6a5b4c3d2e"},
		{"IMAGE", "ghcr.io/company/shop@sha256:" + strings.Repeat("0a1b2c3d", 8)}, {"SSH_KEY", "~/.ssh/id_ed25519"}, {"PRIVATE_KEY", "/etc/ssl/private/app.key"}, {"partitionKey", "orderId0123456789ab"},
		{"LED_PIN", "13"}, {"MAPBOX_PUBLIC_TOKEN", "pk.q8Zr2Lw0Xv6Kt9Bn3Yc1"}, {"STRIPE_PK", "pk_" + "live_q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4P"}, {"ASSET_HASH", strings.Repeat("0a1b2c3d", 4)},
		{"VITE_FIREBASE_API_KEY", "AI" + "zaSyq8Zr2Lw0Xv6Kt9Bn3Yc1Dm4Pq8Zr2Lw0"}, {"NEXT_PUBLIC_SUPABASE_ANON_KEY", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJyb2xlIjoiYW5vbiJ9.q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4Pq8Zr2Lw0Xv6Kt9Bn3Yc"},
		{"LABEL_PASSWORD", "Passwort"}, {"TOKEN_ISSUED_DATE", "2024-06-11"}, {"STRIPE_PRICE", "price_1q8Zr2Lw0Xv6Kt9Bn3Yc1Dm4"}, {"SECURITY_GROUP", "sg-0a1b2c3d4e5f60718"},
		{"PWD", "/srv/app"}, {"SMTP_AUTH", "login"}, {"spring.mail.properties.mail.smtp.auth", "true"}, {"LOG_FILTER", "db=info,auth=debug,http=warn"},
	} {
		if j := c.Judge(tt[0], tt[1]); len(j.Secret) > 0 || j.Placeholder != "" && tt[0] != "x" {
			t.Errorf("%s=%s: %q %q, want plain", tt[0], tt[1], j.Secret, j.Placeholder)
		}
	}
}

func FuzzJudge(f *testing.F) {
	c, err := migrate.NewClassifier()
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range []string{"postgres://u:p@h/d?x=y", `{"password":"x"}`, "a=b;Password='x", "--x y -u a:b", "eyJhIjoxfQ==", "${A:-${B}}", "LS0tLS1CRUdJTi", "://", "{", "k={{x}}y};"} {
		f.Add("DB_PASSWORD", v)
		f.Add("X", v)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		j := c.Judge(name, value)
		if (len(j.Secret) > 0) != (j.Rule != "") || len(j.Secret) > 0 && j.Placeholder != "" {
			t.Errorf("%q %q: %+v", name, value, j)
		}
	})
}
