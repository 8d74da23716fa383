# The drill compares what it finds in a restored Vault. It changes nothing.
path "secret/data/strongroom/canary" {
  capabilities = ["read"]
}
path "secret/metadata/strongroom/canary" {
  capabilities = ["read"]
}
path "sys/policies/acl" {
  capabilities = ["list"]
}
path "sys/policies/acl/*" {
  capabilities = ["read"]
}
path "sys/mounts" {
  capabilities = ["read"]
}
path "sys/auth" {
  capabilities = ["read"]
}
# States and times of keys, never their values.
path "apikeys/status" {
  capabilities = ["read"]
}
path "apikeys/versions/*" {
  capabilities = ["read"]
}
# Its own token, when it is done: these jobs do without Vault's default policy.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
