package apps

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"strongroom.example/config"
)

// statements are what Vault runs for a dynamic role. Vault fills in {{name}},
// {{password}} and {{expiration}}, and runs each list in one transaction.
type statements struct {
	creation, renewal, revocation []string
}

func statementsFor(d config.Database, r config.DatabaseRole) statements {
	return statementsNamed(d, r, config.GroupRole)
}

// groupNames gives the name of the group for each access to a schema.
type groupNames func(d config.Database, schema, access string) string

func statementsNamed(d config.Database, r config.DatabaseRole, names groupNames) statements {
	if d.Engine == config.EnginePostgreSQL {
		return postgres(d, r, names)
	}
	return mysqlStatements(d, r)
}

// usernameTemplate gives users a name that says which role made them and when:
// one that is older than the role's max_ttl is a leftover. PostgreSQL allows 63
// bytes, MySQL 32.
func usernameTemplate(engine string) string {
	if engine == config.EnginePostgreSQL {
		return `{{ printf "sr-%s-%s-%s" (.RoleName | truncate 24) (random 12) (unix_time) }}`
	}
	return `{{ printf "sr-%s-%s-%s" (.RoleName | truncate 6) (random 9) (unix_time) }}`
}

// connectionURL is a connection as the server's plugin takes it, with the places for
// user and password left open. OpenBao's for PostgreSQL passes over tls_ca, and reads
// the file itself.
func connectionURL(d config.Database, on config.Product) (dsn, plugin string) {
	host, port := d.Address()
	address := net.JoinHostPort(host, strconv.Itoa(port))
	if d.Engine != config.EnginePostgreSQL {
		network := "tcp(" + address + ")"
		if strings.HasPrefix(host, "/") {
			network = "unix(" + host + ")"
		}
		dsn := "{{username}}:{{password}}@" + network + "/" + d.Database
		if d.TLSMode() == config.TLSVerifyFull && d.CAFile == "" {
			dsn += "?tls=true" // with a CA, Vault adds its own
		}
		return dsn, "mysql-database-plugin"
	}
	q := url.Values{"sslmode": {"verify-full"}, "application_name": {"vault"}}
	if d.TLSMode() == config.TLSOff {
		q.Set("sslmode", "disable")
	}
	if readsCA(d, on) {
		q.Set("sslrootcert", d.CAFile)
	}
	if strings.HasPrefix(host, "/") {
		q.Set("host", host)
		q.Set("port", strconv.Itoa(port))
		address = ""
	}
	return "postgresql://{{username}}:{{password}}@" + address + "/" + d.Database + "?" + q.Encode(), "postgresql-database-plugin"
}

// readsCA says that the server takes no authority, and reads it from a file on its own
// machine: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-SSLROOTCERT
func readsCA(d config.Database, on config.Product) bool {
	return d.Engine == config.EnginePostgreSQL && on == config.ProductOpenBao && d.CAFile != ""
}

// unreadCA is what to do where it can't.
func unreadCA(d config.Database, err error) string {
	if !strings.Contains(err.Error(), "unable to read CA file") && !strings.Contains(err.Error(), "unable to add CA to cert pool") {
		return ""
	}
	return fmt.Sprintf("OpenBao reads the authority itself: put it at %q on OpenBao's machine, too, where its user may read it (chmod 644)", d.CAFile)
}

func rotationStatements(engine, accountHost string) []string {
	if engine == config.EnginePostgreSQL {
		return []string{`ALTER ROLE "{{name}}" WITH PASSWORD '{{password}}'`}
	}
	if accountHost == "" {
		accountHost = "%"
	}
	return []string{`ALTER USER '{{name}}'@'` + accountHost + `' IDENTIFIED BY '{{password}}'`}
}

// postgres works with one group role for each access to a schema: users come
// and go as its members, so that issuing one changes no table's rights, and
// what an owner makes belongs to the group and not to a user that will be gone.
func postgres(d config.Database, r config.DatabaseRole, names groupNames) statements {
	owner := r.OwnerRole
	makeOwner, commented := "", ""
	if owner == "" {
		owner = names(d, r.Schema, config.AccessOwner)
		makeOwner = "  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$owner') THEN CREATE ROLE \"$owner\" NOLOGIN; END IF;\n"
		commented = ", '" + owner + "'"
	}
	group := names(d, r.Schema, r.Access)
	if r.Access == config.AccessOwner {
		group = owner
	}
	schema := r.Schema
	if schema == "" {
		schema = "public"
	}
	fill := strings.NewReplacer(
		"$owner", owner, "$ro", names(d, r.Schema, config.AccessReadOnly), "$rw", names(d, r.Schema, config.AccessReadWrite),
		"$schema", schema, "$commented", commented, "$group", group, "$database", d.Database,
	).Replace
	s := statements{
		creation: []string{
			fill(strings.Replace(pgGroups, "$makeowner\n", makeOwner, 1)),
			fill(`CREATE ROLE "{{name}}" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE "$group"`),
		},
		renewal:    []string{`ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'`},
		revocation: []string{pgLock, "COMMIT", "BEGIN", fill(pgRevoke)},
	}
	if r.Access == config.AccessOwner {
		// At login it becomes the group, so the group owns what it makes.
		s.creation = append(s.creation, fill(`ALTER ROLE "{{name}}" SET role = '$owner'`))
	}
	return s
}

// pgGroups makes groups, schema and rights where they are missing, and changes
// nothing otherwise. The lock keeps two requests from making them at once. It
// grants on what Vault's account may grant on, and passes over the rest.
const pgGroups = `DO $do$
DECLARE
  t record;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('strongroom'));
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$ro') THEN CREATE ROLE "$ro" NOLOGIN; END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$rw') THEN CREATE ROLE "$rw" NOLOGIN; END IF;
$makeowner
  IF NOT pg_has_role(current_user, '$owner', 'USAGE') THEN GRANT "$owner" TO CURRENT_USER; END IF;
  IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = '$schema') THEN
    CREATE SCHEMA "$schema" AUTHORIZATION "$owner";
  END IF;
  -- A group is one schema's: whoever finds it with another's words would reach both.
  FOR t IN SELECT g, shobj_description(r.oid, 'pg_authid') AS words FROM unnest(ARRAY['$ro', '$rw'$commented]) AS g JOIN pg_roles r ON r.rolname = g LOOP
    IF t.words LIKE 'strongroom: %' AND t.words <> 'strongroom: schema $schema of database $database' THEN
      RAISE EXCEPTION 'group role "%" is not this schema''s: it is of %', t.g, t.words USING HINT = 'docs/databases.md, Groups of before';
    END IF;
    IF t.words IS NULL THEN
      BEGIN
        EXECUTE format('COMMENT ON ROLE %I IS %L', t.g, 'strongroom: schema $schema of database $database');
      EXCEPTION WHEN insufficient_privilege THEN NULL; -- another account has made it
      END;
    END IF;
  END LOOP;
  FOR t IN SELECT g FROM unnest(ARRAY['$ro', '$rw', '$owner']) AS g LOOP
    IF NOT has_database_privilege(t.g, '$database', 'CONNECT') THEN EXECUTE format('GRANT CONNECT ON DATABASE "$database" TO %I', t.g); END IF;
    IF NOT has_schema_privilege(t.g, '$schema', 'USAGE') THEN EXECUTE format('GRANT USAGE ON SCHEMA "$schema" TO %I', t.g); END IF;
  END LOOP;
  IF '$group' = '$owner' AND NOT has_schema_privilege('$owner', '$schema', 'CREATE') THEN GRANT CREATE ON SCHEMA "$schema" TO "$owner"; END IF;
  FOR t IN SELECT format('%I.%I', '$schema', c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = '$schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_has_role(current_user, c.relowner, 'USAGE')
    AND NOT (has_table_privilege('$ro', c.oid, 'SELECT') AND has_table_privilege('$rw', c.oid, 'SELECT')
      AND has_table_privilege('$rw', c.oid, 'INSERT') AND has_table_privilege('$rw', c.oid, 'UPDATE') AND has_table_privilege('$rw', c.oid, 'DELETE'))
  LOOP
    EXECUTE 'GRANT SELECT ON ' || t.name || ' TO "$ro"';
    EXECUTE 'GRANT SELECT, INSERT, UPDATE, DELETE ON ' || t.name || ' TO "$rw"';
  END LOOP;
  FOR t IN SELECT format('%I.%I', '$schema', c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = '$schema' AND pg_has_role(current_user, c.relowner, 'USAGE')
    AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege('$rw', c.oid, 'USAGE') ELSE false END
  LOOP
    EXECUTE 'GRANT USAGE, SELECT ON SEQUENCE ' || t.name || ' TO "$rw"';
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_default_acl a JOIN pg_namespace n ON n.oid = a.defaclnamespace JOIN pg_roles r ON r.oid = a.defaclrole
    WHERE n.nspname = '$schema' AND r.rolname = '$owner' AND a.defaclobjtype = 'r' AND a.defaclacl::text LIKE '%$rw%') THEN
    ALTER DEFAULT PRIVILEGES FOR ROLE "$owner" IN SCHEMA "$schema" GRANT SELECT ON TABLES TO "$ro";
    ALTER DEFAULT PRIVILEGES FOR ROLE "$owner" IN SCHEMA "$schema" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "$rw";
    ALTER DEFAULT PRIVILEGES FOR ROLE "$owner" IN SCHEMA "$schema" GRANT USAGE, SELECT ON SEQUENCES TO "$rw";
  END IF;
END
$do$`

// pgLock, pgRevoke: a user ends for good. First it can't log in any more, and
// that is committed, or whoever keeps trying would come in until the end. (Vault
// wraps the list in one transaction of its own; COMMIT ends that and BEGIN opens
// the one that Vault will commit.) Then its sessions are ended, as an open
// transaction could hold what is to be handed over; what it owns is handed to
// the schema's owner; and the role goes. A user that is gone already is no
// error: Vault repeats a revocation until it succeeds.
const pgLock = `DO $do$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN
    ALTER ROLE "{{name}}" NOLOGIN PASSWORD NULL;
    IF NOT pg_has_role(current_user, '{{name}}', 'USAGE') THEN GRANT "{{name}}" TO CURRENT_USER; END IF;
  END IF;
END
$do$`

const pgRevoke = `DO $do$
DECLARE
  u oid;
  quiet int := 0;
BEGIN
  SELECT oid INTO u FROM pg_roles WHERE rolname = '{{name}}';
  IF u IS NULL THEN RETURN; END IF;
  -- Twice nobody: a login that had just passed the check shows a moment later.
  WHILE quiet < 2 LOOP
    PERFORM pg_stat_clear_snapshot();
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usesysid = u;
    IF FOUND THEN quiet := 0; ELSE quiet := quiet + 1; END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = '$owner') THEN REASSIGN OWNED BY "{{name}}" TO "$owner"; END IF;
  DROP OWNED BY "{{name}}";
  DROP ROLE "{{name}}";
END
$do$`

// mysqlGrants is what each access means on a database.
var mysqlGrants = map[string]string{
	config.AccessReadOnly:  "SELECT, SHOW VIEW",
	config.AccessReadWrite: "SELECT, INSERT, UPDATE, DELETE, SHOW VIEW, EXECUTE, CREATE TEMPORARY TABLES",
	config.AccessOwner:     "ALL PRIVILEGES",
}

// mysqlStatements are MariaDB's and MySQL's. Each takes effect at once, so the
// account is locked before its sessions are ended, and none can come back.
func mysqlStatements(d config.Database, r config.DatabaseRole) statements {
	require := ""
	if d.TLSMode() == config.TLSVerifyFull {
		require = " REQUIRE SSL"
	}
	days := int((r.MaxTTL + 24*time.Hour - 1) / (24 * time.Hour))
	kill := "KILL CONNECTION USER '{{name}}'@'%'"
	if d.Engine == config.EngineMySQL {
		kill = "CALL strongroom.kill_user('{{name}}')" // MySQL can't by itself: docs/databases.md
	}
	// "_" stands for any character in a grant.
	database := strings.ReplaceAll(d.Database, "_", `\_`)
	return statements{
		creation: []string{
			fmt.Sprintf("CREATE USER '{{name}}'@'%%' IDENTIFIED BY '{{password}}'%s PASSWORD EXPIRE INTERVAL %d DAY", require, days),
			fmt.Sprintf("GRANT %s ON `%s`.* TO '{{name}}'@'%%'", mysqlGrants[r.Access], database),
		},
		// Only Vault's lease ends it earlier; there is nothing to extend.
		renewal:    []string{},
		revocation: []string{"ALTER USER IF EXISTS '{{name}}'@'%' ACCOUNT LOCK", kill, "DROP USER IF EXISTS '{{name}}'@'%'"},
	}
}
