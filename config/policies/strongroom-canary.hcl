# Before each snapshot the canary is written, by a token that can do nothing
# else; the drill looks for it.
path "secret/data/strongroom/canary" {
  capabilities = ["create", "update"]
}
# Its own token, when it is done: these jobs do without Vault's default policy.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
