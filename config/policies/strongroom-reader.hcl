# For reviewers: names, states, settings and policies. No secret, no change.
path "secret/metadata/*" {
  capabilities = ["read", "list"]
}
path "apikeys/keys/*" {
  capabilities = ["read", "list"]
}
path "apikeys/versions/*" {
  capabilities = ["read"]
}
path "apikeys/status" {
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
path "apikeys/config" {
  capabilities = ["read"]
}
path "apikeys/providers/" {
  capabilities = ["list"]
}
