package front

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

// door is a front whose Vault knows anna, by the password "right", and locks names
// after five wrong ones. It notes what waits are asked for.
type loginBench struct {
	now    time.Time
	waited []time.Duration
	tries  map[string]int
	asked  int
	gate   *gate
	next   func(w *httptest.ResponseRecorder, r *http.Request)
}

func newLoginBench(t *testing.T) *loginBench {
	t.Helper()
	b := &loginBench{now: time.Unix(1_800_000_000, 0), tries: map[string]int{}}
	g, _, next := newGate(t, func(w http.ResponseWriter, r *http.Request) {
		b.asked++
		name := strings.ToLower(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
		switch {
		case name == "anna" && b.tries[name] >= 5:
			b.now = b.now.Add(time.Millisecond)
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`)
		case name == "anna" && r.Header.Get("Password") == "right":
			fmt.Fprint(w, `{"auth":{"client_token":"t"}}`)
		default:
			b.tries[name]++
			if name == "anna" {
				b.now = b.now.Add(70 * time.Millisecond)
			}
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"errors":["invalid username or password"]}`)
		}
	})
	g.logins.now = func() time.Time { return b.now }
	g.logins.wait = func(_ context.Context, d time.Duration) error {
		b.waited = append(b.waited, d)
		b.now = b.now.Add(d)
		return nil
	}
	b.gate = g
	b.next = func(w *httptest.ResponseRecorder, r *http.Request) {
		if err := g.ServeHTTP(w, r, next); err != nil {
			t.Error(err)
		}
	}
	return b
}

// try logs in, and gives the answer with the time that it took.
func (b *loginBench) try(addr, path, password string) (answer string, took time.Duration) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
	r.RemoteAddr = addr
	r.Header.Set("Password", password)
	w := httptest.NewRecorder()
	start := b.now
	b.next(w, r)
	return fmt.Sprint(w.Code, w.Header(), w.Body), b.now.Sub(start)
}

// Neither words nor time tell whether a name exists, is locked, or what was wrong.
func TestLoginsTellNoNames(t *testing.T) {
	b := newLoginBench(t)
	for i := range 9 {
		addr := fmt.Sprintf("192.0.2.%d:1", i)
		there, tookThere := b.try(addr, "/v1/auth/userpass/login/anna", "wrong")
		none, tookNone := b.try(addr, "/v1/auth/userpass/login/nobody", "wrong")
		if there != none || tookThere != tookNone || !strings.HasPrefix(there, "400") {
			t.Errorf("try %d: %s after %v, and of a name that is not there\n%s after %v", i, there, tookThere, none, tookNone)
		}
	}
	if right, _ := b.try("192.0.2.9:1", "/v1/auth/userpass/login/anna", "right"); !strings.HasPrefix(right, "400") {
		t.Errorf("locked, with the right password: %s", right)
	}
	for _, method := range []string{"GET", "HEAD", "LIST", "DELETE", "PATCH"} {
		asked := b.asked
		w := httptest.NewRecorder()
		b.next(w, httptest.NewRequest(method, "/v1/auth/userpass/login/anna", nil))
		if w.Code != http.StatusMethodNotAllowed || b.asked != asked {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

// A name that others try waits, for all but those who have lately logged in as that
// very name; nobody is refused for it.
func TestOthersTriesDelayAName(t *testing.T) {
	b := newLoginBench(t)
	const path = "/v1/auth/userpass/login/anna"
	good := "198.51.100.1:1"
	first := func(addr, path, password string) time.Duration { // the delay before Vault is asked
		b.waited = nil
		b.tries = map[string]int{}
		if answer, _ := b.try(addr, path, password); strings.HasPrefix(answer, "400") { // which waits for its time
			b.waited = b.waited[:max(0, len(b.waited)-1)]
		}
		if len(b.waited) == 0 {
			return 0
		}
		return b.waited[0]
	}
	if d := first(good, path, "right"); d != 0 {
		t.Fatalf("the first log-in waits %v", d)
	}
	var last time.Duration
	for i := range 12 {
		last = first(fmt.Sprintf("192.0.2.%d:1", i), "/v1/auth//userpass/login/ANNA", "wrong")
	}
	if last != maxDelay {
		t.Errorf("the twelfth wrong password waits %v, want %v", last, maxDelay)
	}
	for name, c := range map[string]struct {
		addr, path string
		waits      bool
	}{
		"a friend":                        {good, path, false},
		"a friend, spelled otherwise":     {good, "/v1/auth/userpass/./login/anna", false},
		"a friend at another name":        {good, "/v1/auth/userpass/login/bob", false}, // nobody has tried it
		"another address":                 {"198.51.100.2:1", path, true},
		"the same name at another method": {"198.51.100.2:1", "/v1/auth/ldap/login/anna", false},
	} {
		if d := first(c.addr, c.path, "right"); (d > 0) != c.waits {
			t.Errorf("%s waits %v", name, d)
		}
	}
	// A friend of one name is none of another.
	for i := range 6 {
		first(fmt.Sprintf("192.0.2.%d:1", 100+i), "/v1/auth/userpass/login/bob", "wrong")
	}
	if d := first(good, "/v1/auth/userpass/login/bob", "wrong"); d == 0 {
		t.Error("who has logged in as anna does not wait for bob")
	}
	b.now = b.now.Add(time.Hour)
	if d := first("198.51.100.3:1", path, "right"); d != 0 {
		t.Errorf("an hour later it still waits %v", d)
	}
	b.now = b.now.Add(friendsFor)
	for i := range 12 {
		first(fmt.Sprintf("192.0.2.%d:1", i), path, "wrong")
	}
	if d := first(good, path, "right"); d == 0 {
		t.Error("a friend of the day before yesterday does not wait")
	}
}

// An address may fail so often, by whatever names, friend or not; who gets in has that
// given back.
func TestFailedLoginsByAddress(t *testing.T) {
	b := newLoginBench(t)
	refused := 0
	for i := range 100 {
		answer, _ := b.try(fmt.Sprintf("[2001:db8:0:1::%x]:1", i), fmt.Sprintf("/v1/auth/userpass/login/u%d", i), "wrong")
		b.now = time.Unix(1_800_000_000, 0)
		if strings.HasPrefix(answer, "429") {
			refused++
			if !strings.Contains(answer, "Retry-After") {
				t.Fatal(answer)
			}
		}
	}
	if refused != 100-addressTries || b.asked != addressTries {
		t.Errorf("of 100 wrong passwords of one /64 %d are refused, and Vault has %d", refused, b.asked)
	}
	if answer, _ := b.try("[2001:db8:0:2::1]:1", "/v1/auth/userpass/login/anna", "right"); !strings.HasPrefix(answer, "200") {
		t.Errorf("the next /64: %s", answer)
	}
	for range 100 {
		if answer, _ := b.try("192.0.2.1:1", "/v1/auth/userpass/login/anna", "right"); !strings.HasPrefix(answer, "200") {
			t.Fatalf("log-ins that succeed: %s", answer)
		}
	}
}

// What a log-in is, however it is spelled.
func TestLoginPaths(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/auth/userpass/login/anna": "auth/userpass/login/anna", "/v1/auth/userpass/login/Anna/": "auth/userpass/login/anna",
		"/v1/auth/a/b/login/anna": "auth/a/b/login/anna", "/v1/auth%2fuserpass/login/anna": "auth/userpass/login/anna", "/v1/team/auth/userpass/login/anna": "team/auth/userpass/login/anna",
		"/v1/auth/approle/login": "-", "/v1/sys/mfa/validate": "-", "/v1/secret/data/login/anna": "", "/v1/auth/userpass/users/anna": "", "/v1/auth/token/lookup-self": "",
	} {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			t.Fatal(err)
		}
		_, to := judge(http.MethodPost, u, "", false)
		name, is := to.login()
		if want == "-" && (name != "" || !is) || want != "-" && (name != want || is != (want != "")) {
			t.Errorf("%s: %q, %v", path, name, is)
		}
	}
}

// What waits is bounded, and a client that has gone waits no more.
func TestHeldLogins(t *testing.T) {
	l, err := newLogins(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range nameTries + 1 {
		l.wait = func(context.Context, time.Duration) error { return nil }
		if end, v := l.begin(t.Context(), addr(i), "n"); v != passed {
			t.Fatal(v)
		} else {
			end(400)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	entered, done := make(chan struct{}, maxHeld), make(chan verdict, maxHeld)
	l.wait = func(ctx context.Context, _ time.Duration) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	for i := range maxHeld {
		go func() {
			_, v := l.begin(ctx, addr(100+i), "n")
			done <- v
		}()
	}
	for range maxHeld {
		<-entered
	}
	if _, v := l.begin(ctx, addr(50), "n"); v.status != http.StatusTooManyRequests {
		t.Errorf("one more: %+v", v)
	}
	cancel(nil)
	for range maxHeld {
		if v := <-done; v != refusedGone {
			t.Fatalf("%+v", v)
		}
	}
	if l.held != 0 {
		t.Errorf("%d are still held", l.held)
	}
}
