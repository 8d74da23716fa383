package mask

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	for name, tc := range map[string]struct{ in, out string }{
		"a path":          {`open "/var/lib/strongroom/snapshot/taken.json": no such file`, `open "/var/lib/strongroom/snapshot/taken.json": no such file`},
		"a snapshot":      {"taken 20261124T151500Z-1a2b3c4d in dir:/mnt/backup", "taken 20261124T151500Z-1a2b3c4d in dir:/mnt/backup"},
		"a plain error":   {"Code: 403. Errors: permission denied", "Code: 403. Errors: permission denied"},
		"Vault token":     {"with hvs.CAESIJ_x-y now", "with *** now"},
		"old token":       {"with s.abcdefghijklmnopqrstuvwx", "with ***"},
		"batch token":     {"hvb.AAAAAQ", "***"},
		"age identity":    {"got AGE-SECRET-KEY-1QQPQYQ", "got ***"},
		"secret id":       {"id 6f1f8a4e-0b1c-4d9e-8a33-aaaaaaaaaaaa refused", "id *** refused"},
		"user in URL":     {"postgres://vault:pw@db/x", "postgres://***@db/x"},
		"query":           {"GET https://s3.example.com/b?X-Amz-Signature=abc: 403", "GET https://s3.example.com/b?*** 403"},
		"bearer":          {"Authorization: Bearer abc", "Authorization: *** ***"},
		"password":        {`password="hunter2" for me`, `password="***" for me`},
		"API key":         {"api_key: abc,", "api_key: ***,"},
		"JWT":             {"eyJhbGciOi.eyJzdWIiOi.sig", "***"},
		"base64":          {"key wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1x=", "key ***"},
		"hex":             {"0123456789abcdef0123456789abcdef", "***"},
		"private key":     {"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----", "***"},
		"escape sequence": {"a\x1b[31mred", "a [31mred"},
		"known":           {"it said xyzzy!", "it said ***!"},
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
