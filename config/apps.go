package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Apps is the content of apps.toml: which apps there are, which databases they
// use and how people log in. It is a file of its own because it changes with
// the apps and belongs to their teams; appliance.toml is the machine's.
type Apps struct {
	// Manifest names the file as an owner: what it has made carries the name,
	// and nothing else is ever changed or removed. It must stay the same.
	Manifest  string     `toml:"manifest"`
	Apps      []App      `toml:"app"`
	Databases []Database `toml:"database"`
	Auth      []Auth     `toml:"auth"`
}

// App is an application. One without environments is a single one itself: its
// secrets lie below secret/{app}/.
type App struct {
	Name         string         `toml:"name"`
	Description  string         `toml:"description"`
	Policy       string         `toml:"policy"`
	Secrets      []string       `toml:"secrets"`
	Grants       []string       `toml:"grants"`
	Login        Login          `toml:"login"` // for its environments, unless they say otherwise
	Databases    []DatabaseRole `toml:"database"`
	Keys         []Key          `toml:"key"`
	Environments []Environment  `toml:"environment"`
}

// Environment is one of an app's: production, staging. Its secrets lie below
// secret/{app}/{environment}/.
type Environment struct {
	Name      string         `toml:"name"`
	Policy    string         `toml:"policy"`  // its policy's name; default {app}-{environment}
	Secrets   []string       `toml:"secrets"` // names in KV, may be nested
	Grants    []string       `toml:"grants"`  // {app}/{environment} of others that it may read
	Login     Login          `toml:"login"`
	Databases []DatabaseRole `toml:"database"`
	Keys      []Key          `toml:"key"`
}

// Login is the AppRole of an environment:
// https://developer.hashicorp.com/vault/api-docs/auth/approle.
type Login struct {
	TokenTTL     time.Duration `toml:"token_ttl"`
	TokenMaxTTL  time.Duration `toml:"token_max_ttl"`
	SecretIDTTL  time.Duration `toml:"secret_id_ttl"`
	SecretIDUses int           `toml:"secret_id_uses"` // logins with one secret id; 0: any number
	Renew        bool          `toml:"renew"`          // the app's machine may renew its secret id
	CIDRs        []string      `toml:"cidrs"`          // from where logins and tokens work; none: anywhere
}

// Key is an API key of the apikeys engine.
type Key struct {
	Name             string         `toml:"name"` // below {app}/{environment}/, may be nested
	Provider         string         `toml:"provider"`
	Parameters       map[string]any `toml:"parameters"`
	RotationPeriod   time.Duration  `toml:"rotation_period"`
	RotationSchedule string         `toml:"rotation_schedule"`
	TimeZone         string         `toml:"time_zone"`
	GracePeriod      time.Duration  `toml:"grace_period"`
}

// The lifetimes that an app has unless it says otherwise: tokens as the
// research asks for, a secret id for as long as an API key.
var defaultLogin = Login{TokenTTL: time.Hour, TokenMaxTTL: 4 * time.Hour, SecretIDTTL: 90 * 24 * time.Hour}

// LoadApps reads and validates a file. Its error is Faults: all of them.
func LoadApps(file string) (Apps, error) {
	data, err := Read(file)
	if err != nil {
		return Apps{}, err
	}
	return ParseApps(file, data)
}

// ParseApps is LoadApps for data that came from file.
func ParseApps(file string, data []byte) (Apps, error) {
	var a Apps
	at, faults := Decode(file, data, &a)
	if len(faults) > 0 && at == nil {
		return a, faults.Err() // no TOML at all
	}
	for i, f := range faults {
		if f.Msg == notAList {
			faults[i].Msg += fmt.Sprintf(": [[%s]] begins each entry, and stands before what is in it", indexes.ReplaceAllString(f.Field, ""))
		}
	}
	c := &appsCheck{apps: &a, file: file, at: at, faults: faults, names: map[string]string{}, targets: a.Targets()}
	c.run()
	return a, c.faults.Err()
}

// notAList is what a table is told that stands where a list of them belongs, and
// indexes are what a path has more than the file.
const notAList = "a list is wanted, this is a table"

var indexes = regexp.MustCompile(`\[\d+\]`)

// appsCheck collects everything that is wrong with an Apps.
type appsCheck struct {
	apps   *Apps
	file   string
	at     Lines
	faults Faults
	names  map[string]string // what is named already → where
	// targets are the file's, which cost something to make.
	targets []Target
}

func (c *appsCheck) check(field string, err error) {
	if err != nil {
		c.faults = append(c.faults, Fault{File: c.file, Line: c.at.of(field), Field: field, Msg: err.Error()})
	}
}

// unique says where else a thing of that kind has the name.
func (c *appsCheck) unique(field, kind, name string) {
	key := kind + " " + name
	if other, taken := c.names[key]; taken {
		c.check(field, fmt.Errorf("the %s is %q already at %s", kind, name, other))
		return
	}
	c.names[key] = field
}

func (c *appsCheck) run() {
	c.check("manifest", checkLabel(c.apps.Manifest))
	for i, d := range c.apps.Databases {
		c.database(fmt.Sprintf("database[%d]", i), d)
	}
	for i, a := range c.apps.Apps {
		c.app(fmt.Sprintf("app[%d]", i), a)
	}
	for _, t := range c.targets {
		c.target(t)
	}
	for i, a := range c.apps.Auth {
		c.auth(fmt.Sprintf("auth[%d]", i), a)
	}
}

// ours tells whether a name is the appliance's own, whatever it names.
func ours(name string) bool { return strings.HasPrefix(name, "strongroom") }

func (c *appsCheck) notOurs(field, name string) {
	if ours(name) {
		c.check(field, fmt.Errorf("%q: names that begin with strongroom are the appliance's own", name))
	}
}

// made checks a name that the file's names amount to: what is wrong with it stands
// at the key that a person has written.
func (c *appsCheck) made(field, what, name string) {
	if len(name) > longestLabel {
		c.check(field, fmt.Errorf("the %s is called %q then, which is longer than %d characters: shorten the name", what, name, longestLabel))
	}
}

func (c *appsCheck) app(at string, a App) {
	c.check(at+".name", checkLabel(a.Name))
	c.notOurs(at+".name", a.Name)
	c.unique(at+".name", "app", a.Name)
	c.unique(at+".name", "policy", OwnerPolicy(a.Name))
	if len(a.Name) <= longestLabel {
		c.made(at+".name", "owners' policy", OwnerPolicy(a.Name))
	}
	if len(a.Environments) == 0 {
		return
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"policy", a.Policy != ""}, {"secrets", len(a.Secrets) > 0}, {"grants", len(a.Grants) > 0},
		{"database", len(a.Databases) > 0}, {"key", len(a.Keys) > 0},
	} {
		if f.set {
			c.check(at+"."+f.name, errors.New("belongs to one of the app's environments: an identity of the whole app could read all of them"))
		}
	}
	c.login(at+".login", a.Login.over(defaultLogin))
	for i, e := range a.Environments {
		c.check(fmt.Sprintf("%s.environment[%d].name", at, i), checkLabel(e.Name))
	}
}

// target checks what an environment amounts to; t.field is where it stands.
func (c *appsCheck) target(t Target) {
	c.unique(t.field+".name", "environment", t.Prefix)
	c.unique(t.field+".name", "login", t.Role)
	if t.Environment != "" && len(t.App) <= longestLabel && len(t.Environment) <= longestLabel {
		c.made(t.field+".name", "login", t.Role)
	}
	policy := t.field + ".policy"
	if t.Policy != t.Role { // which is checked above
		c.check(policy, checkLabel(t.Policy))
	}
	if t.Policy == "root" || t.Policy == "default" || t.Policy != t.Role && ours(t.Policy) {
		c.check(policy, fmt.Errorf("%q is not an app's", t.Policy))
	}
	c.unique(policy, "policy", t.Policy)
	if t.Login.Renew {
		c.unique(t.field+".login.renew", "policy", RenewPolicy(t.Role))
		if len(t.Role) <= longestLabel {
			c.made(t.field+".name", "policy by which its login is renewed", RenewPolicy(t.Role))
		}
	}
	for i, s := range t.Secrets {
		at := fmt.Sprintf("%s.secrets[%d]", t.field, i)
		c.check(at, checkSecretName(s))
		c.unique(at, "secret", t.Prefix+"/"+s)
	}
	for i, g := range t.Grants {
		at := fmt.Sprintf("%s.grants[%d]", t.field, i)
		c.check(at, checkGrant(g))
		if g == t.Prefix {
			c.check(at, fmt.Errorf("%q is its own", g))
		}
		c.notOurs(at, g)
		c.wholeApp(at, g)
		c.unique(at, "grant of "+t.Prefix, g)
	}
	c.login(t.field+".login", t.Login)
	for i, d := range t.Databases {
		c.databaseRole(fmt.Sprintf("%s.database[%d]", t.field, i), t, d)
	}
	for i, k := range t.Keys {
		c.key(fmt.Sprintf("%s.key[%d]", t.field, i), t, k)
	}
}

// wholeApp refuses a grant of an app that has environments: production would be in
// it, and each that is still to come.
func (c *appsCheck) wholeApp(at, grant string) {
	for _, a := range c.apps.Apps {
		if a.Name != grant || len(a.Environments) == 0 {
			continue
		}
		var all []string
		for _, e := range a.Environments {
			all = append(all, strconv.Quote(a.Name+"/"+e.Name))
		}
		c.check(at, fmt.Errorf("%q has environments, and a grant of all would reach each of them, production too: name which (%s)", grant, strings.Join(all, ", ")))
		return
	}
}

// minTokenTTL keeps a token useful: clients renew at two thirds of it.
const minTokenTTL = time.Minute

func (c *appsCheck) login(at string, l Login) {
	if l.TokenTTL < minTokenTTL || l.TokenTTL > l.TokenMaxTTL {
		c.check(at+".token_ttl", fmt.Errorf("%v is not between %v and token_max_ttl (%v)", l.TokenTTL, minTokenTTL, l.TokenMaxTTL))
	}
	if l.TokenMaxTTL > 24*time.Hour {
		c.check(at+".token_max_ttl", fmt.Errorf("%v is more than 24h: a login is repeated for a longer life", l.TokenMaxTTL))
	}
	if l.SecretIDTTL < minTokenTTL || l.SecretIDTTL > longestLife {
		c.check(at+".secret_id_ttl", fmt.Errorf("%v is not between %v and %s", l.SecretIDTTL, minTokenTTL, days(longestLife)))
	}
	if l.Renew && l.SecretIDUses > 0 {
		c.check(at+".renew", fmt.Errorf("and secret_id_uses = %d: each renewal is a login, and uses one up", l.SecretIDUses))
	}
	if l.SecretIDUses < 0 {
		c.check(at+".secret_id_uses", fmt.Errorf("%d is negative; 0 is any number", l.SecretIDUses))
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"token_ttl", l.TokenTTL}, {"token_max_ttl", l.TokenMaxTTL}, {"secret_id_ttl", l.SecretIDTTL}} {
		c.check(at+"."+f.name, wholeSeconds(f.d))
	}
	seen := map[string]int{}
	for i, s := range l.CIDRs {
		field := fmt.Sprintf("%s.cidrs[%d]", at, i)
		r, err := addressRange(s)
		c.check(field, err)
		if first, twice := seen[r]; twice && err == nil {
			c.check(field, fmt.Errorf("%q is at cidrs[%d] already", s, first))
		} else {
			seen[r] = i
		}
	}
}

// wholeSeconds refuses what Vault would round: it counts in seconds.
func wholeSeconds(d time.Duration) error {
	if d%time.Second != 0 {
		return fmt.Errorf("%v is no whole number of seconds", d)
	}
	return nil
}

// addressRange is a range in the one form in which Vault compares and shows it.
// One of IPv4 that is written as IPv6 is IPv4's: no client comes from there.
func addressRange(s string) (string, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			return "", fmt.Errorf("%q is one address, and a range is wanted: %q", s, netip.PrefixFrom(a, a.BitLen()))
		}
		return "", fmt.Errorf(`%q is not an address range such as "203.0.113.0/24" or "2001:db8::/32"`, s)
	}
	if p.Masked() != p {
		return "", fmt.Errorf("%q has an address that is longer than its range: %q is the whole range, %q the one address",
			s, p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return "", fmt.Errorf("%q holds all of IPv4 and more: name what is meant", s)
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.String(), nil
}

// What the secrets engine takes for a key; a test holds both equal.
const (
	MinRotation = 30 * time.Second
	MaxRotation = 3650 * 24 * time.Hour
	MinGrace    = 5 * time.Second
	MaxGrace    = 365 * 24 * time.Hour
)

func (c *appsCheck) key(at string, t Target, k Key) {
	c.check(at+".name", checkSecretName(k.Name))
	c.unique(at+".name", "key", t.Prefix+"/"+k.Name)
	c.check(at+".provider", checkLabel(k.Provider))
	if p := k.RotationPeriod; p != 0 && (p < MinRotation || p > MaxRotation) {
		c.check(at+".rotation_period", fmt.Errorf("%v is not between %v and %s", p, MinRotation, days(MaxRotation)))
	}
	if g := k.GracePeriod; g != 0 && (g < MinGrace || g > MaxGrace) {
		c.check(at+".grace_period", fmt.Errorf("%v is not between %v and %s", g, MinGrace, days(MaxGrace)))
	}
	c.check(at+".rotation_period", wholeSeconds(k.RotationPeriod))
	c.check(at+".grace_period", wholeSeconds(k.GracePeriod))
	if k.RotationPeriod != 0 && k.RotationSchedule != "" {
		c.check(at+".rotation_schedule", errors.New("and rotation_period: only one of the two can decide"))
	}
	if k.TimeZone != "" {
		if k.RotationSchedule == "" {
			c.check(at+".time_zone", errors.New("says nothing without rotation_schedule"))
		} else if _, err := time.LoadLocation(k.TimeZone); err != nil {
			c.check(at+".time_zone", fmt.Errorf(`%q is not a time zone such as "Europe/Berlin"`, k.TimeZone))
		}
	}
}

var (
	labelPattern   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)
	segmentPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
)

// longestLabel is how many characters a name may have.
const longestLabel = 64

// checkLabel is for names that become a part of paths and policies: nothing in
// them can mean anything to either, such as "*", "+" or "/".
func checkLabel(s string) error {
	if s == "" {
		return errors.New("is required")
	}
	if len(s) > longestLabel || !labelPattern.MatchString(s) {
		return fmt.Errorf(`%q is not a name of up to %d lower-case letters, digits, ".", "_" and "-"`, cut(s), longestLabel)
	}
	return nil
}

// cut keeps a message readable where somebody has put a whole file into a name.
func cut(s string) string {
	if len(s) > 255 {
		return strings.ToValidUTF8(s[:255], "") + "…"
	}
	return s
}

// checkSecretName is for names that may be nested.
func checkSecretName(s string) error {
	if s == "" {
		return errors.New("is required")
	}
	if len(s) > 255 {
		return fmt.Errorf("%q… is longer than 255 characters", s[:40])
	}
	for segment := range strings.SplitSeq(s, "/") {
		if !segmentPattern.MatchString(segment) {
			return fmt.Errorf(`%q is not a name such as "database-url" or "api-keys/provider-a": letters, digits, ".", "_" and "-" between the slashes`, s)
		}
	}
	return nil
}

func checkGrant(s string) error {
	app, env, nested := strings.Cut(s, "/")
	if checkLabel(app) != nil || nested && checkLabel(env) != nil {
		return fmt.Errorf(`%q is not an environment such as "bike-data-flow/production"`, cut(s))
	}
	return nil
}

// over lays what l says over base.
func (l Login) over(base Login) Login {
	if l.TokenTTL == 0 {
		l.TokenTTL = base.TokenTTL
	}
	if l.TokenMaxTTL == 0 {
		l.TokenMaxTTL = base.TokenMaxTTL
	}
	if l.SecretIDTTL == 0 {
		l.SecretIDTTL = base.SecretIDTTL
	}
	if l.SecretIDUses == 0 {
		l.SecretIDUses = base.SecretIDUses
	}
	l.Renew = l.Renew || base.Renew
	if l.CIDRs == nil {
		l.CIDRs = slices.Clone(base.CIDRs)
	}
	return l
}
