# The operator's own: everything that a team's Vault needs day by day. It can't
# reach the seal, the raw storage or a root token, which are for the machine.
path "*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/raw" {
  capabilities = ["deny"]
}
path "sys/raw/*" {
  capabilities = ["deny"]
}
path "sys/generate-root/*" {
  capabilities = ["deny"]
}
path "sys/seal" {
  capabilities = ["deny"]
}
path "sys/step-down" {
  capabilities = ["deny"]
}
path "auth/token/create-orphan" {
  capabilities = ["deny"]
}
