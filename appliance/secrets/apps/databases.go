package apps

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// databases is what Vault has of databases already, whoever has made it. What may
// not be listed is not there.
type databases struct {
	connections map[string]connectionSeen
	dynamic     map[string]map[string]any // roles by name
	static      map[string]map[string]any
}

type connectionSeen struct {
	known    bool // of an engine of ours, with a URL of our form
	of       config.Database
	username string
	allowed  []string
}

// lookAtDatabases reads all connections and roles, where the file has a database or
// the ledger a role of this manifest.
func (w *world) lookAtDatabases(ctx context.Context) error {
	w.db = databases{map[string]connectionSeen{}, map[string]map[string]any{}, map[string]map[string]any{}}
	owns := slices.ContainsFunc(w.ledger.of(w.conf.Manifest), func(id string) bool { return strings.HasPrefix(id, kindConnection) })
	if w.mounts[machine.MountDatabase] == "" || len(w.conf.Databases) == 0 && !owns {
		return nil
	}
	var mu sync.Mutex
	all := func(folder string, take func(name string, got map[string]any)) error {
		names, err := w.vault.List(ctx, "database/"+folder)
		if vaultapi.IsDenied(err) {
			return nil // an app's owner: his plan compares what is his
		}
		if err != nil {
			return err
		}
		return each(ctx, len(names), func(ctx context.Context, i int) error {
			got, err := w.read(ctx, "database/"+folder+"/"+names[i])
			if vaultapi.IsDenied(err) || got == nil {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			take(names[i], got)
			return nil
		})
	}
	if err := all("config", func(name string, got map[string]any) { w.db.connections[name] = seenConnection(got) }); err != nil {
		return err
	}
	if err := all("roles", func(name string, got map[string]any) { w.db.dynamic[name] = got }); err != nil {
		return err
	}
	return all("static-roles", func(name string, got map[string]any) { w.db.static[name] = got })
}

// rotatesAt finds the host of an account in the statement that rotates its password.
var rotatesAt = regexp.MustCompile(`'@'([^']+)'`)

func seenConnection(got map[string]any) connectionSeen {
	details, _ := got["connection_details"].(map[string]any)
	c := connectionSeen{username: text(details, "username"), allowed: stringsOf(got["allowed_roles"])}
	engine := map[string]string{"postgresql-database-plugin": config.EnginePostgreSQL, "mysql-database-plugin": config.EngineMySQL}[text(got, "plugin_name")]
	host, port, name, ok := parseDSN(engine, text(details, "connection_url"))
	if !ok {
		return c
	}
	c.known, c.of = true, config.Database{Engine: engine, Host: host, Port: port, Database: name, Username: c.username}
	for _, s := range stringsOf(got["root_credentials_rotate_statements"]) {
		if m := rotatesAt.FindStringSubmatch(s); m != nil {
			c.of.AccountHost = m[1]
		}
	}
	return c
}

var mysqlDSN = regexp.MustCompile(`@(tcp|unix)\(([^)]*)\)/([^?]*)`)

// parseDSN reads where a connection leads, of the forms that connectionURL writes and
// that people write most.
func parseDSN(engine, dsn string) (host string, port int, name string, ok bool) {
	switch engine {
	case config.EngineMySQL:
		m := mysqlDSN.FindStringSubmatch(dsn)
		if m == nil {
			return "", 0, "", false
		}
		if m[1] == "unix" {
			return m[2], 0, m[3], true
		}
		host, port := cutPort(m[2])
		return host, port, m[3], true
	case config.EnginePostgreSQL:
		dsn = strings.NewReplacer("{{username}}", "u", "{{password}}", "p").Replace(dsn)
		u, err := url.Parse(dsn)
		if err != nil || u.Scheme != "postgresql" && u.Scheme != "postgres" {
			return "", 0, "", false
		}
		host, port = u.Hostname(), 0
		if h := u.Query().Get("host"); h != "" {
			host = h
		}
		if p, err := strconv.Atoi(orElse(u.Port(), u.Query().Get("port"))); err == nil {
			port = p
		}
		return host, port, strings.TrimPrefix(u.Path, "/"), host != ""
	}
	return "", 0, "", false
}

func cutPort(address string) (string, int) {
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return address, 0
	}
	port, err := strconv.Atoi(address[i+1:])
	if err != nil {
		return address, 0
	}
	return strings.Trim(address[:i], "[]"), port
}

// accountTaken says which other object of Vault's changes the password of an
// account, too: then each kills the other's.
func (w *world) accountTaken(o object, d config.Database, user, host string) string {
	if d.Host == "" {
		d = w.db.connections[d.Name].of // external, and the file doesn't say where
	}
	if d.Host == "" || user == "" {
		return ""
	}
	account := d.Account(user, host)
	for _, name := range sortedKeys(w.db.connections) {
		c := w.db.connections[name]
		if c.known && o.id() != kindConnection+"/"+name && c.of.Account(c.username, c.of.AccountHost) == account {
			return fmt.Sprintf("account %q is that of connection %q already: Vault would change its password for one, and the other's would be dead", user, name)
		}
	}
	for _, name := range sortedKeys(w.db.static) {
		got := w.db.static[name]
		c := w.db.connections[text(got, "db_name")]
		at := ""
		for _, s := range stringsOf(got["rotation_statements"]) {
			if m := rotatesAt.FindStringSubmatch(s); m != nil {
				at = m[1]
			}
		}
		if c.known && o.id() != kindStaticRole+"/"+name && c.of.Account(text(got, "username"), at) == account {
			return fmt.Sprintf("account %q is that of the static database role %q already: Vault would change its password for one, and the other's would be dead", user, name)
		}
	}
	return ""
}

// externalFault says what is wrong with a connection that somebody else has made.
func (w *world) externalFault(d config.Database, role string) string {
	if !d.External || w.mounts[machine.MountDatabase] == "" || len(w.db.connections) == 0 {
		return ""
	}
	c, there := w.db.connections[d.Name]
	if !there {
		return fmt.Sprintf("connection %q, which is external, is not in Vault", d.Name)
	}
	for _, allowed := range c.allowed {
		if allowed == role || strings.HasSuffix(allowed, "*") && strings.HasPrefix(role, strings.TrimSuffix(allowed, "*")) {
			return ""
		}
	}
	return fmt.Sprintf("connection %q, which is external, does not allow the role: whoever has made it adds %q to its allowed_roles", d.Name, role)
}

// usersOf are the roles that work over a connection, but for those that are about to
// go, sorted.
func (w *world) usersOf(connection string, going func(id string) bool) []string {
	var out []string
	for kind, roles := range map[string]map[string]map[string]any{kindDBRole: w.db.dynamic, kindStaticRole: w.db.static} {
		for name, got := range roles {
			if text(got, "db_name") == connection && !going(kind+"/"+name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// ── groups of PostgreSQL ─────────────────────────────────────────────────────

// pair is a schema of a server's database.
type pair struct{ server, database, schema string }

func pairOf(d config.Database, schema string) pair {
	return pair{d.Server(), d.Database, orElse(schema, "public")}
}

const (
	// kindGroups is the ledger's kind for groups that keep the name of before.
	kindGroups = "database groups"
	// nobody owns them: they are the schema's.
	nobody = "_"
)

func (p pair) id() string { return kindGroups + "/" + p.database + "/" + p.schema + " " + p.server }

func (p pair) String() string {
	return fmt.Sprintf("schema %q of database %q", p.schema, p.database)
}

var (
	madeGroup  = regexp.MustCompile(`THEN CREATE ROLE "(sr_[^"]+)_ro" NOLOGIN`)
	inDatabase = regexp.MustCompile(`GRANT CONNECT ON DATABASE "([^"]+)" TO`)
	inSchema   = regexp.MustCompile(`nspname = '([^']+)'`)
)

// groupsInUse are the schemas for which a name of groups is used, by server and name.
func (w *world) groupsInUse() map[string][]pair {
	out := map[string][]pair{}
	add := func(at string, p pair) {
		if !slices.Contains(out[at], p) {
			out[at] = append(out[at], p)
		}
	}
	for _, name := range sortedKeys(w.db.dynamic) {
		got := w.db.dynamic[name]
		c := w.db.connections[text(got, "db_name")]
		made := strings.Join(stringsOf(got["creation_statements"]), "\n")
		group, database, schema := madeGroup.FindStringSubmatch(made), inDatabase.FindStringSubmatch(made), inSchema.FindStringSubmatch(made)
		if !c.known || group == nil || database == nil || schema == nil {
			continue
		}
		add(c.of.Server()+" "+group[1], pair{c.of.Server(), database[1], schema[1]})
	}
	for id, e := range w.ledger.entries {
		if rest, ok := strings.CutPrefix(id, kindGroups+"/"); ok && e.owner == nobody {
			names, server, _ := strings.Cut(rest, " ")
			database, schema, _ := strings.Cut(names, "/")
			add(server+" "+e.path, pair{server, database, schema})
		}
	}
	return out
}

// nameGroups decides what the groups of each schema are called. Those of before keep
// their name where it stands for one schema; where it stands for two, a person must
// say that they shall be parted.
func (w *world) nameGroups(split bool) {
	w.groups = map[pair]groupNames{}
	w.shared = map[pair]string{}
	var inUse map[string][]pair
	for _, t := range w.targets {
		for _, r := range t.Databases {
			d, _ := w.conf.Database(r.Database)
			if d.Engine != config.EnginePostgreSQL || r.Access == config.AccessStatic {
				continue
			}
			d = w.located(d)
			p := pairOf(d, r.Schema)
			old := strings.TrimSuffix(config.OldGroupRole(d, r.Schema, config.AccessReadOnly), "_ro")
			fresh := strings.TrimSuffix(config.GroupRole(d, r.Schema, config.AccessReadOnly), "_ro")
			if _, done := w.groups[p]; done || old == fresh {
				continue
			}
			if w.ledger.entries[p.id()].path == fresh {
				w.groups[p] = config.GroupRole
				continue
			}
			if inUse == nil {
				inUse = w.groupsInUse()
			}
			users := inUse[p.server+" "+old]
			switch {
			case !slices.Contains(users, p):
				w.groups[p] = config.GroupRole
			case len(users) == 1:
				w.groups[p] = config.OldGroupRole
				w.enters.set(w.ledger, p.id(), entry{owner: nobody, path: old})
			case split:
				w.groups[p] = config.GroupRole
				w.notes = append(w.notes, parting(d, p, old, users)...)
				w.enters.set(w.ledger, p.id(), entry{owner: nobody, path: fresh})
			default:
				w.groups[p] = config.OldGroupRole
				var all []string
				for _, u := range users {
					all = append(all, u.String())
				}
				w.shared[p] = fmt.Sprintf("its group %q stands for %s: an app of one reaches the other's tables; --split-groups gives this schema groups of its own, and prints what to run at the database", old+"_"+"…", words.List(all, 5))
			}
		}
	}
}

// statements are a role's, with the names that its groups have.
func (w *world) statements(d config.Database, r config.DatabaseRole) statements {
	d = w.located(d)
	return statementsNamed(d, r, w.names(d, r.Schema))
}

// names are what the groups of a schema are called.
func (w *world) names(d config.Database, schema string) groupNames {
	if names := w.groups[pairOf(w.located(d), schema)]; names != nil {
		return names
	}
	return config.GroupRole
}

// located is d with where it is, which the file may leave to a connection of others.
func (w *world) located(d config.Database) config.Database {
	if d.Host != "" && d.Database != "" {
		return d
	}
	c := w.db.connections[d.Name].of
	if d.Host == "" {
		d.Host, d.Port = c.Host, c.Port
	}
	d.Database = orElse(d.Database, c.Database)
	return d
}

// parting is what a person runs when one schema's groups are parted from another's.
func parting(d config.Database, p pair, old string, users []pair) []string {
	ro, rw, owner := `"`+old+`_ro"`, `"`+old+`_rw"`, `"`+old+`_owner"`
	fresh := func(access string) string { return `"` + config.GroupRole(d, p.schema, access) + `"` }
	var others []string
	for _, u := range users {
		if u != p {
			others = append(others, u.String())
		}
	}
	in := fmt.Sprintf("in database %q", p.database)
	return []string{
		fmt.Sprintf("the groups of %s are parted from those of %s; users that were issued before keep the old ones until their leases end", p, words.List(others, 5)),
		fmt.Sprintf(`%s, what the old ones own and may: SELECT n.nspname, c.relname, c.relowner::regrole, c.relacl FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relowner::regrole::text LIKE '%%%s%%' OR c.relacl::text LIKE '%%%s%%';`, in, old, old),
		fmt.Sprintf(`%s, after strongroom app check-db has issued the first user, as the owner or a superuser: REASSIGN OWNED BY %s TO %s;`, in, owner, fresh(config.AccessOwner)),
		fmt.Sprintf(`%s, when the last user of before has ended: REVOKE ALL ON ALL TABLES IN SCHEMA "%s" FROM %s, %s; REVOKE ALL ON ALL SEQUENCES IN SCHEMA "%s" FROM %s; REVOKE ALL ON SCHEMA "%s" FROM %s, %s, %s; REVOKE CONNECT ON DATABASE "%s" FROM %s, %s, %s;`,
			in, p.schema, ro, rw, p.schema, rw, p.schema, ro, rw, owner, p.database, ro, rw, owner),
	}
}
