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
# A token that outlives its maker's: whoever is taken out is out with all of them.
path "auth/token/create-orphan" {
  capabilities = ["deny"]
}
path "auth/token/create" {
  capabilities = ["create", "update", "sudo"]
  denied_parameters = {
    "no_parent" = []
  }
}
path "auth/token/create/*" {
  capabilities = ["create", "update", "sudo"]
  denied_parameters = {
    "no_parent" = []
  }
}
# Of several policies Vault lets the one decide that names a path most exactly: an
# administrator who is an operator and a reader, too, would be less without these.
path "apikeys/check/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "apikeys/config" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "apikeys/keys/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "apikeys/providers/" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "apikeys/providers/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "apikeys/rotate/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "apikeys/status" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "apikeys/versions/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "auth/+/config" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "auth/+/groups/+" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "auth/+/role/+" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "auth/+/users/+" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "auth/approle/role" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "auth/approle/role/+" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "auth/userpass/users" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "database/config/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "database/roles/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "database/rotate-role/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "database/rotate-root/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "database/static-roles/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "secret/data/strongroom/keyring" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "secret/data/strongroom/manifests/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "secret/metadata/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/audit" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/auth" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/leases/count" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/leases/lookup" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/leases/lookup/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/leases/revoke" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/mounts" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/mounts/+/tune" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/mounts/auth/+/tune" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/policies/acl" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
path "sys/policies/acl/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]
}
