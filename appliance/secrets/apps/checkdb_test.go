package apps

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
)

// leasing gives credentials of every dynamic role.
type leasing struct{ *memory }

func (leasing) Lease(_ context.Context, path string) (Lease, error) {
	return Lease{ID: path + "/1", Data: vaultapi.Data{"username": "u", "password": "canary"}}, nil
}

// closed is a port of this machine where nobody listens.
func closed(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A server that cannot be reached is no fault of the role, and the user that was
// made for the check is not left.
func TestCheckDBUnreachable(t *testing.T) {
	for _, engine := range []string{config.EnginePostgreSQL, config.EngineMariaDB, config.EngineMySQL} {
		for name, tt := range map[string]struct {
			access  string
			failAt  int // the revocation
			done    string
			revokes int
		}{
			"dynamic":                {config.AccessReadOnly, 0, "[issued]", 1},
			"dynamic and not ending": {config.AccessReadOnly, 1, "[issued]", 1},
			"static":                 {config.AccessStatic, 0, "[read]", 0},
		} {
			t.Run(engine+"/"+name, func(t *testing.T) {
				m := newMemory()
				m.data["database/static-creds/r"] = map[string]any{"username": "u", "password": "canary"}
				m.failAt = tt.failAt
				d := config.Database{Name: "d", Engine: engine, Host: "127.0.0.1", Port: closed(t), Database: "d", TLS: config.TLSOff}
				got, err := CheckDB(t.Context(), leasing{m}, config.Apps{Databases: []config.Database{d}}, config.DatabaseRole{Name: "r", Database: "d", Access: tt.access})
				if err == nil || got.Fault != "" || fmt.Sprint(got.Done) != tt.done || strings.Contains(err.Error(), "canary") {
					t.Errorf("%+v, %v", got, err)
				}
				if n := strings.Count(strings.Join(m.log, "\n"), "write sys/leases/revoke"); n != tt.revokes {
					t.Errorf("%d revocations: %q", n, m.log)
				}
				if errors.Is(err, errInjected) != (tt.failAt != 0) {
					t.Errorf("a user may be left, and it is told as %v", err)
				}
			})
		}
	}
}

// A lease that is shorter than the file says is found when it is given.
func TestCheckDBShortLease(t *testing.T) {
	d := config.Database{Name: "d", Engine: config.EnginePostgreSQL, Host: "127.0.0.1", Port: closed(t), Database: "d", TLS: config.TLSOff}
	for given, short := range map[time.Duration]bool{time.Hour: true, 48*time.Hour - 5*time.Second: false, 48 * time.Hour: false} {
		m := newMemory()
		got, _ := CheckDB(t.Context(), shortLease{m, given}, config.Apps{Databases: []config.Database{d}}, config.DatabaseRole{Name: "r", Database: "d", Access: config.AccessReadOnly, TTL: 48 * time.Hour})
		if strings.Contains(got.Fault, "the file says 48h") != short {
			t.Errorf("%v: %+v", given, got)
		}
		if n := strings.Count(strings.Join(m.log, "\n"), "write sys/leases/revoke/database/creds/r/1"); n != 1 {
			t.Errorf("%v: %d revocations: %q", given, n, m.log)
		}
	}
}

type shortLease struct {
	*memory
	given time.Duration
}

func (v shortLease) Lease(_ context.Context, path string) (Lease, error) {
	return Lease{ID: path + "/1", Duration: v.given, Data: vaultapi.Data{"username": "u", "password": "canary"}}, nil
}

func TestCheckDBWithoutRole(t *testing.T) {
	d := config.Database{Name: "d", Engine: config.EnginePostgreSQL, Host: "127.0.0.1", Database: "d"}
	r := config.DatabaseRole{Name: "r", Database: "d", Access: config.AccessStatic}
	got, err := CheckDB(t.Context(), newMemory(), config.Apps{Databases: []config.Database{d}}, r)
	if err != nil || !strings.Contains(got.Fault, "no such role") || len(got.Done) != 0 {
		t.Errorf("not applied yet: %+v, %v", got, err)
	}
	r.Access = config.AccessOwner
	if got, err = CheckDB(t.Context(), newMemory(), config.Apps{Databases: []config.Database{d}}, r); err == nil || got.Fault != "" {
		t.Errorf("no lease: %+v, %v", got, err)
	}
	for name, lacking := range map[string]config.Database{"no host": {Name: "d", Database: "d"}, "no database": {Name: "d", Host: "h"}} {
		if _, err := CheckDB(t.Context(), newMemory(), config.Apps{Databases: []config.Database{lacking}}, r); err == nil || !strings.Contains(err.Error(), `database "d"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The way to a server is checked as the file says; what cannot be read is not
// the system's roots.
func TestTLSOfDatabase(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		d     config.Database
		tls   bool
		fault string
	}{
		"off":               {config.Database{TLS: config.TLSOff, CAFile: empty + "none"}, false, ""},
		"the system's":      {config.Database{Host: "db"}, true, ""},
		"no CA file":        {config.Database{Host: "db", CAFile: empty + "none"}, false, "no such file"},
		"no certificate in": {config.Database{Host: "db", CAFile: empty}, false, "holds no PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tlsOf(tt.d)
			if (got != nil) != tt.tls || (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
				t.Fatalf("%v, %v", got, err)
			}
			if got != nil && (got.ServerName != "db" || got.InsecureSkipVerify) {
				t.Errorf("checks the name %q, or nothing", got.ServerName)
			}
			for _, engine := range []string{config.EnginePostgreSQL, config.EngineMySQL} {
				tt.d.Engine, tt.d.Database, tt.d.Host = engine, "d", "db"
				s, err := serverOf(tt.d)
				if err != nil {
					t.Fatal(err)
				}
				if db, err := s.open("u", "p"); (err == nil) != (tt.fault == "") {
					t.Errorf("%s: %v", engine, err)
				} else if err == nil {
					db.Close()
				}
			}
		})
	}
}

// Only the server's word that a login is refused proves that a user is gone.
func TestRefusedLogin(t *testing.T) {
	for name, tt := range map[string]struct {
		s    server
		err  error
		want bool
	}{
		"PostgreSQL, the password":  {postgresServer{}, &pgconn.PgError{Code: "28P01"}, true},
		"PostgreSQL, no such role":  {postgresServer{}, &pgconn.PgError{Code: "28000"}, true},
		"PostgreSQL, too many":      {postgresServer{}, &pgconn.PgError{Code: "53300"}, false},
		"PostgreSQL, shutting down": {postgresServer{}, &pgconn.PgError{Code: "57P03"}, false},
		"PostgreSQL, no answer":     {postgresServer{}, net.ErrClosed, false},
		"MySQL, the password":       {mysqlServer{}, &mysql.MySQLError{Number: 1045}, true},
		"MySQL, no password":        {mysqlServer{}, &mysql.MySQLError{Number: 1698}, true},
		"MySQL, locked":             {mysqlServer{}, &mysql.MySQLError{Number: 3118}, true},
		"MariaDB, locked":           {mysqlServer{}, &mysql.MySQLError{Number: 4151}, true},
		"MySQL, too many":           {mysqlServer{}, &mysql.MySQLError{Number: 1040}, false},
		"MySQL, no answer":          {mysqlServer{}, mysql.ErrInvalidConn, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := fmt.Errorf("log in: %w", tt.err)
			if got := tt.s.refused(err); got != tt.want {
				t.Errorf("refused: %t", got)
			}
			var f fault
			if got := errors.As(loginFault(tt.s, err), &f); got != tt.want {
				t.Errorf("a fault of the role: %t", got)
			}
		})
	}
}

// Where nothing is mounted there is nothing; anything else that Vault refuses is
// an error.
func TestNothingMounted(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		none   bool
	}{
		"nothing mounted":  {404, `{"errors":["no handler for route \"a\". route entry not found."]}`, true},
		"nothing there":    {404, `{"errors":[]}`, true},
		"another server":   {404, `not found`, false},
		"denied":           {403, `{"errors":["permission denied"]}`, false},
		"unknown to Vault": {404, `{"errors":["1 error occurred:\n\t* unsupported path\n\n"]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := answering(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			})
			if got, err := v.Read(t.Context(), "a"); got != nil || (err == nil) != tt.none {
				t.Errorf("read %v, %v", got, err)
			}
			if got, err := v.List(t.Context(), "a"); got != nil || (err == nil) != tt.none {
				t.Errorf("listed %v, %v", got, err)
			}
			if got, err := v.Lease(t.Context(), "a"); got.ID != "" || err == nil {
				t.Errorf("leased %v, %v", got.ID, err)
			}
		})
	}
}
