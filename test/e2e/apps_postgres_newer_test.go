package e2e

import (
	"strings"
	"testing"

	"strongroom.example/appliance/cli"
)

// Since PostgreSQL 16 CREATEROLE reaches the roles alone that an account has made
// itself: what Vault's account lacks is named by apply and check-db, with the
// statement that gives it.
func TestAppsOnNewerPostgreSQL(t *testing.T) {
	t.Parallel()
	for _, major := range []string{"16", "18"} {
		t.Run(major, func(t *testing.T) {
			t.Parallel()
			pg := startNewerPostgres(t, major)
			pg.admin(t, docBlock(t, "databases.md", "postgresql-account"))
			s := newAppSite(t, exampleApps(t, pg))
			s.applied(t)
			t.Run("dynamic roles", func(t *testing.T) {
				out := s.app(t, cli.ExitOK, "check-db", "--app", "bike-data-flow")
				if strings.Count(out, "revoked, open session ended, login refused: ok") != 3 {
					t.Errorf("it said:\n%s", out)
				}
				o := s.issue(t, pg, "bike-data-flow-staging-owner")
				o.exec(t, "CREATE TABLE staging.made (id serial, n int)")
				o.exec(t, "SET ROLE none")
				o.exec(t, "CREATE TABLE staging.of_the_user (n int)")
				s.revoke(t, o)
				if n := pg.admin(t, "SELECT count(*) FROM pg_roles WHERE rolname = '"+o.name+"'"); n != "0" {
					t.Errorf("%s is still there", o.name)
				}
			})
			t.Run("a static account", func(t *testing.T) {
				pg.admin(t, "CREATE ROLE legacy LOGIN PASSWORD 'old'")
				grant := docBlock(t, "databases.md", "postgresql-admin-option")
				s.write(t, strings.Replace(exampleApps(t, pg), "[[app.environment.key]]", staticEntry+"[[app.environment.key]]", 1))
				if out := s.app(t, cli.ExitDrift, "plan"); !strings.Contains(out, grant) {
					t.Errorf("plan does not say what PostgreSQL %s needs:\n%s", major, out)
				}
				if out := s.app(t, cli.ExitOperator, "apply"); !strings.Contains(out, grant) {
					t.Errorf("apply said:\n%s", out)
				}
				if _, err := pg.session(t, "legacy", "old"); err != nil {
					t.Errorf("the password is gone, and nobody has the new one: %v", err)
				}
				pg.admin(t, grant)
				s.applied(t)
				if _, err := pg.session(t, "legacy", "old"); err == nil {
					t.Error("the old password still works")
				}
				one := []string{"check-db", "--app", "bike-data-flow", "--env", "production"}
				if out := s.app(t, cli.ExitOK, one...); !strings.Contains(out, "bike-data-flow-production-static (static): read, logged in, rotatable: ok") {
					t.Errorf("it said:\n%s", out)
				}
				// As on a server that was 15 when the role was made.
				pg.admin(t, `REVOKE ADMIN OPTION FOR "legacy" FROM "vault"`)
				if out := s.app(t, cli.ExitDrift, one...); !strings.Contains(out, grant) {
					t.Errorf("check-db does not see that it can't be rotated any more:\n%s", out)
				}
				pg.admin(t, "DROP OWNED BY legacy; DROP ROLE legacy")
				if out := s.app(t, cli.ExitDrift, one...); !strings.Contains(out, "don't log in") {
					t.Errorf("an account that is gone:\n%s", out)
				}
				s.write(t, exampleApps(t, pg))
				s.app(t, cli.ExitOK, "prune", "--yes")
			})
			t.Run("a second account of Vault's", func(t *testing.T) {
				pg.admin(t, strings.ReplaceAll(docBlock(t, "databases.md", "postgresql-account"), " vault ", " vault2 "))
				conf := exampleApps(t, pg)
				from := strings.Index(conf, "[[database]]")
				to := from + strings.Index(conf[from:], "\n\n")
				second := strings.NewReplacer(`name     = "bikes"`, `name = "second"`, `username      = "vault"`, `username = "vault2"`).Replace(conf[from:to])
				if second == conf[from:to] || strings.Contains(second, `"vault"`) {
					t.Fatalf("the example has changed:\n%s", second)
				}
				conf = conf[:to] + "\n\n" + second + conf[to:]
				s.write(t, strings.Replace(conf, "[[app.environment.key]]", "[[app.environment.database]]\ndatabase = \"second\"\naccess = \"read-only\"\nname = \"bike-data-flow-production-second\"\n\n[[app.environment.key]]", 1))
				s.applied(t)
				const groups = `"sr_bikes_public_ro", "sr_bikes_public_rw", "sr_bikes_public_owner"`
				grant := "GRANT " + groups + ` TO "vault2" WITH ADMIN OPTION;`
				if out := s.app(t, cli.ExitOK, "plan"); !strings.Contains(out, grant) {
					t.Errorf("plan does not say what the second account needs:\n%s", out)
				}
				one := []string{"check-db", "--app", "bike-data-flow", "--env", "production"}
				if out := s.app(t, cli.ExitDrift, one...); !strings.Contains(out, grant) {
					t.Errorf("check-db said:\n%s", out)
				}
				pg.admin(t, grant)
				s.app(t, cli.ExitOK, one...)
			})
		})
	}
}

const staticEntry = "[[app.environment.database]]\ndatabase = \"bikes\"\naccess = \"static\"\nusername = \"legacy\"\nrotation_period = \"24h\"\n\n"
