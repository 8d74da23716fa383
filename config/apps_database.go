package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The database servers that roles can be made for.
const (
	EnginePostgreSQL = "postgresql"
	EngineMariaDB    = "mariadb"
	EngineMySQL      = "mysql"
)

// What a role may do in its database.
const (
	AccessReadOnly  = "read-only"
	AccessReadWrite = "read-write"
	AccessOwner     = "owner"  // of the schema: may create, alter and drop in it
	AccessStatic    = "static" // an account that exists already; Vault rotates its password
)

// How the way to a database is protected.
const (
	TLSVerifyFull = "verify-full" // certificate and name are checked
	TLSOff        = "off"         // only on this machine
)

// Database is a server's database, as Vault reaches it.
type Database struct {
	Name   string `toml:"name"`
	Engine string `toml:"engine"`
	// External means that somebody else has configured it in Vault: roles use
	// it, and nothing of it is changed. Only engine and the address count then.
	External bool   `toml:"external"`
	Host     string `toml:"host"` // name, address, or a socket's absolute path (PostgreSQL: its folder)
	Port     int    `toml:"port"`
	Database string `toml:"database"`
	TLS      string `toml:"tls"`
	CAFile   string `toml:"ca_file"` // PEM; none: the system's roots
	// Username is an account for Vault alone. Its password is rotated at
	// once, so that only Vault knows it; PasswordFile is needed until then.
	// AccountHost is from where it may log in, on MariaDB and MySQL; default "%".
	Username     string   `toml:"username"`
	AccountHost  string   `toml:"account_host"`
	PasswordFile string   `toml:"password_file"`
	AllowedRoles []string `toml:"allowed_roles"` // of other manifests; may end in "*"
}

// DatabaseRole is a way for an app into a database.
type DatabaseRole struct {
	Name      string        `toml:"name"` // default {app}-{environment}-{ro,rw,owner,static}
	Database  string        `toml:"database"`
	Access    string        `toml:"access"`
	Schema    string        `toml:"schema"`     // PostgreSQL only; default public
	OwnerRole string        `toml:"owner_role"` // PostgreSQL only: the role that owns the schema, where it is not to be made
	TTL       time.Duration `toml:"ttl"`
	MaxTTL    time.Duration `toml:"max_ttl"`
	// Username, AccountHost and RotationPeriod are for access "static"; AccountHost as
	// in Database.
	Username       string        `toml:"username"`
	AccountHost    string        `toml:"account_host"`
	RotationPeriod time.Duration `toml:"rotation_period"`
}

var accessSuffix = map[string]string{AccessReadOnly: "ro", AccessReadWrite: "rw", AccessOwner: "owner", AccessStatic: "static"}

func (r DatabaseRole) withDefaults(target string) DatabaseRole {
	if r.Name == "" {
		r.Name = target + "-" + accessSuffix[r.Access]
	}
	if r.Access == AccessStatic {
		if r.RotationPeriod == 0 {
			r.RotationPeriod = 24 * time.Hour
		}
		return r
	}
	if r.TTL == 0 {
		r.TTL = time.Hour
	}
	if r.MaxTTL == 0 {
		r.MaxTTL = max(24*time.Hour, r.TTL)
	}
	return r
}

// Address is host and port with the engine's default port.
func (d Database) Address() (host string, port int) {
	port = d.Port
	if port == 0 {
		port = 3306
		if d.Engine == EnginePostgreSQL {
			port = 5432
		}
	}
	return d.Host, port
}

// TLSMode is TLS with its default.
func (d Database) TLSMode() string {
	if d.TLS == "" {
		return TLSVerifyFull
	}
	return d.TLS
}

// identifier is what needs no care in SQL, in a URL or in a policy.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// hostPattern is one host: a list of them would be read as one by some and tried in
// turn by others.
var hostPattern = regexp.MustCompile(`^(/[A-Za-z0-9._/-]+|[A-Za-z0-9._:-]+)$`)

// accountHost is the second half of an account of MariaDB and MySQL.
// Source: https://mariadb.com/docs/server/reference/sql-statements/account-management-sql-statements/create-user#host-name-component
var accountHost = regexp.MustCompile(`^[A-Za-z0-9%_.:/-]{1,255}$`)

func checkAccountHost(engine, host string) error {
	switch {
	case host == "":
		return nil
	case engine == EnginePostgreSQL:
		return fmt.Errorf("is not for %s, whose accounts have none", EnginePostgreSQL)
	case !accountHost.MatchString(host):
		return fmt.Errorf(`%q is not the host of an account, such as "10.0.0.%%" or "app.example.com"`, host)
	}
	return nil
}

func checkIdentifier(s string, longest int) error {
	switch {
	case s == "":
		return errors.New("is required")
	case len(s) > longest || !identifier.MatchString(s):
		return fmt.Errorf(`%q is not a name of up to %d letters, digits, "_" and "-"`, s, longest)
	}
	return nil
}

func (c *appsCheck) database(at string, d Database) {
	c.check(at+".name", checkLabel(d.Name))
	c.notOurs(at+".name", d.Name)
	c.unique(at+".name", "database", d.Name)
	c.check(at+".engine", checkOneOf(d.Engine, EnginePostgreSQL, EngineMariaDB, EngineMySQL))
	if d.Host == "" && !d.External {
		c.check(at+".host", errors.New("is required"))
	}
	if d.Host != "" && !hostPattern.MatchString(d.Host) || strings.HasPrefix(d.Host, "/") && path.Clean(d.Host) != d.Host {
		c.check(at+".host", fmt.Errorf("%s is neither a host name, an address nor a clean absolute path, and only one", shown(d.Host)))
	}
	if d.Port < 0 || d.Port > 65535 {
		c.check(at+".port", fmt.Errorf("%d is not a port", d.Port))
	}
	if d.Database != "" || !d.External {
		c.check(at+".database", checkIdentifier(d.Database, 63))
	}
	c.check(at+".tls", checkOneOf(d.TLSMode(), TLSVerifyFull, TLSOff))
	if d.TLS == TLSOff && !d.local() {
		c.check(at+".tls", fmt.Errorf("%q is only for a socket or a loopback address; %s would carry passwords in clear", TLSOff, shown(d.Host)))
	}
	if d.CAFile != "" {
		c.check(at+".ca_file", checkPath(d.CAFile))
	}
	if d.External {
		for _, f := range []field{{"username", d.Username}, {"account_host", d.AccountHost}, {"password_file", d.PasswordFile}} {
			if f.value != "" {
				c.check(at+"."+f.name, errors.New("is for whoever configures the connection; this one is external"))
			}
		}
		return
	}
	c.check(at+".username", checkIdentifier(d.Username, 32))
	c.check(at+".account_host", checkAccountHost(d.Engine, d.AccountHost))
	c.account(at+".username", d, d.Username, d.AccountHost, "each password that Vault makes for one kills the other's")
	c.check(at+".password_file", checkSecretFile(d.PasswordFile))
	for i, r := range d.AllowedRoles {
		if checkLabel(strings.TrimSuffix(strings.TrimSuffix(r, "*"), "-")) != nil {
			c.check(fmt.Sprintf("%s.allowed_roles[%d]", at, i), fmt.Errorf(`%q is not a role's name, or the beginning of one and "*"`, r))
		}
	}
}

// Account names an account of a database's server, so that two names of one are
// equal: which of them are is known by the host alone.
func (d Database) Account(user, host string) string {
	if d.Engine == EnginePostgreSQL {
		return user + " at " + d.Server()
	}
	if host == "" {
		host = "%"
	}
	return user + "@" + host + " at " + d.Server()
}

// Server names a database's server. All names of this machine are one.
func (d Database) Server() string {
	family := d.Engine
	if family == EngineMySQL || family == EngineMariaDB {
		family = "mysql"
	}
	host, port := d.Address()
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	switch {
	case strings.HasPrefix(host, "/") && family == "mysql":
		return family + " " + d.Host // the port is not in the socket's name
	case d.local():
		host = "localhost"
	}
	return fmt.Sprintf("%s %s:%d", family, host, port)
}

// account says where else an account is used whose password Vault changes.
func (c *appsCheck) account(field string, d Database, user, host, why string) {
	if d.Host == "" || user == "" {
		return
	}
	name := d.Account(user, host)
	if other, taken := c.names["account "+name]; taken {
		c.check(field, fmt.Errorf("account %q of this server is at %s already: %s", user, other, why))
		return
	}
	c.names["account "+name] = field
}

// local tells whether the database is on this machine.
func (d Database) local() bool {
	if strings.HasPrefix(d.Host, "/") || d.Host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(d.Host)
	return err == nil && a.IsLoopback()
}

func (c *appsCheck) databaseRole(at string, t Target, r DatabaseRole) {
	c.unique(at+".name", "database role", r.Name)
	if given := c.at.has(at + ".name"); given {
		c.check(at+".name", checkLabel(r.Name))
		c.notOurs(at+".name", r.Name)
	} else if len(r.Name) > longestLabel && len(t.Role) <= longestLabel {
		c.check(at+".access", fmt.Errorf("the database role is called %q then, which is longer than %d characters: give it a name", r.Name, longestLabel))
	}
	c.check(at+".access", checkOneOf(r.Access, AccessReadOnly, AccessReadWrite, AccessOwner, AccessStatic))
	d, ok := c.apps.Database(r.Database)
	if !ok {
		c.check(at+".database", fmt.Errorf("%q is none of the file's databases; one that somebody else has configured needs a [[database]] with external = true", r.Database))
	}
	dynamicOnly := []field{{"schema", r.Schema}, {"owner_role", r.OwnerRole}}
	if r.Access == AccessStatic {
		c.check(at+".username", checkIdentifier(r.Username, 63))
		if ok && r.Username == d.Username {
			c.check(at+".username", fmt.Errorf("%q is Vault's own account", r.Username))
		} else if ok {
			c.account(at+".username", d, r.Username, r.AccountHost, "Vault would change its password for one, and the other's would be dead")
		}
		c.check(at+".rotation_period", wholeSeconds(r.RotationPeriod))
		if r.RotationPeriod < time.Minute || r.RotationPeriod > longestLife {
			c.check(at+".rotation_period", fmt.Errorf("%v is not between 1m and %s", r.RotationPeriod, days(longestLife)))
		}
		c.check(at+".account_host", checkAccountHost(d.Engine, r.AccountHost))
		if r.TTL != 0 || r.MaxTTL != 0 {
			c.check(at+".ttl", fmt.Errorf("is not for access %q, whose password lives for rotation_period", AccessStatic))
		}
		for _, f := range dynamicOnly {
			if f.value != "" {
				c.check(at+"."+f.name, fmt.Errorf("is not for access %q", AccessStatic))
			}
		}
		return
	}
	if r.Username != "" || r.AccountHost != "" || r.RotationPeriod != 0 {
		c.check(at+".username", fmt.Errorf("account_host and rotation_period are only for access %q", AccessStatic))
	}
	c.check(at+".ttl", wholeSeconds(r.TTL))
	c.check(at+".max_ttl", wholeSeconds(r.MaxTTL))
	if r.TTL < time.Minute || r.TTL > r.MaxTTL {
		c.check(at+".ttl", fmt.Errorf("%v is not between 1m and max_ttl (%v)", r.TTL, r.MaxTTL))
	}
	if r.MaxTTL > 31*24*time.Hour {
		c.check(at+".max_ttl", fmt.Errorf("%v is more than 31d", r.MaxTTL))
	}
	for _, f := range dynamicOnly {
		switch {
		case f.value == "":
		case ok && d.Engine != EnginePostgreSQL:
			c.check(at+"."+f.name, fmt.Errorf("is only for %s: a schema is a database there", EnginePostgreSQL))
		default:
			c.check(at+"."+f.name, checkIdentifier(f.value, 63))
		}
	}
	if ok && d.Engine == EnginePostgreSQL && r.Schema != "" && strings.HasPrefix(r.Schema, "pg_") {
		c.check(at+".schema", fmt.Errorf("%q is the server's own", r.Schema))
	}
}

// longestRole is how many bytes a name has in PostgreSQL; it cuts longer ones off.
const longestRole = 63

// GroupRole is the name of the PostgreSQL role that holds what every user of one
// access to one schema may do. Two schemas never have the same: "_" joins names
// without one, "." and "~" stand in none, and what is too long has a digest.
func GroupRole(d Database, schema, access string) string {
	if schema == "" {
		schema = "public"
	}
	end := "_" + accessSuffix[access]
	name := "sr_" + d.Database + "_" + schema
	if strings.Contains(d.Database+schema, "_") {
		name = "sr_" + d.Database + "." + schema
	}
	if len(name+"_owner") > longestRole {
		sum := sha256.Sum256([]byte(d.Database + "." + schema))
		digest := "~" + hex.EncodeToString(sum[:10])
		name = name[:longestRole-len("_owner")-len(digest)] + digest
	}
	return name + end
}

// OldGroupRole is what GroupRole was: it joined database and schema so that two
// pairs could have one name. Groups of before keep it where it stands for one.
func OldGroupRole(d Database, schema, access string) string {
	if schema == "" {
		schema = "public"
	}
	return "sr_" + d.Database + "_" + schema + "_" + accessSuffix[access]
}

// RolesOf are the names of all roles that use a database, sorted, with those
// that the file allows for others.
func (a Apps) RolesOf(database string) []string {
	var out []string
	for _, t := range a.Targets() {
		for _, r := range t.Databases {
			if r.Database == database {
				out = append(out, r.Name)
			}
		}
	}
	if d, ok := a.Database(database); ok {
		out = append(out, d.AllowedRoles...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
