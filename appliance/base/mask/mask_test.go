package mask

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	for name, tc := range map[string]struct{ in, out string }{
		"a path":                 {`open "/var/lib/strongroom/snapshot/taken.json": no such file`, `open "/var/lib/strongroom/snapshot/taken.json": no such file`},
		"a snapshot":             {"taken 20261124T151500Z-1a2b3c4d in dir:/mnt/backup", "taken 20261124T151500Z-1a2b3c4d in dir:/mnt/backup"},
		"a plain error":          {"Code: 403. Errors: permission denied", "Code: 403. Errors: permission denied"},
		"Vault token":            {"with hvs.CAESIJ_x-y now", "with *** now"},
		"old token":              {"with s.abcdefghijklmnopqrstuvwx", "with ***"},
		"batch token":            {"hvb.AAAAAQ", "***"},
		"age identity":           {"got AGE-SECRET-KEY-1QQPQYQ", "got ***"},
		"secret id":              {"id 6f1f8a4e-0b1c-4d9e-8a33-aaaaaaaaaaaa refused", "id *** refused"},
		"user in URL":            {"postgres://vault:pw@db/x", "postgres://***@db/x"},
		"query":                  {"GET https://s3.example.com/b?X-Amz-Signature=abc: 403", "GET https://s3.example.com/b?*** 403"},
		"bearer":                 {"Authorization: Bearer abc", "Authorization: *** ***"},
		"password":               {`password="hunter2" for me`, `password="***" for me`},
		"our own name":           {"secret_key = wJalr", "secret_key = ***"},
		"its other forms":        {"SECRET-KEY=abc secretkey: abc secret_access_key=abc, mac_key: abc", "SECRET-KEY=*** secretkey: *** secret_access_key=***, mac_key: ***"},
		"two words":              {`password="two words" for me`, `password="***" for me`},
		"two words, other marks": {`password='two words' for me`, `password='***' for me`},
		"a mark inside":          {`password="it \"is\" so" for me`, `password="***" for me`},
		"never ended":            {`password="two words`, `password="***`},
		"JSON in JSON":           {`{"e":"{\"password\": \"two words\"}"}`, `{"e":"{\"password\": \"***\"}"}`},
		"password with a slash":  {"postgres://u:p@ss/w@h:5432/x", "postgres://***@h:5432/x"},
		"password with marks":    {"dial postgres://u:a?b#c@h/x failed", "dial postgres://***@h/x failed"},
		"SQL":                    {`ALTER ROLE "x" PASSWORD 'two words; it''s' VALID`, `ALTER ROLE "x" PASSWORD '***' VALID`},
		"SQL of MySQL":           {`CREATE USER x IDENTIFIED BY 'two words'`, `CREATE USER x IDENTIFIED BY '***'`},
		"SQL with dollars":       {`PASSWORD $$two words$$ VALID`, `PASSWORD $$***$$ VALID`},
		"an address with a port": {"Get https://vault.example.com:8200/v1/sys/health: EOF", "Get https://vault.example.com:8200/v1/sys/health: EOF"},
		"API key":                {"api_key: abc,", "api_key: ***,"},
		"JWT":                    {"eyJhbGciOi.eyJzdWIiOi.sig", "***"},
		"base64":                 {"key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1x=", "key ***"},
		"hex":                    {"0123456789abcdef0123456789abcdef", "***"},
		"private key":            {"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----", "***"},
		"escape sequence":        {"a\x1b[31mred", "a [31mred"},
		"known":                  {"it said xyzzy!", "it said ***!"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Text(tc.in, "xyzzy\n", "", "a"); got != tc.out {
				t.Errorf("%q, want %q", got, tc.out)
			}
		})
	}
}

func FuzzText(f *testing.F) {
	f.Add("password: hvs.x", "hunter2hunter2")
	f.Add("\xff\x00", "----")
	f.Fuzz(func(t *testing.T, s, secret string) {
		k := strings.TrimSpace(secret)
		// What masking itself writes may spell these.
		if len(k) < 4 || strings.ContainsAny(k, "* ?") || strings.ToValidUTF8(k, "?") != k {
			return
		}
		if out := Text(s+k+s, secret); strings.Contains(out, k) {
			t.Errorf("%q shows %q", out, k)
		}
	})
}
