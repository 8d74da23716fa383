# Day to day: looks at everything, rotates and revokes, reads no secret and gives
# no rights.
path "secret/metadata/*" {
  capabilities = ["read", "list"]
}
path "apikeys/keys/*" {
  capabilities = ["read", "list"]
}
path "apikeys/providers/*" {
  capabilities = ["read", "list"]
}
path "apikeys/versions/*" {
  capabilities = ["read"]
}
path "apikeys/status" {
  capabilities = ["read"]
}
path "apikeys/rotate/*" {
  capabilities = ["create", "update"]
}
path "apikeys/check/*" {
  capabilities = ["read", "update"]
}
path "apikeys/config" {
  capabilities = ["read"]
}
path "database/config/*" {
  capabilities = ["read", "list"]
}
path "database/roles/*" {
  capabilities = ["read", "list"]
}
path "database/static-roles/*" {
  capabilities = ["read", "list"]
}
path "database/rotate-root/*" {
  capabilities = ["update"]
}
path "database/rotate-role/*" {
  capabilities = ["update"]
}
path "sys/leases/lookup" {
  capabilities = ["update"]
}
path "sys/leases/lookup/*" {
  capabilities = ["list", "sudo"]
}
path "sys/leases/revoke" {
  capabilities = ["update"]
}
path "sys/leases/count" {
  capabilities = ["read", "sudo"]
}
path "sys/mounts" {
  capabilities = ["read"]
}
path "sys/auth" {
  capabilities = ["read"]
}
path "sys/audit" {
  capabilities = ["read", "sudo"]
}
path "sys/policies/acl" {
  capabilities = ["list"]
}
path "sys/policies/acl/*" {
  capabilities = ["read"]
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
# What the appliance owns, for strongroom app plan; no secret is in it.
path "secret/data/strongroom/manifests/*" {
  capabilities = ["read"]
}
path "secret/data/strongroom/keyring" {
  capabilities = ["read"]
}
# What strongroom app plan compares: how people and pods log in, and how long a
# mount lets anything live. Passwords and keys are never given back by these.
path "auth/+/config" {
  capabilities = ["read"]
}
path "auth/+/role/+" {
  capabilities = ["read"]
}
path "auth/+/users/+" {
  capabilities = ["read"]
}
path "auth/+/groups/+" {
  capabilities = ["read"]
}
path "sys/mounts/+/tune" {
  capabilities = ["read"]
}
path "sys/mounts/auth/+/tune" {
  capabilities = ["read"]
}
