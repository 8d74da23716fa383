package alert

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func none(context.Context, time.Duration) error { return nil }

func TestWebhook(t *testing.T) {
	const path = "/services/T0/" + canary
	for name, tc := range map[string]struct {
		answers []int
		calls   int
		told    int
		says    string
	}{
		"taken":             {[]int{200}, 1, 1, ""},
		"no content":        {[]int{204}, 1, 1, ""},
		"busy, then taken":  {[]int{500, 503, 429, 200}, 4, 1, ""},
		"never":             {[]int{500, 500, 500, 500, 500, 500}, 5, 0, "500"},
		"gone for good":     {[]int{404}, 1, 0, "404"},
		"sent somewhere":    {[]int{302}, 1, 0, "302"},
		"request timed out": {[]int{408, 200}, 2, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var bodies []Body
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var b Body
				if err := json.NewDecoder(r.Body).Decode(&b); err != nil || r.Method != http.MethodPost || r.URL.Path != path {
					t.Errorf("%s %s: %v", r.Method, r.URL, err)
				}
				bodies = append(bodies, b)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tc.answers[len(bodies)-1])
			}))
			defer srv.Close()
			hook, err := NewWebhook(srv.URL + path + "\n")
			if err != nil {
				t.Fatal(err)
			}
			told, err := Send(t.Context(), event, []Channel{hook}, none)
			if told != tc.told || len(bodies) != tc.calls || (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("told %d, %d calls, %v", told, len(bodies), err)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("shows the URL: %v", err)
			}
			if b := bodies[0]; b.Unit != event.Unit || b.Result != "exit-code" || b.Event != Name || !strings.Contains(b.Text, "the bucket is full") {
				t.Errorf("body %+v", b)
			}
		})
	}
}

func TestWebhookIsDown(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	url := srv.URL
	srv.Close()
	hook, err := NewWebhook(url + "/" + canary)
	if err != nil {
		t.Fatal(err)
	}
	if err := hook.Send(t.Context(), event); err == nil || strings.Contains(err.Error(), canary) || errors.Is(err, ErrRefused) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []string{"", "\n", "hooks.example.com/" + canary, "ftp://x/" + canary, "https:///" + canary} {
		if _, err := NewWebhook(bad); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOneWayOfTwo(t *testing.T) {
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer good.Close()
	bad := httptest.NewServer(http.NotFoundHandler())
	defer bad.Close()
	var ways []Channel
	for _, u := range []string{bad.URL, good.URL} {
		w, err := NewWebhook(u)
		if err != nil {
			t.Fatal(err)
		}
		ways = append(ways, w)
	}
	if told, err := Send(t.Context(), event, ways, none); told != 1 || !errors.Is(err, ErrRefused) {
		t.Errorf("told %d, %v", told, err)
	}
}

func TestMask(t *testing.T) {
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
			if got := Mask(tc.in, "xyzzy\n", "", "a"); got != tc.out {
				t.Errorf("%q, want %q", got, tc.out)
			}
		})
	}
}

func FuzzMask(f *testing.F) {
	f.Add("password: hvs.x", "hunter2hunter2")
	f.Add("\xff\x00", "----")
	f.Fuzz(func(t *testing.T, s, secret string) {
		k := strings.TrimSpace(secret)
		// What masking itself writes may spell these.
		if len(k) < 4 || strings.ContainsAny(k, "* ?") || strings.ToValidUTF8(k, "?") != k {
			return
		}
		if out := Mask(s+k+s, secret); strings.Contains(out, k) {
			t.Errorf("%q shows %q", out, k)
		}
	})
}

func TestMaskLines(t *testing.T) {
	got := maskLines([]byte("one\n-----BEGIN RSA PRIVATE KEY-----\n"+canary+"\n-----END RSA PRIVATE KEY-----\n"+strings.Repeat("ä", maxLine)+"\nlast "+canary), canary)
	all := strings.Join(got, "\n")
	if strings.Contains(all, canary) || got[0] != "one" || got[1] != hidden || got[len(got)-1] != "last "+hidden {
		t.Errorf("%q", got)
	}
	for _, l := range got {
		if len(l) > maxLine+len("…") {
			t.Errorf("%d bytes", len(l))
		}
	}
}

func TestSaid(t *testing.T) {
	dir := t.TempDir()
	at := func(d time.Duration, result string) (bool, int) {
		t.Helper()
		s, err := LoadSaid(dir)
		if err != nil {
			t.Fatal(err)
		}
		e := Event{Unit: "u.service", Result: result, At: event.At.Add(d)}
		due, unsaid := s.Due(e, 6*time.Hour)
		if due {
			s.Told(e)
		}
		if err := s.Save(dir); err != nil {
			t.Fatal(err)
		}
		return due, unsaid
	}
	for _, tc := range []struct {
		name   string
		after  time.Duration
		result string
		due    bool
		unsaid int
	}{
		{"first", 0, "exit-code", true, 0},
		{"again", 10 * time.Minute, "exit-code", false, 1},
		{"and again", 20 * time.Minute, "exit-code", false, 2},
		{"after a while", 6 * time.Hour, "exit-code", true, 2},
		{"soon after that", 7 * time.Hour, "exit-code", false, 1},
		{"another failure", 7 * time.Hour, "timeout", true, 0},
		{"the clock was set back", -24 * time.Hour, "timeout", true, 0},
	} {
		if due, unsaid := at(tc.after, tc.result); due != tc.due || unsaid != tc.unsaid {
			t.Errorf("%s: due %t, unsaid %d", tc.name, due, unsaid)
		}
	}
	// A spoilt file silences nobody.
	if err := os.WriteFile(filepath.Join(dir, saidFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if due, _ := at(0, "timeout"); !due {
		t.Error("silent after a spoilt file")
	}
}
