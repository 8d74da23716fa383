# Before each snapshot the canary is written, by a token that can do nothing
# else; the drill looks for it.
path "secret/data/strongroom/canary" {
  capabilities = ["create", "update"]
}
