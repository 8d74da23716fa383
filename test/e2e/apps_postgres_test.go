package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"strongroom.example/appliance/cli"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// session logs in as an app does.
func (s *dbServer) session(t *testing.T, user, password string) (*sql.DB, error) {
	t.Helper()
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(user, password), Host: fmt.Sprintf("127.0.0.1:%d", s.port), Path: "/bikes",
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.caFile}}.Encode()}
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db, db.PingContext(t.Context())
}

type dbUser struct {
	name, password, lease string
	db                    *sql.DB
}

// issue gets a user of a role and logs in.
func (s *appSite) issue(t *testing.T, db *dbServer, role string) dbUser {
	t.Helper()
	l, err := s.as(t, s.admin).Lease(t.Context(), "database/creds/"+role)
	if err != nil {
		t.Fatal(err)
	}
	u := dbUser{name: l.Data["username"].(string), password: l.Data["password"].(string), lease: l.ID}
	if u.db, err = db.session(t, u.name, u.password); err != nil {
		t.Fatalf("log in as %s: %v", role, err)
	}
	return u
}

func (u dbUser) exec(t *testing.T, query string) {
	t.Helper()
	if _, err := u.db.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (u dbUser) refused(t *testing.T, query string) {
	t.Helper()
	if _, err := u.db.ExecContext(t.Context(), query); err == nil || !strings.Contains(err.Error(), "permission denied") && !strings.Contains(err.Error(), "denied to user") && !strings.Contains(err.Error(), "must be owner") {
		t.Errorf("%s: %v, want permission denied", query, err)
	}
}

func (s *appSite) revoke(t *testing.T, u dbUser) {
	t.Helper()
	if _, err := s.as(t, s.admin).Write(t.Context(), "sys/leases/revoke", map[string]any{"lease_id": u.lease, "sync": true}); err != nil {
		t.Fatal(err)
	}
}

func TestAppsPostgreSQL(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t)
	pg.admin(t, docBlock(t, "databases.md", "postgresql-account"))
	s := newAppSite(t, exampleApps(t, pg))
	out := s.applied(t)
	if !strings.Contains(out, "created database bikes") {
		t.Errorf("apply said:\n%s", out)
	}
	const rw, ro, owner = "bike-data-flow-production-rw", "bike-data-flow-production-ro", "bike-data-flow-staging-owner"
	gone := func(t *testing.T, u dbUser) {
		t.Helper()
		if n := pg.admin(t, "SELECT count(*) FROM pg_roles WHERE rolname = '"+u.name+"'"); n != "0" {
			t.Errorf("%s is still there", u.name)
		}
		// One that is ended needs a moment for it, as one does that may not log in.
		ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
		defer cancel()
		waitSQL(t, ctx, func(context.Context) error {
			if n := pg.admin(t, "SELECT count(*) FROM pg_stat_activity WHERE usename IS NULL AND backend_type = 'client backend' OR usename = '"+u.name+"'"); n != "0" {
				return fmt.Errorf("%s sessions of %s are open", n, u.name)
			}
			return nil
		})
		if err := u.db.PingContext(t.Context()); err == nil {
			t.Errorf("%s can log in", u.name)
		}
	}

	t.Run("Vault's own password is rotated", func(t *testing.T) {
		if _, err := pg.session(t, "vault", "a-first-password"); err == nil {
			t.Error("the first password still works")
		}
	})
	t.Run("check-db, as the docs have it", func(t *testing.T) {
		args := strings.Fields(docBlock(t, "databases.md", "check-db"))[2:]
		out := s.app(t, cli.ExitOK, args...)
		if strings.Count(out, "issued, logged in, used as") != 3 || strings.Count(out, "revoked, open session ended, login refused: ok") != 3 {
			t.Errorf("it said:\n%s", out)
		}
	})
	t.Run("check-db, by the app's owner", func(t *testing.T) {
		owner := s.token(t, "bikes-owner", config.OwnerPolicy("bike-data-flow"))
		if out := s.appAs(t, cli.ExitOK, owner, "check-db", "--app", "bike-data-flow"); strings.Count(out, "login refused: ok") != 3 {
			t.Errorf("it said:\n%s", out)
		}
	})
	t.Run("read-only and read-write", func(t *testing.T) {
		r, w := s.issue(t, pg, ro), s.issue(t, pg, rw)
		r.exec(t, "SELECT * FROM station_history")
		r.refused(t, "INSERT INTO station_history VALUES ('x', 1)")
		r.refused(t, "CREATE TABLE x (n int)")
		r.refused(t, "CREATE ROLE x")
		w.exec(t, "INSERT INTO station_history VALUES ('Main Street', 4)")
		w.exec(t, "DELETE FROM station_history WHERE name = 'Main Street'")
		w.refused(t, "DROP TABLE station_history")
		w.refused(t, "CREATE TABLE x (n int)")
		// A table that came later, made by the owner of the database.
		pg.admin(t, "SET ROLE bikes_owner; CREATE TABLE later (n int)")
		s.issue(t, pg, ro).exec(t, "SELECT * FROM later")
		for _, u := range []dbUser{r, w} {
			s.revoke(t, u)
			gone(t, u)
		}
	})
	t.Run("the owner's tables stay, and are others' to use", func(t *testing.T) {
		o := s.issue(t, pg, owner)
		o.exec(t, "CREATE TABLE staging.made (id serial, n int)")
		o.exec(t, "SET ROLE none")
		o.exec(t, "CREATE TABLE staging.of_the_user (n int)")
		if n := pg.admin(t, "SELECT count(*) FROM pg_tables WHERE tableowner = '"+o.name+"'"); n != "1" {
			t.Fatalf("%s tables belong to the user, want 1", n)
		}
		s.revoke(t, o)
		gone(t, o)
		if got := pg.admin(t, "SELECT string_agg(DISTINCT tableowner, ',') || count(*) FROM pg_tables WHERE schemaname = 'staging'"); got != "sr_bikes_staging_owner2" {
			t.Errorf("owner and number of tables = %q", got)
		}
		s.issue(t, pg, owner).exec(t, "DROP TABLE staging.of_the_user")
	})
	t.Run("an open transaction is ended", func(t *testing.T) {
		o := s.issue(t, pg, owner)
		o.exec(t, "SET ROLE none")
		o.exec(t, "CREATE TABLE staging.locked (n int)")
		tx, err := o.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "LOCK TABLE staging.locked IN ACCESS EXCLUSIVE MODE"); err != nil {
			t.Fatal(err)
		}
		s.revoke(t, o)
		if _, err := tx.ExecContext(t.Context(), "SELECT 1"); err == nil {
			t.Error("the transaction goes on")
		}
		_ = tx.Rollback()
		gone(t, o)
	})
	t.Run("who keeps logging in is out all the same", func(t *testing.T) { stormLogin(t, s, pg, rw, gone) })
	t.Run("valid until, and renewed", func(t *testing.T) {
		u := s.issue(t, pg, rw)
		until := func() float64 {
			var seconds float64
			if _, err := fmt.Sscan(pg.admin(t, "SELECT extract(epoch FROM rolvaliduntil - now()) FROM pg_roles WHERE rolname = '"+u.name+"'"), &seconds); err != nil {
				t.Fatal(err)
			}
			return seconds
		}
		if got := until(); got < 3500 || got > 3700 {
			t.Errorf("valid for %.0f s, want an hour", got)
		}
		if _, err := s.as(t, s.admin).Write(t.Context(), "sys/leases/renew", map[string]any{"lease_id": u.lease, "increment": 7200}); err != nil {
			t.Fatal(err)
		}
		if got := until(); got < 7000 || got > 7300 {
			t.Errorf("valid for %.0f s after a renewal, want two hours", got)
		}
		s.revoke(t, u)
	})
	t.Run("many at once", func(t *testing.T) {
		v := s.as(t, s.admin)
		var wg sync.WaitGroup
		for i := range 24 {
			wg.Go(func() {
				l, err := v.Lease(t.Context(), "database/creds/"+[]string{rw, ro, owner}[i%3])
				if err == nil {
					_, err = v.Write(t.Context(), "sys/leases/revoke", map[string]any{"lease_id": l.ID, "sync": true})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("a user that is gone already", func(t *testing.T) {
		u := s.issue(t, pg, ro)
		pg.admin(t, "DROP ROLE \""+u.name+"\"")
		s.revoke(t, u)
	})
	t.Run("another certificate is refused", func(t *testing.T) {
		other := writeCertificate(t, t.TempDir())
		s2 := strings.Replace(exampleApps(t, pg), pg.caFile, other, 1)
		s.write(t, s2)
		if out := s.app(t, cli.ExitFailed, "apply", "--resend-secrets"); !strings.Contains(out, "certificate") {
			t.Errorf("it said:\n%s", out)
		}
		s.write(t, exampleApps(t, pg))
		s.issue(t, pg, ro) // as before
	})
	t.Run("static role", func(t *testing.T) { staticRole(t, s, pg) })
	t.Run("prune", func(t *testing.T) {
		u := s.issue(t, pg, owner)
		conf := exampleApps(t, pg)
		from, to := strings.Index(conf, "[[app.environment]]\nname    = \"staging\""), strings.Index(conf, "# Dagster has no")
		s.write(t, strings.Replace(conf[:from]+conf[to:], `, "bike-data-flow/staging"`, "", 1))
		s.app(t, cli.ExitOK, "apply")
		out := s.app(t, cli.ExitDrift, "prune")
		for _, want := range []string{"- approle bike-data-flow-staging", "- database role " + owner, "- policy bike-data-flow-staging", "- secret bike-data-flow/staging/database-url"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		s.app(t, cli.ExitOK, "prune", "--yes")
		gone(t, u)
		s.app(t, cli.ExitOK, "prune")
		s.app(t, cli.ExitOK, "plan")
	})
	if leases := pg.admin(t, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'sr-%' AND state = 'idle in transaction'"); leases != "0" {
		t.Errorf("%s transactions are left", leases)
	}
}

// stormLogin has clients log in again and again while their user is revoked.
func stormLogin(t *testing.T, s *appSite, pg *dbServer, role string, gone func(*testing.T, dbUser)) {
	u := s.issue(t, pg, role)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var once sync.Once
	running := make(chan struct{})
	late := make(chan string, 1000)
	revoked := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				db, err := pg.session(t, u.name, u.password)
				if err != nil {
					select {
					case <-revoked:
						return
					default:
						continue
					}
				}
				once.Do(func() { close(running) })
				// The session is kept until the test ends.
				select {
				case <-revoked:
					if _, err := db.ExecContext(ctx, "SELECT * FROM station_history"); err == nil {
						late <- "a session that began while the user was revoked still reads"
					}
				default:
				}
			}
		})
	}
	<-running
	s.revoke(t, u)
	close(revoked)
	stop()
	wg.Wait()
	close(late)
	for what := range late {
		t.Error(what)
		break
	}
	gone(t, u)
}

func staticRole(t *testing.T, s *appSite, pg *dbServer) {
	pg.admin(t, "CREATE ROLE legacy LOGIN PASSWORD 'old'; GRANT SELECT ON station_history TO legacy")
	conf := strings.Replace(exampleApps(t, pg), "[[app.environment.key]]", "[[app.environment.database]]\ndatabase = \"bikes\"\naccess = \"static\"\nusername = \"legacy\"\nrotation_period = \"24h\"\n\n[[app.environment.key]]", 1)
	s.write(t, conf)
	s.applied(t)
	if _, err := pg.session(t, "legacy", "old"); err == nil {
		t.Error("the old password of the static account works")
	}
	out := s.app(t, cli.ExitOK, "check-db", "--app", "bike-data-flow", "--env", "production")
	if !strings.Contains(out, "bike-data-flow-production-static (static): read, logged in, rotatable: ok") {
		t.Errorf("it said:\n%s", out)
	}
	s.write(t, exampleApps(t, pg))
	s.app(t, cli.ExitOK, "prune", "--yes")
	s.app(t, cli.ExitOK, "apply")
}

// What check-db says of roles that don't work.
func TestAppsCheckDBFindsFaults(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t)
	pg.admin(t, docBlock(t, "databases.md", "postgresql-account"))
	s := newAppSite(t, exampleApps(t, pg))
	s.applied(t)
	v := s.as(t, s.admin)
	const ro = "bike-data-flow-production-ro"
	role, err := v.Read(t.Context(), "database/roles/"+ro)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, want string
		statements map[string]any
	}{
		{"a revocation that does nothing", "still alive after the revocation", map[string]any{"revocation_statements": []string{"SELECT 1"}}},
		{"a revocation that fails", "the revocation fails", map[string]any{"revocation_statements": []string{`DROP ROLE "nobody"`}}},
		{"more rights than it should have", "it may write", map[string]any{"creation_statements": []string{
			`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE bikes_owner`,
		}}},
		{"a wrong password", "don't log in", map[string]any{"creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD 'x'`}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changed := map[string]any{}
			for k, x := range role {
				changed[k] = x
			}
			for k, x := range tt.statements {
				changed[k] = x
			}
			if _, err := v.Write(t.Context(), "database/roles/"+ro, changed); err != nil {
				t.Fatal(err)
			}
			if out := s.app(t, cli.ExitDrift, "plan"); !strings.Contains(out, "~ database role "+ro) {
				t.Errorf("the plan doesn't show it:\n%s", out)
			}
			if out := s.app(t, cli.ExitDrift, "check-db", "--app", "bike-data-flow", "--env", "production"); !strings.Contains(out, tt.want) {
				t.Errorf("no %q in:\n%s", tt.want, out)
			}
			s.applied(t)
		})
	}
	t.Run("a server that can't be reached", func(t *testing.T) {
		s.write(t, strings.Replace(exampleApps(t, pg), fmt.Sprintf("port = %d", pg.port), "port = 1", 1))
		if out := s.app(t, cli.ExitFailed, "check-db", "--app", "bike-data-flow", "--env", "production"); !strings.Contains(out, "connection refused") {
			t.Errorf("it said:\n%s", out)
		}
	})
}
