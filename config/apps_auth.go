package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The ways in which people, and pods, log in.
const (
	AuthUserpass   = "userpass"
	AuthOIDC       = "oidc"
	AuthLDAP       = "ldap"
	AuthKubernetes = "kubernetes"
)

// Auth is an auth method: https://developer.hashicorp.com/vault/docs/auth.
type Auth struct {
	Type        string        `toml:"type"`
	Path        string        `toml:"path"` // default: the type
	TokenTTL    time.Duration `toml:"token_ttl"`
	TokenMaxTTL time.Duration `toml:"token_max_ttl"`
	CAFile      string        `toml:"ca_file"` // PEM, of the provider, the directory or the cluster

	// OIDC.
	DiscoveryURL     string   `toml:"discovery_url"`
	ClientID         string   `toml:"client_id"`
	ClientSecretFile string   `toml:"client_secret_file"`
	RedirectURIs     []string `toml:"redirect_uris"`
	Scopes           []string `toml:"scopes"`
	UserClaim        string   `toml:"user_claim"`   // default sub
	GroupsClaim      string   `toml:"groups_claim"` // default groups

	// LDAP.
	URL              string `toml:"url"`
	StartTLS         bool   `toml:"starttls"`
	BindDN           string `toml:"bind_dn"`
	BindPasswordFile string `toml:"bind_password_file"`
	UserDN           string `toml:"user_dn"`
	UserAttr         string `toml:"user_attr"` // default uid
	GroupDN          string `toml:"group_dn"`
	GroupFilter      string `toml:"group_filter"`
	GroupAttr        string `toml:"group_attr"` // default cn

	// Kubernetes.
	Host              string `toml:"host"`                // URL of the API server
	Audience          string `toml:"audience"`            // whom the pods' tokens are made for
	TokenReviewerFile string `toml:"token_reviewer_file"` // none: the pod's own token reviews itself

	Maps []AuthMap `toml:"map"`
}

// AuthMap says who gets which roles.
type AuthMap struct {
	Name            string   `toml:"name"`  // of the role at login; oidc and kubernetes; default: the first of roles
	User            string   `toml:"user"`  // userpass, ldap
	Group           string   `toml:"group"` // ldap, oidc
	Namespace       string   `toml:"namespace"`
	ServiceAccounts []string `toml:"service_accounts"`
	// Roles are admin, operator, reader, owner:{app}, and for pods
	// app:{app}/{environment}.
	Roles []string `toml:"roles"`
}

// The roles of people, and the policies behind them.
var peopleRoles = map[string]string{"admin": PolicyAdmin, "operator": PolicyOperator, "reader": PolicyReader}

// MountPath is where the method is mounted.
func (a Auth) MountPath() string { return orName(a.Path, a.Type) }

// RoleName is what its people or pods log in as.
func (m AuthMap) RoleName() string {
	if m.Name != "" || len(m.Roles) == 0 {
		return m.Name
	}
	return strings.NewReplacer(":", "-", "/", "-").Replace(m.Roles[0])
}

// PoliciesOf are the policies of roles as [[auth.map]] names them, sorted. The
// roles must have been checked. Of several policies Vault lets the one decide that
// names a path most exactly, so that another beside an administrator's would take
// rights away: he has that alone.
func (a Apps) PoliciesOf(roles []string) []string {
	var out []string
	for _, r := range roles {
		p, err := a.policyOf(r)
		if err == nil {
			out = append(out, p)
		}
	}
	if slices.Contains(out, PolicyAdmin) {
		return []string{PolicyAdmin}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (a Apps) policyOf(role string) (string, error) {
	if p, ok := peopleRoles[role]; ok {
		return p, nil
	}
	if app, ok := strings.CutPrefix(role, "owner:"); ok {
		if slices.ContainsFunc(a.Apps, func(x App) bool { return x.Name == app }) {
			return OwnerPolicy(app), nil
		}
		return "", fmt.Errorf("%q: the file has no app %q", role, app)
	}
	if prefix, ok := strings.CutPrefix(role, "app:"); ok {
		name, _, _ := strings.Cut(prefix, "/")
		for i := range a.Apps {
			if a.Apps[i].Name != name {
				continue
			}
			for _, t := range a.targetsOf(i) {
				if t.Prefix == prefix {
					return t.Policy, nil
				}
			}
		}
		return "", fmt.Errorf("%q: the file has no environment %q", role, prefix)
	}
	return "", fmt.Errorf("%q is none of admin, operator, reader, owner:{app}, app:{app}/{environment}", role)
}

func (c *appsCheck) auth(at string, a Auth) {
	c.check(at+".type", checkOneOf(a.Type, AuthUserpass, AuthOIDC, AuthLDAP, AuthKubernetes))
	if a.Path != "" {
		c.check(at+".path", checkLabel(a.Path))
	}
	if a.MountPath() == "approle" || a.MountPath() == "token" {
		c.check(at+".path", fmt.Errorf("%q is taken: apps log in there", a.MountPath()))
	}
	c.unique(at+".path", "auth method", a.MountPath())
	c.notOurs(at+".path", a.MountPath())
	if a.Type == AuthUserpass {
		field := at + ".path"
		if a.Path == "" {
			field = at + ".type"
		}
		c.unique(field, "policy", SelfPolicy(a.MountPath()))
		c.made(field, "policy by which people change their passwords", SelfPolicy(a.MountPath()))
	}
	c.check(at+".token_ttl", wholeSeconds(a.TokenTTL))
	c.check(at+".token_max_ttl", wholeSeconds(a.TokenMaxTTL))
	if a.TokenTTL < 0 || a.TokenMaxTTL > 24*time.Hour || a.TokenMaxTTL != 0 && a.TokenTTL > a.TokenMaxTTL {
		c.check(at+".token_ttl", fmt.Errorf("%v and token_max_ttl %v: the first must not be longer, the second not above 24h", a.TokenTTL, a.TokenMaxTTL))
	}
	if a.CAFile != "" {
		c.check(at+".ca_file", checkPath(a.CAFile))
	}
	c.authFields(at, a)
	switch a.Type {
	case AuthOIDC:
		c.check(at+".discovery_url", checkPageURL(a.DiscoveryURL))
		c.check(at+".client_id", required(a.ClientID))
		c.check(at+".client_secret_file", checkSecretFile(a.ClientSecretFile))
		if len(a.RedirectURIs) == 0 {
			c.check(at+".redirect_uris", errors.New(`is required: "https://vault.example.com/ui/vault/auth/oidc/oidc/callback", "http://localhost:8250/oidc/callback"`))
		}
		for i, u := range a.RedirectURIs {
			c.check(fmt.Sprintf("%s.redirect_uris[%d]", at, i), checkRedirect(u))
		}
	case AuthLDAP:
		c.check(at+".url", checkDirectories(a.URL, a.StartTLS))
		c.check(at+".user_dn", required(a.UserDN))
		if (a.BindDN == "") != (a.BindPasswordFile == "") {
			c.check(at+".bind_dn", errors.New("and bind_password_file go together"))
		}
	case AuthKubernetes:
		c.check(at+".host", checkPageURL(a.Host))
		if a.Audience == "" {
			c.check(at+".audience", errors.New(`is required: without it a token that a pod has for anybody else logs in here; "vault" is usual, as the audience of the pod's projected token`))
		} else {
			c.check(at+".audience", checkAudience(a.Audience))
		}
	}
	for i, m := range a.Maps {
		c.authMap(fmt.Sprintf("%s.map[%d]", at, i), a, m)
	}
}

// authFields refuses what belongs to another type.
func (c *appsCheck) authFields(at string, a Auth) {
	for _, f := range []struct {
		name, value, of string
	}{
		{"discovery_url", a.DiscoveryURL, AuthOIDC}, {"client_id", a.ClientID, AuthOIDC}, {"client_secret_file", a.ClientSecretFile, AuthOIDC},
		{"redirect_uris", strings.Join(a.RedirectURIs, ","), AuthOIDC}, {"scopes", strings.Join(a.Scopes, ","), AuthOIDC},
		{"user_claim", a.UserClaim, AuthOIDC}, {"groups_claim", a.GroupsClaim, AuthOIDC},
		{"url", a.URL, AuthLDAP}, {"bind_dn", a.BindDN, AuthLDAP}, {"bind_password_file", a.BindPasswordFile, AuthLDAP},
		{"user_dn", a.UserDN, AuthLDAP}, {"user_attr", a.UserAttr, AuthLDAP}, {"group_dn", a.GroupDN, AuthLDAP},
		{"group_filter", a.GroupFilter, AuthLDAP}, {"group_attr", a.GroupAttr, AuthLDAP},
		{"host", a.Host, AuthKubernetes}, {"audience", a.Audience, AuthKubernetes}, {"token_reviewer_file", a.TokenReviewerFile, AuthKubernetes},
	} {
		if f.value != "" && f.of != a.Type {
			c.check(at+"."+f.name, fmt.Errorf("is only for type %q; the type is %q", f.of, a.Type))
		}
	}
	for _, f := range []field{{"bind_password_file", a.BindPasswordFile}, {"token_reviewer_file", a.TokenReviewerFile}} {
		if f.value != "" {
			c.check(at+"."+f.name, checkSecretFile(f.value))
		}
	}
}

func (c *appsCheck) authMap(at string, a Auth, m AuthMap) {
	if len(m.Roles) == 0 {
		c.check(at+".roles", errors.New("is required"))
	}
	for i, r := range m.Roles {
		where := fmt.Sprintf("%s.roles[%d]", at, i)
		_, err := c.apps.policyOf(r)
		c.check(where, err)
		if pods := a.Type == AuthKubernetes; pods != strings.HasPrefix(r, "app:") && err == nil {
			c.check(where, fmt.Errorf("%q: people get admin, operator, reader and owner:{app}; pods get app:{app}/{environment}", r))
		}
	}
	who, wrong := "", []field{{"user", m.User}, {"group", m.Group}, {"namespace", m.Namespace}, {"service_accounts", strings.Join(m.ServiceAccounts, ",")}}
	switch a.Type {
	case AuthUserpass:
		c.check(at+".user", checkLabel(m.User))
		who, wrong = m.User, wrong[1:]
	case AuthLDAP:
		if (m.User == "") == (m.Group == "") {
			c.check(at+".group", errors.New("or user is required, and not both"))
		}
		field := at + ".group"
		if m.Group == "" {
			field = at + ".user"
		}
		c.check(field, checkPrincipal(m.Group+m.User))
		// As Vault keeps them: it knows one of two that differ in that alone.
		who, wrong = strings.ToLower("user "+m.User+", group "+m.Group), wrong[2:]
	case AuthOIDC:
		c.check(at+".group", checkClaim(m.Group))
		c.roleName(at, m)
		who, wrong = m.RoleName(), []field{wrong[0], wrong[2], wrong[3]}
	case AuthKubernetes:
		c.check(at+".namespace", checkLabel(m.Namespace))
		c.roleName(at, m)
		if len(m.ServiceAccounts) == 0 {
			c.check(at+".service_accounts", errors.New("is required"))
		}
		for i, s := range m.ServiceAccounts {
			c.check(fmt.Sprintf("%s.service_accounts[%d]", at, i), checkLabel(s))
		}
		who, wrong = m.RoleName(), wrong[:2]
	}
	c.unique(at, "mapping of "+a.MountPath(), who)
	for _, f := range wrong {
		if f.value != "" {
			c.check(at+"."+f.name, fmt.Errorf("is not for type %q", a.Type))
		}
	}
}

// roleName checks what people or pods log in as.
func (c *appsCheck) roleName(at string, m AuthMap) {
	switch {
	case m.Name != "":
		c.check(at+".name", checkLabel(m.Name))
	case len(m.Roles) > 0:
		c.made(at+".roles[0]", "role at login", m.RoleName())
	}
}

// checkDirectories is for LDAP's list of servers, of which each can be the one that
// gets the password.
func checkDirectories(list string, startTLS bool) error {
	for s := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(s)
		switch {
		case err != nil || s != strings.TrimSpace(s) || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
			return fmt.Errorf(`%s is not the URL of an LDAP server such as "ldaps://ldap.example.com"; several are joined with "," and no blank`, shown(s))
		case u.Scheme == "ldaps", u.Scheme == "ldap" && startTLS:
		default:
			return fmt.Errorf("%s is neither ldaps://… nor ldap://… with starttls = true: passwords would go in clear", shown(s))
		}
	}
	return nil
}

// checkRedirect is for where an identity provider sends people back to: what it
// sends there logs in.
func checkRedirect(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || strings.ContainsAny(s, " *") {
		return fmt.Errorf("%s is not a URL", shown(s))
	}
	if u.Scheme == "https" || u.Scheme == "http" && (Database{Host: u.Hostname()}).local() {
		return nil
	}
	return fmt.Errorf("%s is neither https://… nor http:// at localhost: the code by which somebody logs in would go in clear", shown(s))
}

// checkAudience is for the claim aud of a pod's token.
func checkAudience(s string) error {
	if len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) || strings.ContainsAny(s, "*,") {
		return fmt.Errorf(`%q is not an audience such as "vault" or "https://vault.example.com"`, cut(s))
	}
	return nil
}

// checkClaim is for names that an identity provider gives: they are compared, and
// stand in no path.
func checkClaim(s string) error {
	switch {
	case s == "":
		return errors.New("is required")
	case len(s) > 255 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%q is longer than 255 bytes, or holds a character that no group's name has", cut(s))
	}
	return nil
}

// checkPrincipal is for names that a directory gives. They stand in a path.
func checkPrincipal(s string) error {
	if err := checkClaim(s); err != nil {
		return err
	}
	if strings.TrimSpace(s) != s {
		return fmt.Errorf("%q begins or ends with a blank", s)
	}
	if i := strings.IndexAny(s, "/*?#%\\"); i >= 0 || s == "." || s == ".." {
		return fmt.Errorf(`%q: a group of LDAP's stands in a path of Vault's, where %q can't; name it as group_attr gives it ("Data Platform"), without a path before it`, s, s[max(i, 0):max(i, 0)+1])
	}
	return nil
}

// checkPageURL is checkURL for one that may have a path.
func checkPageURL(s string) error {
	if !strings.HasPrefix(s, "https://") || strings.ContainsAny(s, " \t\n\"?#@") {
		return fmt.Errorf("%s is not an https URL", shown(s))
	}
	return nil
}

func required(s string) error {
	if s == "" {
		return errors.New("is required")
	}
	return nil
}
