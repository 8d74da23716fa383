package apps

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"strongroom.example/config"
)

func serverOf(d config.Database) (server, error) {
	if d.Host == "" || d.Database == "" {
		return nil, fmt.Errorf("database %q: host and database are needed to log in to it", d.Name)
	}
	if d.Engine == config.EnginePostgreSQL {
		return postgresServer{d}, nil
	}
	return mysqlServer{d}, nil
}

// tlsOf is the way to a database as the file has it; nil: none.
func tlsOf(d config.Database) (*tls.Config, error) {
	if d.TLSMode() == config.TLSOff {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: d.Host}
	if d.CAFile != "" {
		pem, err := readSmall(d.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file of database %q: %w", d.Name, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file of database %q: %q holds no PEM certificate", d.Name, d.CAFile)
		}
	}
	return t, nil
}

type postgresServer struct{ d config.Database }

func (s postgresServer) open(user, password string) (*sql.DB, error) {
	t, err := tlsOf(s.d)
	if err != nil {
		return nil, err
	}
	host, port := s.d.Address()
	// sslmode is for the parser; the configuration that it makes is replaced.
	u := url.URL{Scheme: "postgresql", Path: "/" + s.d.Database, RawQuery: url.Values{
		"host": {host}, "port": {strconv.Itoa(port)}, "sslmode": {"disable"}, "application_name": {"strongroom-check"},
	}.Encode()}
	c, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", s.d.Name, err)
	}
	c.User, c.Password, c.TLSConfig, c.Fallbacks = user, password, t, nil
	c.ConnectTimeout = 10 * time.Second
	return stdlib.OpenDB(*c), nil
}

func (s postgresServer) probe(ctx context.Context, db *sql.Conn, r config.DatabaseRole) ([]string, error) {
	schema := orElse(r.Schema, "public")
	var create bool
	var tables, readable, writable int
	err := db.QueryRowContext(ctx, `SELECT has_schema_privilege($1, 'CREATE'), count(c.oid),
		count(c.oid) FILTER (WHERE has_table_privilege(c.oid, 'SELECT')),
		count(c.oid) FILTER (WHERE has_table_privilege(c.oid, 'INSERT') OR has_table_privilege(c.oid, 'UPDATE') OR has_table_privilege(c.oid, 'DELETE'))
		FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p') WHERE n.nspname = $1`, schema).
		Scan(&create, &tables, &readable, &writable)
	if err != nil {
		return nil, fmt.Errorf("look at schema %q: %w", schema, err)
	}
	var notes []string
	if readable < tables {
		notes = append(notes, fmt.Sprintf("%d of %d tables in schema %q can't be read: Vault's account may not grant on them", tables-readable, tables, schema))
	}
	switch r.Access {
	case config.AccessReadOnly:
		if writable > 0 || create {
			return notes, fmt.Errorf("it may write: %d tables, new ones: %t", writable, create)
		}
	case config.AccessReadWrite:
		if create {
			return notes, fmt.Errorf("it may create tables in schema %q", schema)
		}
		if writable < tables {
			notes = append(notes, fmt.Sprintf("%d of %d tables in schema %q can't be written", tables-writable, tables, schema))
		}
	case config.AccessOwner:
		return notes, s.makeTable(ctx, db, schema)
	}
	return notes, nil
}

// makeTable makes a table and takes it back with its transaction.
func (s postgresServer) makeTable(ctx context.Context, db *sql.Conn, schema string) (err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	if _, err := tx.ExecContext(ctx, `CREATE TABLE `+pgx.Identifier{schema, "strongroom_check"}.Sanitize()+` (n int)`); err != nil {
		return fmt.Errorf("create a table in schema %q: %w", schema, err)
	}
	return nil
}

// ofPoolers is how a pooler refuses a user that the server does not know any more:
// as a violation of the protocol, or an internal error, by its words alone.
// Sources: https://github.com/pgbouncer/pgbouncer (src/client.c), https://github.com/supabase/supavisor
var ofPoolers = regexp.MustCompile(`(?i)^(no such user|auth failed|login rejected|(password|SASL) authentication failed|(Tenant or )?user not found)`)

func (postgresServer) refused(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	return strings.HasPrefix(pe.Code, "28") || // invalid authorization
		(pe.Code == "08P01" || pe.Code == "XX000") && ofPoolers.MatchString(pe.Message)
}

type mysqlServer struct{ d config.Database }

func (s mysqlServer) open(user, password string) (*sql.DB, error) {
	t, err := tlsOf(s.d)
	if err != nil {
		return nil, err
	}
	host, port := s.d.Address()
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName, c.TLS, c.Timeout = user, password, s.d.Database, t, 10*time.Second
	c.Net, c.Addr = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
	if strings.HasPrefix(host, "/") {
		c.Net, c.Addr = "unix", host
	}
	c.Logger = &mysql.NopLogger{} // a session that is ended is what we want
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("database %q: %w", s.d.Name, err)
	}
	return sql.OpenDB(connector), nil
}

func (s mysqlServer) probe(ctx context.Context, db *sql.Conn, r config.DatabaseRole) ([]string, error) {
	if _, err := db.ExecContext(ctx, "SHOW TABLES"); err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	table := "strongroom_check_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	_, err := db.ExecContext(ctx, "CREATE TABLE `"+table+"` (n int)")
	if r.Access == config.AccessOwner {
		if err != nil {
			return nil, fmt.Errorf("create a table: %w", err)
		}
		if _, err := db.ExecContext(ctx, "DROP TABLE `"+table+"`"); err != nil {
			return nil, fmt.Errorf("drop the table: %w", err)
		}
		return nil, nil
	}
	if err == nil {
		return []string{"the empty table " + table + " is left"}, errors.New("it may create tables")
	}
	var me *mysql.MySQLError
	if !errors.As(err, &me) || me.Number != 1142 { // ER_TABLEACCESS_DENIED_ERROR
		return nil, fmt.Errorf("try to create a table: %w", err)
	}
	return nil, nil
}

func (mysqlServer) refused(err error) bool {
	var me *mysql.MySQLError
	if !errors.As(err, &me) {
		return false
	}
	switch me.Number {
	case 1045, 1698, // ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR
		3118, 4151: // ER_ACCOUNT_HAS_BEEN_LOCKED of MySQL and MariaDB
		return true
	}
	return false
}
