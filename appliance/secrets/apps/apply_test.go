package apps

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
)

var errCAS = &vaultapi.Error{Status: http.StatusBadRequest, Errors: []string{"check-and-set parameter did not match the current version"}}

const everything = `manifest = "m"
[[database]]
name = "d"
engine = "postgresql"
host = "db.example.com"
database = "d"
username = "vault"
password_file = "/password"
[[app]]
name = "a"
[[app.environment]]
name = "e"
secrets = ["x", "n/y"]
[[app.environment.database]]
database = "d"
access = "read-write"
[[app.environment.database]]
database = "d"
access = "static"
username = "legacy"
[[app.environment.key]]
name = "k"
provider = "p"
[[app]]
name = "b"
grants = ["a/e"]
[[auth]]
type = "userpass"
[[auth.map]]
user = "alice"
roles = ["owner:a"]
[[auth]]
type = "ldap"
url = "ldaps://ldap.example.com"
user_dn = "ou=people,dc=example,dc=com"
[[auth.map]]
group = "Ops"
roles = ["operator"]
`

func parse(t *testing.T, text string) config.Apps {
	t.Helper()
	c, err := config.ParseApps("apps.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// options reads "the first password" from every file.
func options(c config.Apps, v Vault) Options {
	return Options{
		Config: c, Vault: v, Random: bytes.NewReader(bytes.Repeat([]byte{7}, 1000)),
		ReadFile: func(string) ([]byte, error) { return []byte("the first password\n"), nil },
		Reveal:   func(string, Wrapped) {},
	}
}

func quiet(*Plan) error { return nil }

func apply(t *testing.T, o Options) {
	t.Helper()
	if _, err := Apply(t.Context(), o, quiet); err != nil {
		t.Fatal(err)
	}
}

func plan(t *testing.T, o Options) *Plan {
	t.Helper()
	p, err := MakePlan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestApplyTwice(t *testing.T) {
	m := newMemory()
	o := options(parse(t, everything), m)
	if p := plan(t, o); m.writes != 0 || p.Count(Create) != len(p.Changes) {
		t.Fatalf("a plan wrote %d times, %d of %d to create", m.writes, p.Count(Create), len(p.Changes))
	}
	apply(t, o)
	want := []string{
		"apikeys/keys/a/e/k", "auth/approle/role/a-e", "auth/approle/role/b", "auth/ldap/config", "auth/ldap/groups/ops",
		"auth/userpass/users/alice", "database/config/d", "database/roles/a-e-rw", "database/static-roles/a-e-static",
		"secret/metadata/a/e/n/y", "secret/metadata/a/e/x", "sys/policies/acl/a-e", "sys/policies/acl/a-owner", "sys/policies/acl/b",
		"sys/policies/acl/b-owner", "sys/policies/acl/strongroom-operator", "sys/policies/acl/userpass-self",
	}
	if got := m.objects(); !slices.Equal(got, want) {
		t.Fatalf("made:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := m.data["database/config/d"]["password"]; got != "the first password" {
		t.Errorf("the connection's password was not sent without its line's end: %q", got)
	}
	if n := strings.Count(strings.Join(m.log, "\n"), "rotate-root"); n != 1 {
		t.Errorf("Vault's password was rotated %d times", n)
	}
	before := m.writes
	if p := plan(t, o); p.Changed() {
		t.Errorf("the second plan: %s", summary(p))
	}
	apply(t, o)
	if m.writes != before {
		t.Errorf("the second apply wrote:\n%s", strings.Join(m.log[before:], "\n"))
	}
}

// A snapshot is asked for before Vault becomes the only one who knows a password, so that
// a kill leaves it asked for, and again after.
func TestSnapshotFollowsRotateRoot(t *testing.T) {
	m := newMemory()
	o := options(parse(t, everything), m)
	var at []int
	rotated := func() int {
		return slices.IndexFunc(m.log, func(call string) bool { return strings.Contains(call, "database/rotate-root/") })
	}
	o.SnapshotSoon = func() { at = append(at, rotated()) }
	apply(t, o)
	if len(at) != 2 || at[0] >= 0 || at[1] < 0 {
		t.Errorf("asked at %v, rotated at %d", at, rotated())
	}
	at = nil
	apply(t, o)
	if len(at) != 0 {
		t.Errorf("nothing was rotated, and it was asked %d times", len(at))
	}
}

// What is in the way is never changed, and nothing else is either.
func TestConflicts(t *testing.T) {
	tests := []struct{ path, id string }{
		{"sys/policies/acl/a-e", "policy/a-e"}, {"auth/approle/role/a-e", "approle/a-e"}, {"database/roles/a-e-rw", "database role/a-e-rw"},
		{"database/static-roles/a-e-static", "static database role/a-e-static"}, {"database/config/d", "database/d"},
		{"apikeys/keys/a/e/k", "api key/a/e/k"}, {"auth/userpass/users/alice", "login/userpass/alice"},
		{"auth/ldap/config", "auth method/ldap"}, {"auth/ldap/groups/ops", "login/ldap/groups/ops"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			m := newMemory()
			m.data[tt.path] = map[string]any{"theirs": "x"}
			o := options(parse(t, everything), m)
			_, err := Apply(t.Context(), o, quiet)
			if !errors.Is(err, ErrConflict) || m.writes != 0 {
				t.Fatalf("error = %v, %d writes: %q", err, m.writes, m.log)
			}
			o.Adopt = []string{tt.id}
			apply(t, o)
			o.Adopt = nil
			if p := plan(t, o); p.Changed() {
				t.Errorf("adopted, and still: %s", summary(p))
			}
		})
	}
}

func TestOtherManifest(t *testing.T) {
	m := newMemory()
	apply(t, options(parse(t, everything), m))
	other := parse(t, "manifest = \"other\"\n[[app]]\nname = \"b\"\n")
	_, err := Apply(t.Context(), options(other, m), quiet)
	if !errors.Is(err, ErrConflict) {
		t.Fatalf("error = %v", err)
	}
	p := plan(t, options(other, m))
	var notes []string
	for _, c := range p.Changes {
		if c.Action == Conflict {
			notes = append(notes, c.Kind+": "+c.Note)
		}
	}
	if len(notes) != 3 || !strings.Contains(strings.Join(notes, "\n"), `it belongs to manifest "m"`) {
		t.Errorf("conflicts = %q", notes)
	}
	// Nor does another manifest's prune see them.
	if p, err := PlanPrune(t.Context(), PruneOptions{Options: options(other, m)}); err != nil || len(p.Changes) != 0 {
		t.Errorf("prune = %s, %v", summary(p), err)
	}
}

// A grant may name another manifest's environment, but most often it is a slip.
func TestGrantsOfUnknownEnvironments(t *testing.T) {
	for name, tt := range map[string]struct{ grants, want string }{
		"known":                 {`["a/e"]`, ""},
		"a slip":                {`["a/e", "a/typo"]`, "another manifest has it: a/typo"},
		"of another's manifest": {`["x/y", "x/y2"]`, "another manifest has it: x/y, x/y2"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "manifest = \"m\"\n[[app]]\nname = \"a\"\n[[app.environment]]\nname = \"e\"\n[[app]]\nname = \"b\"\ngrants = " + tt.grants + "\n"
			got := strings.Join(plan(t, options(parse(t, text), newMemory())).Notes, "\n")
			if strings.Contains(got, "grants") != (tt.want != "") || !strings.Contains(got, tt.want) {
				t.Errorf("notes: %q", got)
			}
		})
	}
}

func TestFind(t *testing.T) {
	c := parse(t, everything)
	for _, tt := range []struct{ app, environment, want string }{
		{"nosuch", "", `the file has no app "nosuch"`},
		{"a", "x", `the file has no app "a" with an environment "x"`},
		{"", "x", `the file has no app with an environment "x"`},
	} {
		if _, err := Find(c, tt.app, tt.environment); err == nil || err.Error() != tt.want {
			t.Errorf("Find(%q, %q): %v, want %s", tt.app, tt.environment, err, tt.want)
		}
	}
	if got, err := Find(c, "a", ""); err != nil || len(got) != 1 {
		t.Errorf("Find(a): %v, %v", got, err)
	}
}

func TestMissingProvider(t *testing.T) {
	m := newMemory()
	delete(m.data, "apikeys/providers/p")
	m.data["apikeys/providers/q"] = map[string]any{}
	p := plan(t, options(parse(t, everything), m))
	if p.Count(Blocked) != 1 {
		t.Errorf("plan = %s", summary(p))
	}
}

func TestDrift(t *testing.T) {
	m := newMemory()
	o := options(parse(t, everything), m)
	apply(t, o)
	m.data["auth/approle/role/a-e"]["token_max_ttl"] = 1 << 20
	m.data["sys/policies/acl/b"]["policy"] = m.data["sys/policies/acl/b"]["policy"].(string) + "\n# more"
	delete(m.data, "database/roles/a-e-rw")
	p := plan(t, o)
	if p.Count(Update) != 2 || p.Count(Create) != 1 {
		t.Errorf("plan = %s", summary(p))
	}
	apply(t, o)
	if p := plan(t, o); p.Changed() {
		t.Errorf("after it: %s", summary(p))
	}
}

func TestPrune(t *testing.T) {
	m := newMemory()
	apply(t, options(parse(t, everything), m))
	m.data["secret/metadata/a/e/x"]["versions"] = map[string]any{"1": map[string]any{}}
	m.data["sys/policies/acl/theirs"] = map[string]any{"policy": "path \"x\" {}"}
	m.data["auth/approle/role/theirs"] = map[string]any{}
	rest := parse(t, "manifest = \"m\"\n[[app]]\nname = \"b\"\n")
	o := PruneOptions{Options: options(rest, m)}
	apply(t, o.Options)
	if _, err := Prune(t.Context(), o, quiet); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"auth/approle/role/b", "auth/approle/role/theirs", "secret/metadata/a/e/x",
		"sys/policies/acl/b", "sys/policies/acl/b-owner", "sys/policies/acl/strongroom-operator", "sys/policies/acl/theirs",
	}
	if got := m.objects(); !slices.Equal(got, want) {
		t.Fatalf("left:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	o.DeleteValues = true
	if _, err := Prune(t.Context(), o, quiet); err != nil {
		t.Fatal(err)
	}
	if got := m.objects(); slices.Contains(got, "secret/metadata/a/e/x") {
		t.Errorf("left: %q", got)
	}
}

// Whichever request fails, before or after Vault has done it: running again
// gets there, nothing is made that the ledger doesn't know, and prune removes
// all of it.
func TestInterrupted(t *testing.T) {
	c := parse(t, everything)
	whole := newMemory()
	apply(t, options(c, whole))
	empty := parse(t, "manifest = \"m\"\n")
	for _, after := range []bool{false, true} {
		for n := 1; n <= whole.writes; n++ {
			m := newMemory()
			m.failAt, m.after = n, after
			o := options(c, m)
			if _, err := Apply(t.Context(), o, quiet); !errors.Is(err, errInjected) {
				t.Fatalf("write %d: error = %v", n, err)
			}
			assertKnown(t, m, n)
			apply(t, o)
			if p := plan(t, o); p.Changed() {
				t.Fatalf("write %d: not converged: %s", n, summary(p))
			}
			if !slices.Equal(m.objects(), whole.objects()) {
				t.Fatalf("write %d: %q", n, m.objects())
			}
		}
	}
	full := whole.writes
	for n := 1; ; n++ {
		m := newMemory()
		apply(t, options(c, m))
		m.failAt = full + n
		o := PruneOptions{Options: options(empty, m)}
		_, err := Prune(t.Context(), o, quiet)
		if err == nil {
			break
		}
		m.failAt = 0
		if _, err := Prune(t.Context(), o, quiet); err != nil {
			t.Fatalf("prune, write %d: %v", n, err)
		}
		if got := m.objects(); !slices.Equal(got, []string{"sys/policies/acl/strongroom-operator"}) {
			t.Fatalf("prune, write %d left %q", n, got)
		}
	}
}

// assertKnown sees that whatever was made is in the ledger.
func assertKnown(t *testing.T, m *memory, n int) {
	t.Helper()
	l, err := readLedger(context.Background(), m, "m")
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]bool{"sys/policies/acl/strongroom-operator": true}
	for _, e := range l.entries {
		paths[e.path] = true
	}
	for _, p := range m.objects() {
		if !paths[p] {
			t.Fatalf("write %d: %s is there, and not in the ledger", n, p)
		}
	}
}

func TestConcurrentApply(t *testing.T) {
	m := newMemory()
	o := options(parse(t, everything), m)
	_, err := Apply(t.Context(), o, func(*Plan) error {
		apply(t, options(parse(t, everything), m)) // somebody else, between plan and change
		return nil
	})
	if !errors.Is(err, ErrConcurrent) {
		t.Fatalf("error = %v", err)
	}
}

func TestSecretFiles(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "only a line's end": "\n", "two lines": "a\nb\n"} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			o := options(parse(t, everything), m)
			o.ReadFile = func(string) ([]byte, error) { return []byte(content), nil }
			_, err := Apply(t.Context(), o, quiet)
			var person *NeedsOperator
			if !errors.As(err, &person) {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestNewPassword(t *testing.T) {
	p, err := newPassword(bytes.NewReader(append(bytes.Repeat([]byte{255}, 5), bytes.Repeat([]byte{1, 2}, 20)...)))
	if err != nil || len(p) != passwordLength || !strings.HasPrefix(p, "BCBC") {
		t.Errorf("%q, %v", p, err)
	}
	if _, err := newPassword(bytes.NewReader(nil)); err == nil {
		t.Error("no error without randomness")
	}
}

// summary is what a plan would do, for messages.
func summary(p *Plan) string {
	var out []string
	for _, c := range p.Changes {
		if c.Action != Unchanged {
			out = append(out, string(c.Action)+" "+c.Kind+" "+c.Name+" "+c.Note)
		}
	}
	return strings.Join(out, "; ")
}

// OpenBao has no LDAP of its own: that is said by name, nothing is made, and one that
// is mounted as a plugin is used.
func TestOpenBaoHasNoLDAP(t *testing.T) {
	m := newMemory()
	o := options(parse(t, everything), m)
	o.Product = config.ProductOpenBao
	p, err := Apply(t.Context(), o, quiet)
	if !errors.Is(err, ErrConflict) || m.writes != 0 || p.Count(Blocked) != 1 {
		t.Fatalf("%v, %d writes, %d blocked", err, m.writes, p.Count(Blocked))
	}
	for _, c := range p.Changes {
		if c.Action == Blocked && (c.Name != "auth/ldap" || !strings.Contains(c.Note, "oidc or userpass")) {
			t.Errorf("%+v", c)
		}
	}
	o.Product = ""
	apply(t, o)
	o.Product = config.ProductOpenBao
	if p := plan(t, o); p.Count(Blocked) != 0 {
		t.Errorf("with the method mounted %d are blocked", p.Count(Blocked))
	}
}
