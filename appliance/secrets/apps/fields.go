package apps

import (
	"maps"

	"strongroom.example/config"
)

// fields are the settings that a kind of object has in Vault: whose each is.
type fields struct {
	// ours are always written: what the file doesn't say is this, Vault's own default.
	ours map[string]any
	// others' are left as they are.
	others []string
	// secret are never given back by Vault, sent only with their file and never empty.
	secret []string
	// told are what Vault says of the object itself.
	told []string
}

// token are the fields of every kind that gives tokens.
// https://developer.hashicorp.com/vault/api-docs/auth/approle#create-update-approle
var token = map[string]any{
	"token_policies": []string{}, "token_ttl": 0, "token_max_ttl": 0, "token_explicit_max_ttl": 0, "token_period": 0, "token_num_uses": 0,
	"token_type": "default", "token_bound_cidrs": []string{}, "token_no_default_policy": false,
}

func with(more map[string]any) map[string]any {
	out := maps.Clone(token)
	maps.Copy(out, more)
	return out
}

// The kinds of the table: those of objects, with the auth method's type where it
// decides.
const (
	ofLDAPUser  = kindAuthEntry + " " + config.AuthLDAP + " user"
	ofLDAPGroup = kindAuthEntry + " " + config.AuthLDAP + " group"
)

func ofAuth(kind, method string) string { return kind + " " + method }

// fieldTable has a row for each kind of object that an apply writes. A test holds it
// to what Vault itself shows of them.
var fieldTable = map[string]fields{
	kindPolicy: {ours: map[string]any{"policy": ""}, told: []string{"name"}},
	kindAppRole: {
		ours:   with(map[string]any{"bind_secret_id": true, "secret_id_bound_cidrs": []string{}, "secret_id_ttl": 0, "secret_id_num_uses": 0}),
		others: []string{"local_secret_ids", "alias_metadata"}, // the first can't be changed
		told:   []string{"policies", "period", "bound_cidr_list"},
	},
	// https://developer.hashicorp.com/vault/api-docs/secret/databases#configure-connection
	kindConnection: {
		ours: map[string]any{
			"plugin_name": "", "allowed_roles": []string{}, "root_rotation_statements": []string{}, "password_policy": "",
			"connection_url": "", "username": "", "username_template": "", "max_open_connections": 0, "max_connection_lifetime": "",
			"tls_ca": "", markKey: "",
		},
		others: []string{"plugin_version", "skip_static_role_import_rotation", "verify_connection", "disable_automated_rotation", "rotation_period", "rotation_schedule", "rotation_window", "rotation_policy", "max_idle_connections", "password_authentication"},
		secret: []string{"password"},
		told:   []string{"connection_details", "root_credentials_rotate_statements", "backend"},
	},
	kindDBRole: {
		ours: map[string]any{
			"db_name": "", "default_ttl": 0, "max_ttl": 0, "creation_statements": []string{}, "renew_statements": []string{},
			"revocation_statements": []string{}, "rollback_statements": []string{}, "credential_type": "password",
		},
		others: []string{"credential_config"},
	},
	kindStaticRole: {
		ours: map[string]any{"db_name": "", "username": "", "rotation_period": 0, "rotation_statements": []string{}, "credential_type": "password"},
		// A schedule would be in the way of a period, and Vault takes one of the two.
		others: []string{"credential_config", "rotation_window", "rotation_schedule", "skip_import_rotation"},
		secret: []string{"self_managed_password"},
		told:   []string{"last_vault_rotation"},
	},
	// https://developer.hashicorp.com/vault/api-docs/auth/userpass#create-update-user
	ofAuth(kindAuthEntry, config.AuthUserpass): {ours: token, secret: []string{"password"}, told: []string{"policies", "ttl", "max_ttl", "bound_cidrs"}},
	ofLDAPUser:  {ours: map[string]any{"policies": []string{}, "groups": ""}},
	ofLDAPGroup: {ours: map[string]any{"policies": []string{}}},
	// https://developer.hashicorp.com/vault/api-docs/auth/ldap#configure-ldap
	ofAuth(kindAuth, config.AuthLDAP): {
		ours: with(map[string]any{
			"url": "", "starttls": false, "certificate": "", "insecure_tls": false, "binddn": "", "userdn": "", "userattr": "cn", "groupdn": "",
			"groupattr": "cn", "groupfilter": "(|(memberUid={{.Username}})(member={{.UserDN}})(uniqueMember={{.UserDN}}))",
			"userfilter": "({{.UserAttr}}={{.Username}})", "upndomain": "", "discoverdn": false, "tls_min_version": "tls12", "tls_max_version": "tls12",
			"deny_null_bind": true, "anonymous_group_search": false, "use_token_groups": false, "username_as_alias": false,
			"dereference_aliases": "never", "request_timeout": 90, "connection_timeout": 30, "case_sensitive_names": false,
			"enable_samaccountname_login": false,
		}),
		others: []string{
			"max_page_size", "use_pre111_group_cn_behavior", "client_tls_cert", "schema", "disable_automated_rotation", "rotation_period", "rotation_policy",
			"rotation_schedule", "rotation_window", "rotation_url", "password_policy",
		},
		secret: []string{"bindpass", "client_tls_key"},
	},
	// https://developer.hashicorp.com/vault/api-docs/auth/jwt#configure
	ofAuth(kindAuth, config.AuthOIDC): {
		ours: map[string]any{
			"oidc_discovery_url": "", "oidc_client_id": "", "oidc_discovery_ca_pem": "", "default_role": "", "oidc_response_mode": "",
			"oidc_response_types": []string{}, "jwks_url": "", "jwks_ca_pem": "", "jwks_pairs": []string{}, "jwt_validation_pubkeys": []string{},
			"jwt_supported_algs": []string{}, "bound_issuer": "", "provider_config": map[string]any{},
		},
		others: []string{"namespace_in_state", "unsupported_critical_cert_extensions"},
		secret: []string{"oidc_client_secret"},
		told:   []string{"status"},
	},
	ofAuth(kindAuthEntry, config.AuthOIDC): {
		ours: with(map[string]any{
			"role_type": "", "user_claim": "sub", "user_claim_json_pointer": false, "groups_claim": "", "bound_claims": map[string]any{},
			"bound_claims_type": "string", "bound_audiences": []string{}, "bound_subject": "", "claim_mappings": map[string]any{},
			"allowed_redirect_uris": []string{}, "oidc_scopes": []string{}, "verbose_oidc_logging": false, "max_age": 0,
			"expiration_leeway": 0, "not_before_leeway": 0, "clock_skew_leeway": 0,
		}),
		others: []string{"callback_mode", "poll_interval"},
	},
	// https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#configure-method
	ofAuth(kindAuth, config.AuthKubernetes): {
		ours: map[string]any{
			"kubernetes_host": "", "kubernetes_ca_cert": "", "disable_local_ca_jwt": true, "pem_keys": []string{}, "issuer": "",
			"disable_iss_validation": true, "use_annotations_as_alias_metadata": false,
		},
		secret: []string{"token_reviewer_jwt"},
		told:   []string{"token_reviewer_jwt_set"},
	},
	ofAuth(kindAuthEntry, config.AuthKubernetes): {
		ours: with(map[string]any{
			"bound_service_account_names": []string{}, "bound_service_account_namespaces": []string{}, "bound_service_account_namespace_selector": "",
			"audience": "", "alias_name_source": "serviceaccount_uid",
		}),
		others: []string{"alias_metadata"},
	},
}

// absent are the defaults of the fields that an object's own settings leave out.
func (o object) absent() map[string]any {
	out := map[string]any{}
	for k, v := range fieldTable[o.fields].ours {
		if _, said := o.want[k]; !said {
			out[k] = v
		}
	}
	return out
}

// sent is what an apply writes of an object, secrets excepted.
func (o object) sent() map[string]any {
	if o.write != nil {
		return wire(o.write)
	}
	out := wire(o.want)
	for _, k := range fieldTable[o.fields].told {
		delete(out, k)
	}
	maps.Copy(out, o.absent())
	return out
}
