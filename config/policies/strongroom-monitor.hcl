# The metrics daemon: counts, ages and states. No secret, no change, and the
# metrics name no key; status does.
path "sys/metrics" {
  capabilities = ["read"]
}
# How many are locked out after wrong passwords.
path "sys/locked-users" {
  capabilities = ["read", "sudo"]
}
path "apikeys/status" {
  capabilities = ["read"]
}
path "apikeys/metrics" {
  capabilities = ["read"]
}
# Its own token only: it is renewed while the daemon runs, and ended with it.
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
