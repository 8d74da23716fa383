package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
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
// roles must have been checked.
func (a Apps) PoliciesOf(roles []string) []string {
	var out []string
	for _, r := range roles {
		p, err := a.policyOf(r)
		if err == nil {
			out = append(out, p)
		}
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
		for _, t := range a.Targets() {
			if t.Prefix == prefix {
				return t.Policy, nil
			}
		}
		return "", fmt.Errorf("%q: the file has no environment %q", role, prefix)
	}
	return "", fmt.Errorf("%q is none of admin, operator, reader, owner:{app}, app:{app}/{environment}", role)
}

func (c *appsCheck) auth(at string, a Auth) {
	c.check(at+".type", checkOneOf(a.Type, AuthUserpass, AuthOIDC, AuthLDAP, AuthKubernetes))
	c.check(at+".path", checkLabel(a.MountPath()))
	if a.MountPath() == "approle" || a.MountPath() == "token" {
		c.check(at+".path", fmt.Errorf("%q is taken: apps log in there", a.MountPath()))
	}
	c.unique(at+".path", "auth method", a.MountPath())
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
	case AuthLDAP:
		if !strings.HasPrefix(a.URL, "ldaps://") && !(strings.HasPrefix(a.URL, "ldap://") && a.StartTLS) {
			c.check(at+".url", fmt.Errorf("%s is neither ldaps://… nor ldap://… with starttls = true: passwords would go in clear", shown(a.URL)))
		}
		c.check(at+".user_dn", required(a.UserDN))
		if (a.BindDN == "") != (a.BindPasswordFile == "") {
			c.check(at+".bind_dn", errors.New("and bind_password_file go together"))
		}
	case AuthKubernetes:
		c.check(at+".host", checkPageURL(a.Host))
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
		{"host", a.Host, AuthKubernetes}, {"token_reviewer_file", a.TokenReviewerFile, AuthKubernetes},
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
		c.check(at+".group", checkPrincipal(m.Group+m.User))
		who, wrong = "user "+m.User+", group "+m.Group, wrong[2:]
	case AuthOIDC:
		c.check(at+".group", checkPrincipal(m.Group))
		c.check(at+".name", checkLabel(m.RoleName()))
		who, wrong = m.RoleName(), []field{wrong[0], wrong[2], wrong[3]}
	case AuthKubernetes:
		c.check(at+".namespace", checkLabel(m.Namespace))
		c.check(at+".name", checkLabel(m.RoleName()))
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

// checkPrincipal is for names that a directory or identity provider gives.
func checkPrincipal(s string) error {
	if s == "" {
		return errors.New("is required")
	}
	if len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.ContainsAny(s, "/*?#%") {
		return fmt.Errorf("%q holds a character that can't stand in a group's name here", s)
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
