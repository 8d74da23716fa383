package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"strongroom.example/appliance/cli"
	"strongroom.example/test/vaulttest"
)

// startMariaDB starts Debian's MariaDB with a database "bikes".
func startMariaDB(t *testing.T) *dbServer {
	t.Helper()
	const install, daemon, client = "/usr/bin/mariadb-install-db", "/usr/sbin/mariadbd", "/usr/bin/mariadb"
	if _, err := os.Stat(daemon); err != nil {
		missing(t, "MariaDB")
	}
	cred, uid, gid := serverUser(t, "mysql")
	dir, ca := serverDir(t, uid, gid)
	s := &dbServer{dir: dir, port: freePort(t), caFile: ca}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "s")
	if _, err := asServer(ctx, cred, dir, "", install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=socket",
		"--auth-root-socket-user="+userName(t, uint32(uid)), "--skip-test-db"); err != nil {
		t.Fatal(err)
	}
	startServer(t, cred, dir, daemon, "--no-defaults", "--datadir="+data, "--socket="+socket, "--bind-address=127.0.0.1", "--port="+strconv.Itoa(s.port),
		"--pid-file="+filepath.Join(dir, "pid"), "--ssl-cert="+filepath.Join(dir, "server.crt"), "--ssl-key="+filepath.Join(dir, "server.key"),
		"--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M", "--performance-schema=OFF", "--skip-name-resolve")
	s.try = func(ctx context.Context, sql string) (string, error) {
		return asServer(ctx, cred, dir, sql, client, "--no-defaults", "--socket="+socket, "--batch", "--skip-column-names")
	}
	waitSQL(t, ctx, func(ctx context.Context) error {
		_, err := s.try(ctx, "CREATE DATABASE bikes; CREATE TABLE bikes.station_history (name text, bikes int); INSERT INTO bikes.station_history VALUES ('Harbour', 7); CREATE DATABASE other; CREATE TABLE other.t (n int)")
		return err
	})
	s.admin = adminOf(s)
	return s
}

func (s *dbServer) mysqlSession(t *testing.T, user, password string) (*sql.DB, error) {
	t.Helper()
	pem, err := os.ReadFile(s.caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName = user, password, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port), "bikes"
	c.TLS, c.Logger = &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db, db.PingContext(t.Context())
}

func (s *appSite) issueMySQL(t *testing.T, db *dbServer, role string) dbUser {
	t.Helper()
	l, err := s.as(t, s.admin).Lease(t.Context(), "database/creds/"+role)
	if err != nil {
		t.Fatal(err)
	}
	u := dbUser{name: l.Data["username"].(string), password: l.Data["password"].(string), lease: l.ID}
	if u.db, err = db.mysqlSession(t, u.name, u.password); err != nil {
		t.Fatalf("log in as %s: %v", role, err)
	}
	return u
}

// mariaApps is an app with every access to a database.
func mariaApps(engine string, db *dbServer) string {
	return fmt.Sprintf(`manifest = "data-team"
[[database]]
name          = "bikes"
engine        = %q
host          = "127.0.0.1"
port          = %d
database      = "bikes"
ca_file       = %q
username      = "vault"
password_file = %q
[[app]]
name = "bikes"
[[app.database]]
database = "bikes"
access   = "read-only"
[[app.database]]
database = "bikes"
access   = "read-write"
[[app.database]]
database = "bikes"
access   = "owner"
[[app.database]]
database = "bikes"
access   = "static"
username = "legacy"
`, engine, db.port, db.caFile, filepath.Join(db.dir, "password"))
}

func TestAppsMariaDB(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"mariadb", "mysql"} {
		t.Run(engine, func(t *testing.T) { mariaDB(t, engine) })
	}
}

func mariaDB(t *testing.T, engine string) {
	db := startMariaDB(t)
	host := "%"
	if engine == "mariadb" {
		host = "127.0.0.%" // an account need not be everywhere's
	}
	db.admin(t, strings.ReplaceAll(docBlock(t, "databases.md", "mariadb-account"), "'%'", "'"+host+"'"))
	db.admin(t, strings.ReplaceAll("CREATE USER legacy@'%' IDENTIFIED BY 'old'; GRANT SELECT ON bikes.* TO legacy@'%'", "'%'", "'"+host+"'"))
	if engine == "mysql" {
		db.admin(t, docBlock(t, "databases.md", "mysql-kill-user"))
		// As on MySQL, where the account that Vault has may not do it itself.
		db.admin(t, "REVOKE CONNECTION ADMIN ON *.* FROM vault@'%'")
	}
	if err := os.WriteFile(filepath.Join(db.dir, "password"), []byte("a-first-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := mariaApps(engine, db)
	if host != "%" {
		conf = strings.ReplaceAll(conf, "\nusername ", fmt.Sprintf("\naccount_host = %q\nusername ", host))
	}
	s := newAppSite(t, conf)
	s.applied(t)
	s.app(t, cli.ExitOK, "plan")
	gone := func(t *testing.T, u dbUser) {
		t.Helper()
		if n := db.admin(t, "SELECT count(*) FROM mysql.global_priv WHERE user = '"+u.name+"'"); n != "0" {
			t.Errorf("%s is still there", u.name)
		}
		// One that is ended needs a moment for it.
		ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
		defer cancel()
		waitSQL(t, ctx, func(context.Context) error {
			if n := db.admin(t, "SELECT count(*) FROM information_schema.processlist WHERE user = '"+u.name+"' AND command <> 'Killed'"); n != "0" {
				return fmt.Errorf("%s sessions of %s are open", n, u.name)
			}
			return nil
		})
		if err := u.db.PingContext(t.Context()); err == nil {
			t.Errorf("%s can log in", u.name)
		}
	}
	if _, err := db.mysqlSession(t, "vault", "a-first-password"); err == nil {
		t.Error("Vault's first password still works")
	}
	out := s.app(t, cli.ExitOK, "check-db")
	if strings.Count(out, "revoked, open session ended, login refused: ok") != 3 || !strings.Contains(out, "bikes-static (static): read, logged in: ok") {
		t.Errorf("check-db said:\n%s", out)
	}
	t.Run("rights", func(t *testing.T) {
		r, w, o := s.issueMySQL(t, db, "bikes-ro"), s.issueMySQL(t, db, "bikes-rw"), s.issueMySQL(t, db, "bikes-owner")
		r.exec(t, "SELECT * FROM station_history")
		r.refused(t, "INSERT INTO station_history VALUES ('x', 1)")
		w.exec(t, "INSERT INTO station_history VALUES ('x', 1)")
		w.refused(t, "DROP TABLE station_history")
		o.exec(t, "CREATE TABLE made (n int)")
		o.exec(t, "CREATE SQL SECURITY INVOKER VIEW made_view AS SELECT n FROM made")
		for _, u := range []dbUser{r, w, o} {
			u.refused(t, "SELECT * FROM other.t")
			u.refused(t, "SELECT * FROM mysql.global_priv")
			s.revoke(t, u)
			gone(t, u)
		}
		s.issueMySQL(t, db, "bikes-ro").exec(t, "SELECT * FROM made_view")
	})
	t.Run("an open transaction and somebody who keeps logging in", func(t *testing.T) {
		o := s.issueMySQL(t, db, "bikes-owner")
		tx, err := o.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "UPDATE station_history SET bikes = 8"); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				// Fewer than the server takes at once.
				for n := 0; n < 25 && ctx.Err() == nil; n++ {
					if other, err := db.mysqlSession(t, o.name, o.password); err == nil {
						_, _ = other.ExecContext(ctx, "SELECT 1") // stays open
					}
				}
			})
		}
		s.revoke(t, o)
		stop()
		wg.Wait()
		if _, err := tx.ExecContext(t.Context(), "SELECT 1"); err == nil {
			t.Error("the transaction goes on")
		}
		_ = tx.Rollback() // its connection is the pool's only one
		gone(t, o)
	})
	t.Run("needs TLS, and expires", func(t *testing.T) {
		u := s.issueMySQL(t, db, "bikes-ro")
		got := db.admin(t, "SHOW CREATE USER '"+u.name+"'@'%'")
		if !strings.Contains(got, "REQUIRE SSL") || !strings.Contains(got, "PASSWORD EXPIRE INTERVAL 1 DAY") {
			t.Errorf("the user is:\n%s", got)
		}
	})
	t.Run("a user that is gone already", func(t *testing.T) {
		u := s.issueMySQL(t, db, "bikes-ro")
		db.admin(t, "DROP USER '"+u.name+"'@'%'")
		s.revoke(t, u)
	})
}
