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

	"strongroom.example/appliance/base/mask"
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

func TestMaskLines(t *testing.T) {
	got := maskLines([]byte("one\n-----BEGIN RSA PRIVATE KEY-----\n"+canary+"\n-----END RSA PRIVATE KEY-----\n"+strings.Repeat("ä", maxLine)+"\nlast "+canary), canary)
	all := strings.Join(got, "\n")
	if strings.Contains(all, canary) || got[0] != "one" || got[1] != mask.Hidden || got[len(got)-1] != "last "+mask.Hidden {
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

// A file that can't be read is told of, and what has failed is told all the same.
func TestSaidUnreadable(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, saidFile), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSaid(dir)
	if err == nil {
		t.Error("no error")
	}
	e := Event{Unit: "vault.service", At: time.Now()}
	if due, _ := s.Due(e, time.Hour); !due {
		t.Error("not due")
	}
	s.Told(e)
	if due, _ := s.Due(e, time.Hour); due {
		t.Error("due again at once")
	}
}
