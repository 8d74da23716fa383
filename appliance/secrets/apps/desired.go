package apps

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"strongroom.example/config"
)

// desired are all objects of a manifest. Two of one name would be one object: what
// the check of the file lets pass never is.
func (w *world) desired() []object {
	var out []object
	for _, d := range w.conf.Databases {
		if !d.External {
			out = append(out, w.connection(d))
		}
	}
	owners := map[string]bool{}
	for _, t := range w.targets {
		if !owners[t.App] {
			owners[t.App] = true
			out = append(out, policyObject(config.OwnerPolicy(t.App), t.App, w.conf.OwnerPolicyText(t.App)))
		}
		policy := policyObject(t.Policy, t.App, w.conf.ReadPolicy(t))
		for _, g := range t.Grants {
			policy.blocked = orElse(policy.blocked, w.wholeApp(g))
		}
		out = append(out, policy)
		if t.Login.Renew {
			out = append(out, policyObject(config.RenewPolicy(t.Role), t.App, w.conf.RenewPolicyText(t)))
		}
		for _, r := range t.Databases {
			out = append(out, w.databaseRole(t, r))
		}
		for _, k := range t.Keys {
			out = append(out, w.key(t, k))
		}
		for _, s := range t.Secrets {
			name := t.Prefix + "/" + s
			out = append(out, object{
				kind: kindSecret, name: name, app: t.App, path: "secret/metadata/" + name, shared: true,
				write: map[string]any{"custom_metadata": map[string]any{markKey: w.conf.Manifest}},
			})
		}
		out = append(out, approle(t))
	}
	return append(out, w.people()...)
}

func policyObject(name, app, text string) object {
	return object{kind: kindPolicy, fields: kindPolicy, name: name, app: app, path: "sys/policies/acl/" + name, want: map[string]any{"policy": text}}
}

// approle is the login of an environment:
// https://developer.hashicorp.com/vault/api-docs/auth/approle#create-update-approle.
func approle(t config.Target) object {
	l := t.Login
	cidrs := l.CIDRs
	if cidrs == nil {
		cidrs = []string{}
	}
	policies := []string{t.Policy}
	if l.Renew {
		policies = append(policies, config.RenewPolicy(t.Role))
	}
	return object{
		kind: kindAppRole, fields: kindAppRole, name: t.Role, app: t.App, path: "auth/approle/role/" + t.Role,
		want: map[string]any{
			"token_policies": policies, "token_ttl": l.TokenTTL, "token_max_ttl": l.TokenMaxTTL,
			"token_bound_cidrs": cidrs, "secret_id_bound_cidrs": cidrs,
			"secret_id_ttl": l.SecretIDTTL, "secret_id_num_uses": l.SecretIDUses,
		},
	}
}

// key is one of the apikeys engine. What the file doesn't say is the mount's
// default, which a read shows filled in.
func (w *world) key(t config.Target, k config.Key) object {
	name := t.Prefix + "/" + k.Name
	meta := map[string]any{markKey: w.conf.Manifest}
	write := map[string]any{
		"provider": k.Provider, "rotation_period": k.RotationPeriod, "rotation_schedule": k.RotationSchedule,
		"time_zone": k.TimeZone, "grace_period": k.GracePeriod, "custom_metadata": meta, "parameters": map[string]any{},
	}
	if k.Parameters != nil {
		write["parameters"] = k.Parameters
	}
	want := maps.Clone(write)
	delete(want, "time_zone")
	if k.TimeZone != "" {
		want["time_zone"] = k.TimeZone
	}
	// The fields themselves read as they were written, whoever did that.
	for field, set := range map[string]bool{"rotation_period": k.RotationPeriod != 0, "grace_period": k.GracePeriod != 0} {
		value, known := want[field], true
		if !set {
			value, known = w.keyDefaults[field]
		}
		delete(want, field)
		if known {
			want["effective_"+field] = value
		}
	}
	o := object{kind: kindKey, name: name, app: t.App, path: "apikeys/keys/" + name, want: want, write: write}
	if w.providers != nil && !slices.Contains(w.providers, k.Provider) {
		o.missing = fmt.Sprintf("provider %q of the apikeys engine (vault write apikeys/providers/%s …)", k.Provider, k.Provider)
	}
	return o
}

// connection is a database's: https://developer.hashicorp.com/vault/api-docs/secret/databases.
func (w *world) connection(d config.Database) object {
	url, plugin := connectionURL(d, w.product)
	want := map[string]any{
		"plugin_name": plugin, "allowed_roles": w.conf.RolesOf(d.Name), "connection_url": url, "username": d.Username,
		"username_template": usernameTemplate(d.Engine), "max_open_connections": 8, "max_connection_lifetime": "5m",
		markKey: w.conf.Manifest,
	}
	if d.Engine == config.EnginePostgreSQL {
		// The statements carry a SCRAM verifier: the server's log never sees a password.
		want["password_authentication"] = "scram-sha-256"
	} else if d.AccountHost != "" {
		// Vault's own statement knows '%' alone. (MariaDB 10.11 takes ALTER USER
		// CURRENT_USER(), and changes nothing.)
		want["root_rotation_statements"] = rotationStatements(d.Engine, d.AccountHost)
	}
	o := object{kind: kindConnection, fields: kindConnection, name: d.Name, path: "database/config/" + d.Name, want: want, resend: true}
	o.blocked = w.accountTaken(o, d, d.Username, d.AccountHost)
	if d.CAFile != "" {
		pem, err := w.readCA(d.CAFile)
		if err != nil {
			o.missing = fmt.Sprintf("ca_file of database %q: %v", d.Name, err)
		}
		want["tls_ca"] = pem
	} else {
		want["tls_ca"] = ""
	}
	if readsCA(d, w.product) {
		want["tls_ca"] = ""
		o.refusal = func(err error) string { return unreadCA(d, err) }
	}
	o.secrets = func() (map[string]any, error) {
		password, err := w.secretFile("password_file of database "+d.Name, d.PasswordFile)
		return map[string]any{"password": password}, err
	}
	return o
}

// databaseRole is dynamic, or of an account that exists already.
func (w *world) databaseRole(t config.Target, r config.DatabaseRole) object {
	d, _ := w.conf.Database(r.Database)
	if r.Access == config.AccessStatic {
		o := object{
			kind: kindStaticRole, fields: kindStaticRole, name: r.Name, app: t.App, path: "database/static-roles/" + r.Name,
			want: map[string]any{
				"db_name": r.Database, "username": r.Username, "rotation_period": r.RotationPeriod,
				"rotation_statements": rotationStatements(d.Engine, r.AccountHost),
			},
			refusal:  func(err error) string { return missingRight(d, r, err) },
			replaced: "username",
		}
		o.blocked = orElse(w.externalFault(d, r.Name), w.accountTaken(o, d, r.Username, r.AccountHost))
		if d.Engine == config.EnginePostgreSQL {
			o.note = "from PostgreSQL 16 on it needs " + adminOption(d, r.Username)
		}
		return o
	}
	s := w.statements(d, r)
	return object{
		blocked: orElse(w.externalFault(d, r.Name), w.shared[pairOf(w.located(d), r.Schema)]),
		kind:    kindDBRole, fields: kindDBRole, name: r.Name, app: t.App, path: "database/roles/" + r.Name,
		want: map[string]any{
			"db_name": r.Database, "default_ttl": r.TTL, "max_ttl": r.MaxTTL,
			"creation_statements": s.creation, "renew_statements": s.renewal, "revocation_statements": s.revocation,
		},
	}
}

// secretFile is the content of a file without the line's end. The error never
// quotes it.
func (w *world) secretFile(what, file string) (string, error) {
	data, err := w.readFile(file)
	if err != nil {
		return "", &NeedsOperator{Err: fmt.Errorf("%s: %w", what, err), Hint: "the file is needed when the connection is set up, and with --resend-secrets"}
	}
	s := strings.TrimRight(string(data), "\r\n")
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return "", &NeedsOperator{Err: fmt.Errorf("%s: file %q must hold exactly one line", what, file)}
	}
	return s, nil
}

// NeedsOperator is a fault that only a person can mend.
type NeedsOperator struct {
	Err  error
	Hint string
}

// Error is the fault without what to do about it.
func (e *NeedsOperator) Error() string { return e.Err.Error() }

// Unwrap gives the fault.
func (e *NeedsOperator) Unwrap() error { return e.Err }
