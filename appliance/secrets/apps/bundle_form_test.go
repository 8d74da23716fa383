package apps

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
)

// A bundle's file is read as it was written, and no error and no print shows it.
func TestParseBundle(t *testing.T) {
	const good = `{"app":"a","environment":"e","vault_addr":"https://v","role_id":"r","wrapped_secret_id":"canary","expires":"2026-01-02T03:04:05Z"}`
	for name, tt := range map[string]struct {
		text string
		role string // empty: it is refused
	}{
		"good":           {good, "a-e"},
		"no environment": {strings.Replace(good, `"environment":"e",`, "", 1), "a"},
		"with a CA":      {strings.Replace(good, `"app"`, `"ca_cert":"PEM","app"`, 1), "a-e"},
		"no app":         {strings.Replace(good, `"app":"a",`, "", 1), ""},
		"no address":     {strings.Replace(good, `"vault_addr":"https://v",`, "", 1), ""},
		"no role":        {strings.Replace(good, `"role_id":"r",`, "", 1), ""},
		"no token":       {strings.Replace(good, "canary", "", 1), ""},
		"another key":    {strings.Replace(good, `"app"`, `"canary":1,"app"`, 1), ""},
		"another type":   {strings.Replace(good, `"canary"`, `["canary"]`, 1), ""},
		"no JSON":        {`canary`, ""},
		"empty":          {``, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := ParseBundle([]byte(tt.text))
			if (err == nil) != (tt.role != "") || b.role != tt.role || strings.Contains(fmt.Sprint(err), "canary") {
				t.Fatalf("role %q, %v", b.role, err)
			}
			if err != nil {
				return
			}
			if shown := fmt.Sprintf("%v %+v %#v %s", b, b, b, b); strings.Contains(shown, "canary") || !strings.Contains(shown, "login bundle for a") {
				t.Errorf("printing it shows %s", shown)
			}
			text, err := json.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := ParseBundle(text); err != nil || again != b {
				t.Errorf("written and read: %v", err)
			}
		})
	}
}

func TestMakeBundle(t *testing.T) {
	target := config.Target{App: "a", Environment: "e", Role: "a-e"}
	for _, ttl := range []time.Duration{0, minWrap - 1, maxWrap + 1} {
		m := newMemory()
		if _, err := makeBundle(t.Context(), m, target, ttl); !errors.Is(err, ErrWrapTTL) || m.writes != 0 {
			t.Errorf("%v: %d writes, %v", ttl, m.writes, err)
		}
	}
	m := newMemory()
	var person *NeedsOperator
	if _, err := makeBundle(t.Context(), m, target, time.Hour); !errors.As(err, &person) || !strings.Contains(person.Hint, "app apply") || m.writes != 0 {
		t.Errorf("not applied yet: %v", err)
	}
	m.data["auth/approle/role/a-e/role-id"] = map[string]any{"role_id": "r"}
	for _, ttl := range []time.Duration{minWrap, maxWrap} {
		b, err := makeBundle(t.Context(), m, target, ttl)
		if err != nil || b.App != "a" || b.Environment != "e" || b.RoleID != "r" || b.WrappedSecret != "wrapped" || !b.Expires.Equal(time.Time{}.Add(ttl)) {
			t.Errorf("%v: %v", b, err)
		}
	}
	if _, err := makeBundle(t.Context(), refusing{m, "auth/approle/role/a-e/role-id", 403}, target, time.Hour); !vaultapi.IsDenied(err) {
		t.Errorf("denied: %v", err)
	}
	m.failAt = m.writes + 1
	if _, err := makeBundle(t.Context(), m, target, time.Hour); !errors.Is(err, errInjected) {
		t.Errorf("not wrapped: %v", err)
	}
}

// A token of another login is never unwrapped, and what holds no secret id is
// not one.
func TestOpenBundleExchanged(t *testing.T) {
	for name, tt := range map[string]struct {
		role   string
		lookup string // the answer; empty: the token is not known
		holds  string
		status int // of both
		is     func(error) bool
		opened bool
	}{
		"good":            {"a-e", `{"data":{"creation_path":"auth/approle/role/a-e/secret-id"}}`, `{"data":{"secret_id":"s"}}`, 200, func(err error) bool { return err == nil }, true},
		"another's login": {"b", `{"data":{"creation_path":"auth/approle/role/a-e/secret-id"}}`, `{"data":{"secret_id":"s"}}`, 200, intercept, false},
		"made by no role": {"a-e", `{"data":{"creation_path":"sys/wrapping/wrap"}}`, `{"data":{"secret_id":"s"}}`, 200, intercept, false},
		"made by nothing": {"a-e", `{"data":{}}`, `{"data":{"secret_id":"s"}}`, 200, intercept, false},
		"no secret id":    {"a-e", `{"data":{"creation_path":"auth/approle/role/a-e/secret-id"}}`, `{"data":{"other":"s"}}`, 200, intercept, true},
		"denied":          {"a-e", `{"errors":["permission denied"]}`, ``, 403, intercept, false},
		"sealed":          {"a-e", `{"errors":["Vault is sealed"]}`, ``, 503, func(err error) bool { return vaultapi.IsUnavailable(err) && !intercept(err) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			opened := false
			v := answering(t, func(w http.ResponseWriter, r *http.Request) {
				answer := tt.lookup
				if strings.HasSuffix(r.URL.Path, "/unwrap") {
					answer, opened = tt.holds, true
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(answer))
			})
			got, err := openBundle(t.Context(), v, Bundle{WrappedSecret: "w", role: tt.role})
			if !tt.is(err) || (got == "s") != (err == nil) || opened != tt.opened {
				t.Errorf("opened %t, %v", opened, err)
			}
		})
	}
}

func intercept(err error) bool { return errors.Is(err, ErrIntercepted) }
