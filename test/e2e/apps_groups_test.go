package e2e

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"strongroom.example/appliance/cli"
)

// twoSchemas are two that earlier versions gave one group.
func twoSchemas(t *testing.T, pg *dbServer) string {
	t.Helper()
	password := filepath.Join(pg.dir, "password")
	if err := os.WriteFile(password, []byte("a-first-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("manifest = \"m\"\n")
	for _, d := range []struct{ name, database, account, app, schema string }{
		{"one", "bikes", "vault", "bike", "prod_data"}, {"two", "bikes_prod", "vault2", "payroll", "data"},
	} {
		fmt.Fprintf(&b, "[[database]]\nname = %q\nengine = \"postgresql\"\nhost = \"127.0.0.1\"\nport = %d\ndatabase = %q\nca_file = %q\nusername = %q\npassword_file = %q\n",
			d.name, pg.port, d.database, pg.caFile, d.account, password)
		fmt.Fprintf(&b, "[[app]]\nname = %q\n[[app.database]]\ndatabase = %q\naccess = \"read-only\"\nschema = %q\n[[app.database]]\ndatabase = %q\naccess = \"owner\"\nschema = %q\n", d.app, d.name, d.schema, d.name, d.schema)
	}
	return b.String()
}

// in logs in to a database.
func (s *dbServer) in(t *testing.T, database string, u dbUser) *sql.DB {
	t.Helper()
	at := url.URL{Scheme: "postgresql", User: url.UserPassword(u.name, u.password), Host: "127.0.0.1:" + strconv.Itoa(s.port), Path: "/" + database,
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.caFile}}.Encode()}
	db, err := sql.Open("pgx", at.String())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (s *appSite) userOf(t *testing.T, role string) dbUser {
	t.Helper()
	l, err := s.as(t, s.admin).Lease(t.Context(), "database/creds/"+role)
	if err != nil {
		t.Fatal(err)
	}
	return dbUser{name: l.Data["username"].(string), password: l.Data["password"].(string), lease: l.ID}
}

// Two schemas whose groups had one name: an app of one read the other's tables. New
// ones never do; old ones are named, and parted when somebody says so, with users that
// were issued before, during and after.
func TestAppsGroupsOfTwoSchemas(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t)
	pg.admin(t, docBlock(t, "databases.md", "postgresql-account"))
	pg.admin(t, strings.ReplaceAll(docBlock(t, "databases.md", "postgresql-account"), " vault ", " vault2 "))
	pg.admin(t, "CREATE DATABASE bikes_prod OWNER bikes_owner")
	pg.admin(t, "\\c bikes_prod\nCREATE SCHEMA data AUTHORIZATION bikes_owner; CREATE TABLE data.payroll (n int); ALTER TABLE data.payroll OWNER TO bikes_owner;")
	s := newAppSite(t, twoSchemas(t, pg))
	s.applied(t)
	reads := func(who string, u dbUser, may bool) {
		t.Helper()
		_, err := pg.in(t, "bikes_prod", u).ExecContext(t.Context(), "SELECT * FROM data.payroll")
		if (err == nil) != may || err != nil && !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s reads the payroll: %v, want %t", who, err, may)
		}
	}
	reads("payroll", s.userOf(t, "payroll-ro"), true)
	reads("bike", s.userOf(t, "bike-ro"), false)

	// As an earlier version made them.
	words := regexp.MustCompile(`(?s)  -- A group is one schema's.*?END LOOP;\n  FOR t IN SELECT g FROM unnest`)
	for _, role := range []string{"bike-ro", "bike-owner", "payroll-ro", "payroll-owner"} {
		got, err := s.Root.Read(t.Context(), "database/roles/"+role)
		if err != nil {
			t.Fatal(err)
		}
		old := map[string]any{}
		for _, field := range []string{"creation_statements", "revocation_statements"} {
			var list []string
			for _, text := range got[field].([]any) {
				text := strings.NewReplacer("sr_bikes.prod_data", "sr_bikes_prod_data", "sr_bikes_prod.data", "sr_bikes_prod_data").Replace(text.(string))
				list = append(list, words.ReplaceAllString(text, "  FOR t IN SELECT g FROM unnest"))
			}
			old[field] = list
		}
		if _, err := s.Root.Write(t.Context(), "database/roles/"+role, old); err != nil {
			t.Fatal(err)
		}
	}
	s.userOf(t, "payroll-ro")
	before := s.userOf(t, "bike-owner")
	if _, err := pg.in(t, "bikes", before).ExecContext(t.Context(), "CREATE TABLE prod_data.made (n int)"); err != nil {
		t.Fatal(err)
	}
	thief := s.userOf(t, "bike-ro")
	reads("bike, by the group of both,", thief, true)

	for _, verb := range []string{"plan", "apply"} {
		out := s.app(t, cli.ExitOperator, verb)
		for _, want := range []string{`schema "prod_data" of database "bikes"`, `schema "data" of database "bikes_prod"`, "--split-groups", "4 in the way"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %s in:\n%s", verb, want, out)
			}
		}
	}
	out := s.app(t, cli.ExitOK, "apply", "--split-groups")
	if again := s.app(t, cli.ExitOK, "plan"); !strings.Contains(again, "0 to create, 0 to change") {
		t.Errorf("then the plan is:\n%s", again)
	}
	reads("bike, issued after,", s.userOf(t, "bike-ro"), false)
	reads("payroll, issued after,", s.userOf(t, "payroll-ro"), true)
	owner := s.userOf(t, "bike-owner")
	// What the page and the output say: after the first user, then after the last of before.
	run := func(when string) {
		t.Helper()
		found := regexp.MustCompile(`note: in database "(\w+)", `+when+`[^:]*: (.*)`).FindAllStringSubmatch(out, -1)
		if len(found) != 2 {
			t.Fatalf("%d statements to run %s in:\n%s", len(found), when, out)
		}
		for _, m := range found {
			pg.admin(t, "\\c "+m[1]+"\n"+m[2])
		}
	}
	run("what the old ones own")
	run("after strongroom app check-db")
	if _, err := pg.in(t, "bikes", owner).ExecContext(t.Context(), "ALTER TABLE prod_data.made ADD COLUMN m int"); err != nil {
		t.Errorf("an owner issued after the parting and a table of before: %v", err)
	}
	for _, u := range []dbUser{thief, before} {
		s.revoke(t, u)
		if n := pg.admin(t, "SELECT count(*) FROM pg_roles WHERE rolname = '"+u.name+"'"); n != "0" {
			t.Errorf("%s is still there", u.name)
		}
	}
	run("when the last user of before")
	pg.admin(t, "\\c bikes_prod\nDO $$ BEGIN IF has_schema_privilege('sr_bikes_prod_data_ro', 'data', 'USAGE') THEN RAISE 'the old group reaches it'; END IF; END $$")
	s.app(t, cli.ExitOK, "check-db")

	t.Run("a group with another schema's words is refused in SQL", func(t *testing.T) {
		pg.admin(t, `COMMENT ON ROLE "sr_bikes.prod_data_ro" IS 'strongroom: schema x of database y'`)
		if _, err := s.as(t, s.admin).Lease(t.Context(), "database/creds/bike-ro"); err == nil || !strings.Contains(err.Error(), "is not this schema's") {
			t.Errorf("issued: %v", err)
		}
		pg.admin(t, `COMMENT ON ROLE "sr_bikes.prod_data_ro" IS NULL`)
	})
	t.Run("of two password files one is missing", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(pg.dir, "password2"), []byte("another-password\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		first := strings.Replace(twoSchemas(t, pg), filepath.Join(pg.dir, "password"), filepath.Join(pg.dir, "password2"), 1)
		s.write(t, strings.Replace(first, strconv.Quote(filepath.Join(pg.dir, "password")), `"/nowhere"`, 1))
		pg.admin(t, "ALTER ROLE vault PASSWORD 'another-password'")
		if out := s.app(t, cli.ExitOperator, "apply", "--resend-secrets"); !strings.Contains(out, "/nowhere") || strings.Contains(out, "updated") {
			t.Errorf("it said:\n%s", out)
		}
		if _, err := pg.session(t, "vault", "another-password"); err != nil {
			t.Errorf("one password was sent and rotated, the other not: %v", err)
		}
		s.app(t, cli.ExitOK, "apply", "--resend", "database/one")
		if _, err := pg.session(t, "vault", "another-password"); err == nil {
			t.Error("it was sent, and not rotated")
		}
		s.app(t, cli.ExitOK, "plan")
	})
	t.Run("a database that is gone", func(t *testing.T) {
		s.userOf(t, "bike-ro")
		pg.admin(t, "ALTER ROLE vault NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'vault'")
		s.write(t, "manifest = \"m\"\n")
		out := s.app(t, cli.ExitOperator, "prune", "--yes")
		for _, want := range []string{"removed database two", "removed approle bike", `end the users of database role "bike-ro"`, "vault lease revoke -force -prefix database/creds/bike-"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		if strings.Contains(out, "removed database one") {
			t.Errorf("its connection is gone, and its users never end:\n%s", out)
		}
		pg.admin(t, "ALTER ROLE vault LOGIN")
		s.app(t, cli.ExitOK, "prune", "--yes")
		s.app(t, cli.ExitOK, "plan")
		if n := pg.admin(t, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'sr-%'"); n != "0" {
			t.Errorf("%s users are left", n)
		}
	})
}
