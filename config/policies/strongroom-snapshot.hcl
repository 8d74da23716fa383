# The snapshot job takes snapshots, and can do nothing else.
path "sys/storage/raft/snapshot" {
  capabilities = ["read"]
}
