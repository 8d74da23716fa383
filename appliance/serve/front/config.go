// Package front is the only thing that the internet reaches: an embedded Caddy
// with the few modules it needs, which ends TLS, keeps its certificate alive
// and passes to Vault what the outside may ask.
//
// It is not a general web server, and it reads no Caddyfile: its configuration
// is a Config, from which it builds Caddy's. Caddy's state is global, so one
// process runs one front.
package front

import "strongroom.example/config"

// Config is the front's configuration, front.toml.
type Config = config.Front
