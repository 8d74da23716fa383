package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/cli"
	"strongroom.example/test/vaulttest"
)

// startPooler is PgBouncer before pg, with TLS, which asks the server for the
// users' secrets; each client has a session of its own there.
func startPooler(t *testing.T, pg *dbServer) *dbServer {
	t.Helper()
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		path = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, "PgBouncer")
	}
	cred, uid, gid := serverUser(t, "postgres")
	dir, ca := serverDir(t, uid, gid)
	s := &dbServer{dir: dir, port: freePort(t), caFile: ca, admin: pg.admin, try: pg.try}
	pg.admin(t, "CREATE ROLE pooler LOGIN SUPERUSER PASSWORD 'poolers-own'")
	ini := fmt.Sprintf(`[databases]
bikes = host=127.0.0.1 port=%d dbname=bikes auth_user=pooler
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s/users
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1
pool_mode = session
server_tls_sslmode = require
client_tls_sslmode = require
client_tls_cert_file = %s/server.crt
client_tls_key_file = %s/server.key
server_reset_query = DISCARD ALL
ignore_startup_parameters = extra_float_digits
`, pg.port, s.port, dir, dir, dir)
	for name, text := range map[string]string{"ini": ini, "users": `"pooler" "poolers-own"` + "\n"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	startServer(t, cred, dir, path, filepath.Join(dir, "ini"))
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	waitSQL(t, ctx, func(context.Context) error { _, err := s.session(t, "pooler", "poolers-own"); return err })
	return s
}

// A pooler stands between Vault and its database: users come and go through it,
// and check-db understands how it refuses one that is gone.
func TestAppsThroughAPooler(t *testing.T) {
	t.Parallel()
	pg := startPostgres(t)
	pg.admin(t, docBlock(t, "databases.md", "postgresql-account"))
	pool := startPooler(t, pg)
	s := newAppSite(t, exampleApps(t, pool))
	s.applied(t)
	out := s.app(t, cli.ExitOK, "check-db", "--app", "bike-data-flow")
	if strings.Count(out, "revoked, open session ended, login refused: ok") != 3 {
		t.Errorf("it said:\n%s", out)
	}
	s.app(t, cli.ExitOK, "plan")
}
