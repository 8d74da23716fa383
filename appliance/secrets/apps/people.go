package apps

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"

	"strongroom.example/config"
)

// people are the auth methods with their entries, and the policies these name.
func (w *world) people() []object {
	var out []object
	base := map[string]bool{}
	for _, a := range w.conf.Auth {
		for _, m := range a.Maps {
			for _, p := range w.conf.PoliciesOf(m.Roles) {
				text, ours := config.Policies()[p]
				if ours && !base[p] {
					base[p] = true
					o := policyObject(p, "", text)
					o.shared = true // the installer's
					out = append(out, o)
				}
			}
		}
		if o, ok := w.authConfig(a); ok {
			out = append(out, o)
		}
		if a.Type == config.AuthUserpass && w.accessors[a.MountPath()] != "" {
			out = append(out, policyObject(selfPolicy(a), "", w.selfPolicyText(a)))
		}
		for _, m := range a.Maps {
			out = append(out, w.authEntry(a, m))
		}
	}
	return out
}

func selfPolicy(a config.Auth) string { return config.SelfPolicy(a.MountPath()) }

// selfPolicyText lets people change their own password and nobody else's:
// https://developer.hashicorp.com/vault/docs/concepts/policies#templated-policies.
func (w *world) selfPolicyText(a config.Auth) string {
	return config.PolicyMark(w.conf.Manifest, "") + `
# Everybody may change their own password.
path "auth/` + a.MountPath() + `/users/{{identity.entity.aliases.` + w.accessors[a.MountPath()] + `.name}}/password" {
  capabilities = ["update"]
}
`
}

// tokenFields are the same for every auth method.
func tokenFields(a config.Auth, policies []string) map[string]any {
	return map[string]any{"token_policies": policies, "token_ttl": a.TokenTTL, "token_max_ttl": a.TokenMaxTTL}
}

// authConfig is the method's own configuration.
func (w *world) authConfig(a config.Auth) (object, bool) {
	o := object{kind: kindAuth, fields: ofAuth(kindAuth, a.Type), name: a.MountPath(), path: "auth/" + a.MountPath() + "/config", resend: true}
	ca := ""
	if a.CAFile != "" {
		pem, err := w.readCA(a.CAFile)
		if err != nil {
			o.missing = fmt.Sprintf("ca_file of auth method %q: %v", a.MountPath(), err)
		}
		ca = pem
	}
	secret := func(field, what, file string) func() (map[string]any, error) {
		if file == "" {
			return nil
		}
		return func() (map[string]any, error) {
			s, err := w.secretFile(what+" of auth method "+a.MountPath(), file)
			return map[string]any{field: s}, err
		}
	}
	switch a.Type {
	case config.AuthOIDC:
		// https://developer.hashicorp.com/vault/api-docs/auth/jwt#configure
		o.want = map[string]any{"oidc_discovery_url": a.DiscoveryURL, "oidc_client_id": a.ClientID, "oidc_discovery_ca_pem": ca}
		if len(a.Maps) > 0 {
			o.want["default_role"] = a.Maps[0].RoleName()
		}
		o.secrets = secret("oidc_client_secret", "client_secret_file", a.ClientSecretFile)
	case config.AuthLDAP:
		// https://developer.hashicorp.com/vault/api-docs/auth/ldap#configure-ldap
		// Vault keeps the URL and the attribute in lower case. The lifetimes are the
		// method's; its users and groups have policies only.
		o.want = map[string]any{
			"token_ttl": a.TokenTTL, "token_max_ttl": a.TokenMaxTTL,
			"url": strings.ToLower(a.URL), "starttls": a.StartTLS, "certificate": ca, "binddn": a.BindDN,
			"userdn": a.UserDN, "userattr": strings.ToLower(orElse(a.UserAttr, "uid")), "groupdn": a.GroupDN,
			"groupattr": orElse(a.GroupAttr, "cn"),
		}
		if a.GroupFilter != "" {
			o.want["groupfilter"] = a.GroupFilter
		}
		o.secrets = secret("bindpass", "bind_password_file", a.BindPasswordFile)
	case config.AuthKubernetes:
		// https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#configure-method
		o.want = map[string]any{"kubernetes_host": a.Host, "kubernetes_ca_cert": ca, "token_reviewer_jwt_set": a.TokenReviewerFile != ""}
		o.secrets = secret("token_reviewer_jwt", "token_reviewer_file", a.TokenReviewerFile)
	default:
		return object{}, false
	}
	return o, true
}

// authEntry is what a mapping becomes: a user, a group or a role.
func (w *world) authEntry(a config.Auth, m config.AuthMap) object {
	mount, policies := a.MountPath(), w.conf.PoliciesOf(m.Roles)
	o := object{kind: kindAuthEntry, fields: ofAuth(kindAuthEntry, a.Type)}
	entry := func(folder, name string) {
		o.name, o.path = mount+"/"+name, "auth/"+mount+"/"+folder+"/"+name
	}
	switch a.Type {
	case config.AuthUserpass:
		entry("users", m.User)
		o.want = tokenFields(a, append(policies, selfPolicy(a)))
		o.secrets = w.firstPassword
	case config.AuthLDAP:
		o.fields = ofLDAPUser
		if m.Group != "" {
			o.fields = ofLDAPGroup
			entry("groups", strings.ToLower(m.Group)) // as Vault keeps it
		} else {
			entry("users", strings.ToLower(m.User))
		}
		o.name = mount + "/" + strings.TrimPrefix(o.path, "auth/"+mount+"/")
		o.want = map[string]any{"policies": policies}
	case config.AuthOIDC:
		entry("role", m.RoleName())
		o.want = tokenFields(a, policies)
		o.want["role_type"] = "oidc"
		o.want["user_claim"] = orElse(a.UserClaim, "sub")
		o.want["bound_claims"] = map[string]any{orElse(a.GroupsClaim, "groups"): []any{m.Group}}
		o.want["allowed_redirect_uris"] = a.RedirectURIs
		o.want["oidc_scopes"] = a.Scopes
	case config.AuthKubernetes:
		entry("role", m.RoleName())
		o.want = tokenFields(a, policies)
		o.want["bound_service_account_names"] = m.ServiceAccounts
		o.want["bound_service_account_namespaces"] = []string{m.Namespace}
		o.want["audience"] = a.Audience
	}
	return o
}

const (
	passwordAlphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
	passwordLength   = 24 // 139 bits
)

// firstPassword is for a new person; Vault hands it over, wrapped.
func (w *world) firstPassword() (map[string]any, error) {
	password, err := newPassword(w.random)
	return map[string]any{"password": password}, err
}

func newPassword(random io.Reader) (string, error) {
	out := make([]byte, 0, passwordLength)
	for len(out) < passwordLength {
		var b [1]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", fmt.Errorf("random password: %w", err)
		}
		// The bytes that would favour the alphabet's beginning are left out.
		if n := int(b[0]); n < 256/len(passwordAlphabet)*len(passwordAlphabet) {
			out = append(out, passwordAlphabet[n%len(passwordAlphabet)])
		}
	}
	return string(out), nil
}

var defaultRandom io.Reader = rand.Reader

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
