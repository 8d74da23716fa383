package apps

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"strongroom.example/config"
)

func TestConnectionURL(t *testing.T) {
	const bao = config.ProductOpenBao
	const pg, my, maria = config.EnginePostgreSQL, config.EngineMySQL, config.EngineMariaDB
	for name, tt := range map[string]struct {
		d            config.Database
		want, plugin string
		on           config.Product
	}{
		"PostgreSQL":           {config.Database{Engine: pg, Host: "db", Database: "d"}, "postgresql://{{username}}:{{password}}@db:5432/d?application_name=vault&sslmode=verify-full", "postgresql", ""},
		"IPv6 and a port":      {config.Database{Engine: pg, Host: "::1", Port: 1, Database: "d", TLS: config.TLSOff}, "postgresql://{{username}}:{{password}}@[::1]:1/d?application_name=vault&sslmode=disable", "postgresql", ""},
		"by a socket":          {config.Database{Engine: pg, Host: "/run/pg", Database: "d", TLS: config.TLSOff}, "postgresql://{{username}}:{{password}}@/d?application_name=vault&host=%2Frun%2Fpg&port=5432&sslmode=disable", "postgresql", ""},
		"MySQL":                {config.Database{Engine: my, Host: "db", Database: "d"}, "{{username}}:{{password}}@tcp(db:3306)/d?tls=true", "mysql", ""},
		"MariaDB with its CA":  {config.Database{Engine: maria, Host: "db", Database: "d", CAFile: "/ca"}, "{{username}}:{{password}}@tcp(db:3306)/d", "mysql", ""},
		"MariaDB without TLS":  {config.Database{Engine: maria, Host: "127.0.0.1", Port: 1, Database: "d", TLS: config.TLSOff}, "{{username}}:{{password}}@tcp(127.0.0.1:1)/d", "mysql", ""},
		"MariaDB, by a socket": {config.Database{Engine: maria, Host: "/run/m.sock", Database: "d", TLS: config.TLSOff}, "{{username}}:{{password}}@unix(/run/m.sock)/d", "mysql", ""},
		"PostgreSQL, its CA":   {config.Database{Engine: pg, Host: "db", Database: "d", CAFile: "/ca"}, "postgresql://{{username}}:{{password}}@db:5432/d?application_name=vault&sslmode=verify-full", "postgresql", ""},
		"on OpenBao":           {config.Database{Engine: pg, Host: "db", Database: "d", CAFile: "/a b/ca"}, "postgresql://{{username}}:{{password}}@db:5432/d?application_name=vault&sslmode=verify-full&sslrootcert=%2Fa+b%2Fca", "postgresql", bao},
		"on OpenBao, no CA":    {config.Database{Engine: pg, Host: "db", Database: "d"}, "postgresql://{{username}}:{{password}}@db:5432/d?application_name=vault&sslmode=verify-full", "postgresql", bao},
		"MariaDB on OpenBao":   {config.Database{Engine: maria, Host: "db", Database: "d", CAFile: "/ca"}, "{{username}}:{{password}}@tcp(db:3306)/d", "mysql", bao},
	} {
		t.Run(name, func(t *testing.T) {
			if dsn, plugin := connectionURL(tt.d, tt.on); dsn != tt.want || plugin != tt.plugin+"-database-plugin" {
				t.Errorf("%s of %s", dsn, plugin)
			}
		})
	}
}

func TestMySQLStatements(t *testing.T) {
	for name, tt := range map[string]struct {
		d    config.Database
		r    config.DatabaseRole
		want []string // creation, then revocation
	}{
		"read only": {
			config.Database{Engine: config.EngineMariaDB, Database: "d_1", TLS: config.TLSOff}, config.DatabaseRole{Access: config.AccessReadOnly, MaxTTL: 24 * time.Hour},
			[]string{
				"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' PASSWORD EXPIRE INTERVAL 1 DAY", "GRANT SELECT, SHOW VIEW ON `d\\_1`.* TO '{{name}}'@'%'",
				"ALTER USER IF EXISTS '{{name}}'@'%' ACCOUNT LOCK", "KILL CONNECTION USER '{{name}}'@'%'", "DROP USER IF EXISTS '{{name}}'@'%'",
			},
		},
		"read and write, by TLS": {
			config.Database{Engine: config.EngineMariaDB, Database: "d"}, config.DatabaseRole{Access: config.AccessReadWrite, MaxTTL: 24*time.Hour + 1},
			[]string{
				"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' REQUIRE SSL PASSWORD EXPIRE INTERVAL 2 DAY",
				"GRANT SELECT, INSERT, UPDATE, DELETE, SHOW VIEW, EXECUTE, CREATE TEMPORARY TABLES ON `d`.* TO '{{name}}'@'%'",
				"ALTER USER IF EXISTS '{{name}}'@'%' ACCOUNT LOCK", "KILL CONNECTION USER '{{name}}'@'%'", "DROP USER IF EXISTS '{{name}}'@'%'",
			},
		},
		"owner, of MySQL": {
			config.Database{Engine: config.EngineMySQL, Database: "d", TLS: config.TLSOff}, config.DatabaseRole{Access: config.AccessOwner, MaxTTL: time.Hour},
			[]string{
				"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' PASSWORD EXPIRE INTERVAL 1 DAY", "GRANT ALL PRIVILEGES ON `d`.* TO '{{name}}'@'%'",
				"ALTER USER IF EXISTS '{{name}}'@'%' ACCOUNT LOCK", "CALL strongroom.kill_user('{{name}}')", "DROP USER IF EXISTS '{{name}}'@'%'",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := statementsFor(tt.d, tt.r)
			if got := append(s.creation, s.revocation...); strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got\n%s", strings.Join(got, "\n"))
			}
			if s.renewal == nil || len(s.renewal) != 0 { // none would be Vault's own
				t.Errorf("renews by %q", s.renewal)
			}
		})
	}
}

// Whoever owns the schema is made where nobody is named, and is never made
// where somebody is; no place of the text is left open but Vault's own.
func TestPostgresStatements(t *testing.T) {
	vaults := regexp.MustCompile(`\{\{(name|password|expiration)\}\}`)
	open := regexp.MustCompile(`\$(owner|makeowner|ro|rw|schema|group|database)\b|\{\{`)
	d := config.Database{Engine: config.EnginePostgreSQL, Database: "d"}
	for name, tt := range map[string]struct {
		r           config.DatabaseRole
		with, never []string
	}{
		"read only":      {config.DatabaseRole{Access: config.AccessReadOnly}, []string{`IN ROLE "sr_d_public_ro"`, `CREATE ROLE "sr_d_public_owner" NOLOGIN`}, []string{"SET role"}},
		"another schema": {config.DatabaseRole{Access: config.AccessReadWrite, Schema: "s"}, []string{`IN ROLE "sr_d_s_rw"`, `CREATE SCHEMA "s" AUTHORIZATION "sr_d_s_owner"`}, []string{"public", "SET role"}},
		"owner":          {config.DatabaseRole{Access: config.AccessOwner}, []string{`IN ROLE "sr_d_public_owner"`, `ALTER ROLE "{{name}}" SET role = 'sr_d_public_owner'`}, nil},
		"a named owner":  {config.DatabaseRole{Access: config.AccessOwner, OwnerRole: "boss"}, []string{`IN ROLE "boss"`, `SET role = 'boss'`, `REASSIGN OWNED BY "{{name}}" TO "boss"`}, []string{`CREATE ROLE "boss"`, "sr_d_public_owner"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := statementsFor(d, tt.r)
			all := strings.Join(append(append(s.creation, s.renewal...), s.revocation...), "\n")
			for _, part := range tt.with {
				if !strings.Contains(all, part) {
					t.Errorf("%s is not in\n%s", part, all)
				}
			}
			for _, part := range tt.never {
				if strings.Contains(all, part) {
					t.Errorf("%s is in\n%s", part, all)
				}
			}
			if left := open.FindString(vaults.ReplaceAllString(all, "")); left != "" {
				t.Errorf("%q is left open", left)
			}
		})
	}
}

// A user's name fits into what the server takes: 63 bytes, or 32.
func TestUsernameTemplate(t *testing.T) {
	parts := regexp.MustCompile(`truncate (\d+)\) \(random (\d+)\)`)
	for engine, most := range map[string]int{config.EnginePostgreSQL: 63, config.EngineMariaDB: 32, config.EngineMySQL: 32} {
		m := parts.FindStringSubmatch(usernameTemplate(engine))
		if m == nil {
			t.Fatalf("%s: %s", engine, usernameTemplate(engine))
		}
		var role, random int
		if _, err := fmt.Sscan(m[1]+" "+m[2], &role, &random); err != nil {
			t.Fatal(err)
		}
		if n := len("sr-") + role + len("-") + random + len("-") + len("9999999999"); n > most {
			t.Errorf("%s: %d bytes of %d", engine, n, most)
		}
		if s := rotationStatements(engine, ""); len(s) != 1 || strings.Contains(s[0], "'%'") != (engine != config.EnginePostgreSQL) || !strings.Contains(s[0], "{{password}}") {
			t.Errorf("%s: rotates by %q", engine, s)
		}
	}
}
