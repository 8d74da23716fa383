package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
)

// oneApp is a manifest with an app that uses a database of others.
func oneApp(manifest, app string) string {
	return fmt.Sprintf(`manifest = %q
[[database]]
name = "d"
engine = "postgresql"
external = true
[[app]]
name = %q
secrets = ["x"]
[[app.database]]
database = "d"
access = "read-only"
[[app.key]]
name = "k"
provider = "p"
`, manifest, app)
}

func noApp(manifest string) string { return fmt.Sprintf("manifest = %q\n", manifest) }

func prune(t *testing.T, o Options) *Plan {
	t.Helper()
	p, err := Prune(t.Context(), PruneOptions{Options: o, DeleteValues: true}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What a manifest has made is taken from it by naming it alone, and its prune leaves
// alone what is not its own any more: all kinds of objects, those without a mark, too.
func TestHandOver(t *testing.T) {
	m := newMemory()
	apply(t, options(parse(t, oneApp("one", "a")), m))
	all := m.objects()
	two := options(parse(t, oneApp("two", "a")), m)
	refused := func(what string) {
		t.Helper()
		before := m.writes
		p, err := Apply(t.Context(), two, quiet)
		if !errors.Is(err, ErrConflict) || m.writes != before {
			t.Fatalf("%s: %v, %d writes", what, err, m.writes-before)
		}
		if n := p.Count(Conflict); n != 6 || strings.Count(summary(p), `it belongs to manifest "one"`) != n {
			t.Fatalf("%s: %s", what, summary(p))
		}
	}
	refused("a claim")
	two.Adopt = []string{"app/a"}
	refused("adopting what belongs to one")
	two.From = "three"
	refused("from somebody who has nothing")
	two.From = "one"
	apply(t, two)
	two.Adopt, two.From = nil, ""
	if p := plan(t, two); p.Changed() {
		t.Errorf("after it two's plan: %s", summary(p))
	}
	prune(t, options(parse(t, noApp("one")), m))
	if got := m.objects(); !slices.Equal(got, all) {
		t.Errorf("one's prune has left %q of %q", got, all)
	}
	if p := plan(t, options(parse(t, oneApp("one", "a")), m)); p.Count(Conflict) != 6 {
		t.Errorf("one's plan: %s", summary(p))
	}
	prune(t, options(parse(t, noApp("two")), m))
	if got := m.objects(); len(got) != 0 {
		t.Errorf("two's prune has left %q", got)
	}
}

// A name that the file doesn't lead to is no wish that can be left out.
func TestAdoptNothing(t *testing.T) {
	m := newMemory()
	for _, id := range []string{"approle/A", "approle", "", "app/b", "secret/a/y"} {
		o := options(parse(t, oneApp("one", "a")), m)
		o.Adopt = []string{id}
		var person *NeedsOperator
		if _, err := MakePlan(t.Context(), o); !errors.As(err, &person) {
			t.Errorf("--adopt %q: %v", id, err)
		}
		o.Adopt, o.Resend = nil, []string{id}
		if _, err := MakePlan(t.Context(), o); !errors.As(err, &person) {
			t.Errorf("--resend %q: %v", id, err)
		}
	}
}

// writeOld writes a ledger as 0.1 did.
func (m *memory) writeOld(manifest string, entries map[string]string) {
	objects := map[string]any{}
	for id, entry := range entries {
		objects[id] = entry
	}
	m.versions[ledgerPath(manifest)] = 3
	m.data[ledgerPath(manifest)] = map[string]any{
		"data": map[string]any{"objects": objects, "rotated": []any{"d"}}, "metadata": map[string]any{"version": json.Number("3")},
	}
}

// 0.1's ledger of a manifest is taken over once, by that manifest; then an older
// program refuses.
func TestOldLedgerIsTakenOver(t *testing.T) {
	whole := newMemory()
	apply(t, options(parse(t, everything), whole))
	l, err := readLedger(t.Context(), whole, "m")
	if err != nil {
		t.Fatal(err)
	}
	old := map[string]string{}
	for id, e := range l.entries {
		old[id] = strings.TrimSuffix(e.path+" "+e.app, " ")
		if e.app == "" && strings.Contains(e.path, " ") {
			old[id] = e.path + " "
		}
	}
	m := newMemory()
	m.data = whole.data
	for p := range m.data {
		if strings.HasPrefix(p, "secret/data/"+ledgerFolder) {
			delete(m.data, p)
			delete(m.versions, p)
		}
	}
	m.writeOld("m", old)
	o := options(parse(t, everything), m)
	if p := plan(t, o); p.Changed() {
		t.Fatalf("before it the plan is %s", summary(p))
	}
	// Another manifest does not take it over, and sees whose the objects are.
	if p := plan(t, options(parse(t, strings.Replace(everything, `"m"`, `"n"`, 1)), m)); p.Count(Conflict) < 10 {
		t.Errorf("another's plan: %s", summary(p))
	}
	if m.writes != 0 {
		t.Errorf("plans wrote: %q", m.log)
	}
	apply(t, o)
	if p := plan(t, o); p.Changed() {
		t.Errorf("after it the plan is %s", summary(p))
	}
	if text, _ := json.Marshal(m.data[ledgerPath("m")]); strings.Contains(string(text), "objects") {
		t.Errorf("an older program reads %s", text)
	}
	before := m.writes
	apply(t, o)
	if m.writes != before {
		t.Errorf("a second apply wrote %q", m.log[before:])
	}
	now, err := readLedger(t.Context(), m, "m")
	if err != nil || !maps.Equal(now.entries, l.entries) {
		t.Errorf("%v\n%v\n%v", err, now.entries, l.entries)
	}
}

// Two of 0.1's manifests say that an object is theirs: neither changes it, and neither
// prunes it, until a person has said whose it is.
func TestTwoClaims(t *testing.T) {
	m := newMemory()
	apply(t, options(parse(t, oneApp("one", "a")), m))
	for p := range m.data {
		if strings.HasPrefix(p, "secret/data/"+ledgerFolder) {
			delete(m.data, p)
			delete(m.versions, p)
		}
	}
	both := map[string]string{"approle/a": "auth/approle/role/a a", "database role/a-ro": "database/roles/a-ro a", "secret/a/x": "secret/metadata/a/x a"}
	m.writeOld("one", both)
	m.writeOld("two", both)
	all := m.objects()
	one := options(parse(t, oneApp("one", "a")), m)
	if p := plan(t, one); p.Count(Conflict) != 3 || !strings.Contains(summary(p), "manifests one, two both say") {
		t.Errorf("the plan is %s", summary(p))
	}
	prune(t, options(parse(t, noApp("two")), m))
	if got := m.objects(); !slices.Equal(got, all) {
		t.Errorf("a prune has left %q", got)
	}
	m.writeOld("two", both)
	one.Adopt, one.From = []string{"app/a"}, "two"
	apply(t, one)
	one.Adopt, one.From = nil, ""
	if p := plan(t, one); p.Changed() {
		t.Errorf("then the plan is %s", summary(p))
	}
	prune(t, options(parse(t, noApp("two")), m))
	if got := m.objects(); !slices.Equal(got, all) {
		t.Errorf("two's prune has left %q", got)
	}
}

// Two manifests at work in one part of the ledger don't disturb each other.
func TestLedgerOfTwo(t *testing.T) {
	m := newMemory()
	o := options(parse(t, oneApp("one", "a")), m)
	_, err := Apply(t.Context(), o, func(*Plan) error {
		for i := range 60 { // so many that they meet in some part
			apply(t, options(parse(t, fmt.Sprintf("manifest = \"n%d\"\n[[app]]\nname = \"b%d\"\n", i, i)), m))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if p := plan(t, o); p.Changed() {
		t.Errorf("the plan is %s", summary(p))
	}
	if p := plan(t, options(parse(t, "manifest = \"n7\"\n[[app]]\nname = \"b7\"\n"), m)); p.Changed() {
		t.Errorf("another's plan is %s", summary(p))
	}
}

// randomManifest is a file of few names, so that manifests meet.
func randomManifest(r *rand.Rand, manifest string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "manifest = %q\n", manifest)
	for _, app := range []string{"a", "a-b", "b"} {
		if r.IntN(2) == 0 {
			continue
		}
		fmt.Fprintf(&b, "[[app]]\nname = %q\n", app)
		if r.IntN(3) == 0 {
			b.WriteString("secrets = [\"x\"]\n[[app.key]]\nname = \"k\"\nprovider = \"p\"\n")
			continue
		}
		for _, env := range []string{"b", "b-c", "c"} {
			if r.IntN(2) == 0 {
				fmt.Fprintf(&b, "[[app.environment]]\nname = %q\nsecrets = [\"x\"]\n", env)
			}
		}
	}
	if r.IntN(2) == 0 {
		b.WriteString("[[auth]]\ntype = \"ldap\"\nurl = \"ldaps://l\"\nuser_dn = \"d\"\n[[auth.map]]\ngroup = \"G\"\nroles = [\"reader\"]\n")
	}
	return b.String()
}

// Three manifests are edited, applied, adopted, pruned and killed in any order: no
// object is changed or removed by one that doesn't own it, and after an apply there is
// nothing to do.
func TestManifestsInAnyOrder(t *testing.T) {
	steps, seed := 1500, rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	m := newMemory()
	owners := func() map[string]string {
		l, err := readLedger(t.Context(), m, "x")
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, e := range l.entries {
			out[e.path] = e.owner
		}
		return out
	}
	files := map[string]config.Apps{}
	applied, pruned, killed, handed := 0, 0, 0, 0
	for range steps {
		name := []string{"one", "two", "three"}[r.IntN(3)]
		if conf, err := config.ParseApps("f", []byte(randomManifest(r, name))); files[name].Manifest == "" || r.IntN(3) == 0 && err == nil {
			if err != nil {
				continue // two of its names are one, and the file is refused
			}
			files[name] = conf
		}
		o := options(files[name], m)
		if r.IntN(3) == 0 {
			o.Adopt, o.From = nil, []string{"", "one", "two", "three"}[r.IntN(4)]
			for _, app := range files[name].Apps {
				o.Adopt = append(o.Adopt, "app/"+app.Name)
			}
		}
		m.failAt = 0
		if r.IntN(4) == 0 {
			m.failAt, m.after = m.writes+1+r.IntN(10), r.IntN(2) == 0
		}
		before, had, from := owners(), m.objects(), len(m.log)
		var err error
		isPrune := r.IntN(3) == 0
		if isPrune {
			_, err = Prune(t.Context(), PruneOptions{Options: o, DeleteValues: true}, quiet)
			pruned++
		} else {
			_, err = Apply(t.Context(), o, quiet)
			applied++
		}
		m.failAt = 0
		switch {
		case errors.Is(err, errInjected):
			killed++
		case err != nil && !errors.Is(err, ErrConflict):
			t.Fatal(err)
		}
		after := owners()
		for _, call := range m.log[from:] {
			verb, path, _ := strings.Cut(call, " ")
			if strings.HasPrefix(path, "secret/data/") || strings.HasPrefix(path, "sys/mounts/") || !slices.Contains(had, path) {
				continue
			}
			if owner := before[path]; owner != "" && owner != name && after[path] != name {
				t.Fatalf("%s of %s by %q, which %q owns", verb, path, name, owner)
			}
			if owner := before[path]; owner != "" && owner != name && owner != o.From {
				t.Fatalf("%s of %s by %q, taken from %q without its word", verb, path, name, owner)
			}
		}
		for path, owner := range after {
			if before[path] != "" && before[path] != owner {
				handed++
			}
		}
		for _, path := range m.objects() {
			if after[path] == "" && path != "sys/policies/acl/strongroom-reader" {
				t.Fatalf("%s is nobody's", path)
			}
		}
		if err == nil && !isPrune {
			if p := plan(t, options(files[name], m)); p.Count(Unchanged, Unnamed) != len(p.Changes) {
				t.Fatalf("after it there is %s", summary(p))
			}
		}
	}
	if applied == 0 || pruned == 0 || killed == 0 || handed == 0 {
		t.Errorf("%d applied, %d pruned, %d killed, %d handed over", applied, pruned, killed, handed)
	}
	t.Logf("%d applied, %d pruned, %d killed, %d objects handed over", applied, pruned, killed, handed)
}

// A digest is of one plan: it is the same as long as file and Vault are, whatever order
// things were made in, and another as soon as a right would be.
func TestDigest(t *testing.T) {
	m := newMemory()
	first := plan(t, options(parse(t, everything), m)).ID
	if again := plan(t, options(parse(t, everything), m)).ID; first == "" || again != first {
		t.Errorf("%s, then %s", first, again)
	}
	seen := map[string]bool{first: true}
	for _, change := range []string{`secrets = ["x", "n/z"]`, `secrets = ["x", "n/y"]` + "\n[app.environment.login]\ntoken_ttl = \"30m\""} {
		id := plan(t, options(parse(t, strings.Replace(everything, `secrets = ["x", "n/y"]`, change, 1)), m)).ID
		if seen[id] {
			t.Errorf("with %q it is %s, too", change, id)
		}
		seen[id] = true
	}
	o := options(parse(t, strings.Replace(everything, `"owner:a"`, `"admin"`, 1)), m)
	o.Digest = first
	var person *NeedsOperator
	if _, err := Apply(t.Context(), o, quiet); !errors.As(err, &person) || m.writes != 0 {
		t.Errorf("another plan: %v, %d writes", err, m.writes)
	}
	o.Config = parse(t, everything)
	apply(t, o)
	if p := plan(t, o); p.ID != "" {
		t.Errorf("nothing to do has the digest %s", p.ID)
	}
	if _, err := Apply(t.Context(), o, quiet); !errors.As(err, &person) {
		t.Errorf("a second time: %v", err)
	}
}

// broken is a Vault whose database engine can't reach one database.
type broken struct {
	*memory
	path string
}

func (v broken) Write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	if path == v.path {
		return nil, &vaultapi.Error{Method: "PUT", Path: path, Status: 400, Errors: []string{"error verifying connection: dial tcp: connection refused"}}
	}
	return v.memory.Write(ctx, path, data)
}

// A database that is down keeps its own objects from being made, and no others; the
// next apply finishes them.
func TestDatabaseIsDown(t *testing.T) {
	text := strings.Replace(everything, "[[app]]\nname = \"b\"", `[[database]]
name = "other"
engine = "postgresql"
host = "other.example.com"
database = "d"
username = "vault"
password_file = "/password"
[[app]]
name = "c"
[[app.database]]
database = "other"
access = "read-only"
[[app]]
name = "b"`, 1)
	whole := newMemory()
	apply(t, options(parse(t, text), whole))
	for path, kept := range map[string][]string{
		"database/config/d":                {"database/config/d", "database/roles/a-e-rw", "database/static-roles/a-e-static"},
		"database/config/other":            {"database/config/other", "database/roles/c-ro"},
		"database/rotate-root/other":       {"database/roles/c-ro"},
		"database/static-roles/a-e-static": {"database/static-roles/a-e-static"},
	} {
		t.Run(path, func(t *testing.T) {
			m := newMemory()
			o := options(parse(t, text), broken{m, path})
			_, err := Apply(t.Context(), o, quiet)
			if err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "all else is done, and the next apply finishes this") {
				t.Fatalf("error = %v", err)
			}
			var missing []string
			for _, p := range whole.objects() {
				if !slices.Contains(m.objects(), p) {
					missing = append(missing, p)
				}
			}
			if !slices.Equal(missing, kept) {
				t.Errorf("not made are %q, want %q", missing, kept)
			}
			o.Vault = m
			apply(t, o)
			if p := plan(t, o); p.Changed() || !slices.Equal(m.objects(), whole.objects()) {
				t.Errorf("then: %s", summary(p))
			}
		})
	}
}

// A connection stays while others' roles work over it: their users could never be
// ended without.
func TestConnectionOfOthersStays(t *testing.T) {
	m := newMemory()
	one := options(parse(t, everything), m)
	apply(t, one)
	m.data["database/config/d"]["allowed_roles"] = []any{"*"}
	two := options(parse(t, strings.Replace(oneApp("two", "z"), "engine", "host = \"db.example.com\"\nengine", 1)), m)
	apply(t, two)
	one.Config = parse(t, noApp("m"))
	if p := prune(t, one); !strings.Contains(summary(p), "keep database d roles work over it") || m.data["database/config/d"] == nil {
		t.Errorf("the prune: %s", summary(p))
	}
	if p := plan(t, one); p.Count(Unnamed) != 0 {
		t.Errorf("then: %s", summary(p))
	}
	two.Config = parse(t, noApp("two"))
	prune(t, two)
	prune(t, one)
	if got := m.objects(); !slices.Equal(got, []string{"sys/policies/acl/strongroom-operator"}) {
		t.Errorf("left: %q", got)
	}
}

// Accounts whose password Vault changes, connections and roles of others included.
func TestAccountsOfOthers(t *testing.T) {
	m := newMemory()
	apply(t, options(parse(t, everything), m))
	static := func(user string) string {
		return fmt.Sprintf("manifest = \"two\"\n[[database]]\nname = \"d\"\nengine = \"postgresql\"\nexternal = true\n[[app]]\nname = \"z\"\n[[app.database]]\ndatabase = \"d\"\naccess = \"static\"\nusername = %q\n", user)
	}
	connection := "manifest = \"two\"\n[[database]]\nname = \"e\"\nengine = \"postgresql\"\nhost = %q\ndatabase = \"x\"\nusername = %q\npassword_file = \"/p\"\n"
	m.data["database/config/d"]["allowed_roles"] = []any{"*"}
	for name, tt := range map[string]struct {
		text  string
		taken bool
	}{
		"a connection's account":         {static("vault"), true},
		"another role's":                 {static("legacy"), true},
		"nobody's":                       {static("free"), false},
		"a connection with the account":  {fmt.Sprintf(connection, "DB.example.com.", "vault"), true},
		"a connection with a role's":     {fmt.Sprintf(connection, "db.example.com", "legacy"), true},
		"a connection at another server": {fmt.Sprintf(connection, "db2.example.com", "vault"), false},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan(t, options(parse(t, tt.text), m))
			if (p.Count(Blocked) == 1) != tt.taken || tt.taken && !strings.Contains(summary(p), "already: Vault would change its password for one") {
				t.Errorf("%s", summary(p))
			}
		})
	}
	m.data["database/config/d"]["allowed_roles"] = []any{"a-*"}
	if p := plan(t, options(parse(t, static("free")), m)); p.Count(Blocked) != 1 || !strings.Contains(summary(p), `adds "z-static" to its allowed_roles`) {
		t.Errorf("a connection that doesn't allow the role: %s", summary(p))
	}
}

// Vault never changes the account of a static role: another one is made in its place.
func TestStaticUsername(t *testing.T) {
	m := newMemory()
	apply(t, options(parse(t, everything), m))
	o := options(parse(t, strings.Replace(everything, `"legacy"`, `"newer"`, 1)), m)
	p := plan(t, o)
	if p.Count(Update) != 1 || !strings.Contains(summary(p), "made anew") {
		t.Errorf("the plan: %s", summary(p))
	}
	apply(t, o)
	if i := slices.Index(m.log, "delete database/static-roles/a-e-static"); i < 0 || text(m.data["database/static-roles/a-e-static"], "username") != "newer" {
		t.Errorf("%q", m.log)
	}
}

// A grant of a whole app that another manifest has reaches its environments, those to
// come, too.
func TestGrantsOfOthersWholeApps(t *testing.T) {
	m := newMemory()
	apply(t, options(parse(t, everything), m))
	for grant, want := range map[string]string{
		"a": `grants "a", which has environments, and would reach each of them, production too: name which (a/e)`, "b": "", "a/e": "", "nobody": `no manifest has made an app of that name without environments`,
	} {
		p := plan(t, options(parse(t, fmt.Sprintf("manifest = \"two\"\n[[app]]\nname = \"z\"\ngrants = [%q]\n", grant)), m))
		if p.Count(Blocked) != min(len(want), 1) || !strings.Contains(summary(p), want) {
			t.Errorf("%s: %s", grant, summary(p))
		}
	}
}

// A plan shows which rights a policy wins and loses, and not that its text is another.
func TestRightsWonAndLost(t *testing.T) {
	m := newMemory()
	apply(t, options(parse(t, everything), m))
	p := plan(t, options(parse(t, strings.Replace(everything, `grants = ["a/e"]`, `grants = ["x/y"]`, 1)), m))
	var got []string
	for _, c := range p.Changes {
		for _, f := range c.Fields {
			got = append(got, fmt.Sprintf("%s: %s: %q → %q", c.Name, f.Name, f.From, f.To))
		}
	}
	want := []string{
		`b: apikeys/creds/a/e/*: "read" → ""`, `b: apikeys/creds/x/y/*: "" → "read"`, `b: apikeys/stable-creds/a/e/*: "read" → ""`, `b: apikeys/stable-creds/x/y/*: "" → "read"`,
		`b: secret/data/a/e/*: "read" → ""`, `b: secret/data/x/y/*: "" → "read"`, `b: secret/metadata/a/e/*: "list, read" → ""`, `b: secret/metadata/x/y/*: "" → "list, read"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the plan shows\n%s", strings.Join(got, "\n"))
	}
	// What is no path is a change of the text.
	m.data["sys/policies/acl/b"]["policy"] = text(m.data["sys/policies/acl/b"], "policy") + "\n# more"
	p = plan(t, options(parse(t, everything), m))
	if p.Count(Update) != 1 || !slices.ContainsFunc(p.Changes, func(c Change) bool { return len(c.Fields) == 1 && c.Fields[0].Name == "policy" }) {
		t.Errorf("%s", summary(p))
	}
}
