# The administrator's: everything that a team's Vault needs day by day. What is
# denied below is denied so that nobody does it by mistake; who may write
# policies can grant it to himself, and the audit log shows that.
path "*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/raw" {
  capabilities = ["deny"]
}
path "sys/raw/*" {
  capabilities = ["deny"]
}
path "sys/seal" {
  capabilities = ["deny"]
}
path "sys/step-down" {
  capabilities = ["deny"]
}
