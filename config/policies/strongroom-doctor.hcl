# The doctor, and the installer's look at a Vault that is there: settings and
# counts, no secret, no change. sudo is what Vault asks for these reads.
path "sys/audit" {
  capabilities = ["read", "sudo"]
}
path "sys/auth" {
  capabilities = ["read"]
}
path "sys/auth/+/tune" {
  capabilities = ["read", "sudo"]
}
path "sys/mounts" {
  capabilities = ["read"]
}
path "sys/mounts/+/tune" {
  capabilities = ["read"]
}
path "sys/policies/acl" {
  capabilities = ["list"]
}
path "sys/policies/acl/*" {
  capabilities = ["read"]
}
path "sys/plugins/catalog" {
  capabilities = ["read", "list", "sudo"]
}
path "sys/plugins/catalog/secret/*" {
  capabilities = ["read", "sudo"]
}
path "sys/storage/raft/configuration" {
  capabilities = ["read"]
}
path "sys/storage/raft/autopilot/state" {
  capabilities = ["read"]
}
path "sys/config/state/sanitized" {
  capabilities = ["read", "sudo"]
}
path "identity/entity/id" {
  capabilities = ["list"]
}
path "sys/leases/count" {
  capabilities = ["read", "sudo"]
}
path "auth/token/accessors" {
  capabilities = ["list", "sudo"]
}
path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}
path "auth/approle/role" {
  capabilities = ["list"]
}
path "auth/approle/role/+" {
  capabilities = ["read"]
}
path "auth/userpass/users" {
  capabilities = ["list"]
}
path "auth/strongroom-local/users" {
  capabilities = ["list"]
}
path "sys/quotas/rate-limit" {
  capabilities = ["list"]
}
# Who is locked out after wrong passwords.
path "sys/locked-users" {
  capabilities = ["read", "sudo"]
}
# The public keys of the jobs that sign.
path "secret/data/strongroom/keyring" {
  capabilities = ["read"]
}
path "apikeys/status" {
  capabilities = ["read"]
}
# Its own token, when it is done: these jobs do without Vault's default policy.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
# Which secret ids of the jobs are alive; never a secret id itself.
path "auth/approle/role/+/secret-id" {
  capabilities = ["list"]
}
