# The snapshot job takes snapshots, and can do nothing else.
path "sys/storage/raft/snapshot" {
  capabilities = ["read"]
}
# Its own token, when it is done: these jobs do without Vault's default policy.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
