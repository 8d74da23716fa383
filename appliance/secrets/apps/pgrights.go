package apps

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
)

// Since PostgreSQL 16 CREATEROLE reaches only roles on which an account has ADMIN
// OPTION, which it gets for what it makes itself.
// Source: https://www.postgresql.org/docs/16/role-attributes.html

// noAlter and noGrant are what PostgreSQL says to an account without ADMIN OPTION;
// 15 and older have other words for the second.
var (
	noAlter = regexp.MustCompile(`permission denied to alter role`)
	noGrant = regexp.MustCompile(`permission denied to grant role|must have admin option on role`)
)

// adminOption is the statement that gives Vault's account what it needs on roles.
func adminOption(d config.Database, roles ...string) string {
	quoted := make([]string, len(roles))
	for i, r := range roles {
		quoted[i] = pgx.Identifier{r}.Sanitize()
	}
	account := `"…"` // whoever has made the connection knows it
	if d.Username != "" {
		account = pgx.Identifier{d.Username}.Sanitize()
	}
	return "GRANT " + strings.Join(quoted, ", ") + " TO " + account + " WITH ADMIN OPTION;"
}

// missingRight is the statement for a refusal that Vault tells from a PostgreSQL
// server; empty for all others.
func missingRight(d config.Database, r config.DatabaseRole, err error) string {
	switch {
	case err == nil || d.Engine != config.EnginePostgreSQL:
		return ""
	case r.Access == config.AccessStatic && noAlter.MatchString(err.Error()):
		return adminOption(d, r.Username)
	case r.Access != config.AccessStatic && noGrant.MatchString(err.Error()):
		return adminOption(d, groupsOf(d, r)...)
	}
	return ""
}

// groupsOf are the roles that issuing a user of r grants.
func groupsOf(d config.Database, r config.DatabaseRole) []string {
	return groupsNamed(d, r, config.GroupRole)
}

func groupsNamed(d config.Database, r config.DatabaseRole, names groupNames) []string {
	owner := r.OwnerRole
	if owner == "" {
		owner = names(d, r.Schema, config.AccessOwner)
	}
	return []string{names(d, r.Schema, config.AccessReadOnly), names(d, r.Schema, config.AccessReadWrite), owner}
}

const runThere = "run at the database, as a superuser or as who made the role: "

// rotatable asks, as a static account, whether Vault's may change its password.
func (s postgresServer) rotatable(ctx context.Context, db *sql.Conn, r config.DatabaseRole) error {
	if s.d.Username == "" {
		return nil // whose the connection is, this file does not say
	}
	var may bool
	err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int < 160000
		OR EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolsuper)
		OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles v ON v.oid = m.member
			WHERE r.rolname = current_user AND m.admin_option AND v.rolname = $1)`, s.d.Username).Scan(&may)
	switch {
	case err != nil:
		return fmt.Errorf("look at what Vault's account may: %w", err)
	case !may:
		return fault{fmt.Errorf("account %q, Vault's own, can't change its password at the next rotation; %s%s", s.d.Username, runThere, adminOption(s.d, r.Username))}
	}
	return nil
}

// sharedGroups notes where two accounts of Vault's work in one schema: since 16 only
// the first, which has made the groups, can grant them.
func (w *world) sharedGroups() []string {
	accounts := map[string][]string{} // by server, database and schema, the names of the databases
	statements := map[string]string{}
	for _, t := range w.targets {
		for _, r := range t.Databases {
			d, _ := w.conf.Database(r.Database)
			if d.Engine != config.EnginePostgreSQL || r.Access == config.AccessStatic {
				continue
			}
			host, port := d.Address()
			groups := groupsNamed(d, r, w.names(d, r.Schema))
			at := fmt.Sprint(host, port, d.Database, groups)
			if !slices.Contains(accounts[at], d.Username) {
				accounts[at] = append(accounts[at], d.Username)
				statements[at+d.Username] = adminOption(d, groups...)
			}
		}
	}
	var out []string
	for _, at := range sortedKeys(accounts) {
		all := accounts[at]
		if len(all) < 2 {
			continue
		}
		say := fmt.Sprintf("accounts %s of Vault's issue users for one schema: from PostgreSQL 16 on only the one that issues first can; for the others %s", words.List(all, 5), runThere)
		for _, account := range all {
			say += statements[at+account] + " "
		}
		out = append(out, strings.TrimSpace(say))
	}
	return out
}
