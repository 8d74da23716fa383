# Vault's one configuration file, written by strongroom. Changes by hand are
# drift: `strongroom doctor` reports them and the installer undoes them.

ui           = false
cluster_name = "strongroom"
api_addr     = "https://vault.example.com"
cluster_addr = "https://127.0.0.1:8201"

# Vault does not lock its memory; swap is off on the machine instead, which is
# what HashiCorp advises with integrated storage.
disable_mlock = true

plugin_directory = "/usr/local/lib/strongroom/plugins"

default_lease_ttl = "1h0m0s"
max_lease_ttl     = "24h0m0s"

# A standby's answer may be older than the last write: it hands requests on.
disable_standby_reads = true

audit "file" "audit-1" {
  options {
    file_path = "/var/log/vault/audit-1.log"
  }
}

audit "file" "audit-2" {
  options {
    file_path = "/var/log/vault/audit-2.log"
  }
}

raw_storage_endpoint   = false
introspection_endpoint = false

log_level  = "info"
log_format = "standard"

storage "raft" {
  path    = "/var/lib/vault/raft"
  node_id = "node-1"

  # What HashiCorp recommends for production; the default is five times slower
  # to elect a leader.
  performance_multiplier = 1
}

# Auto-unseal: the master key is with `strongroom kms`, behind this socket. The
# token is not looked at there; Vault insists on one.
seal "transit" {
  address         = "unix:///run/strongroom-kms/kms.sock"
  token           = "unused"
  disable_renewal = "true"
  key_name        = "strongroom"
  mount_path      = "transit/"
}

# For the front alone: whoever connects must present its client certificate, so
# the client's address in X-Forwarded-For can be believed.
listener "tcp" {
  address         = "127.0.0.1:8200"
  cluster_address = "127.0.0.1:8201"

  tls_cert_file                      = "/etc/vault/tls/listener.crt"
  tls_key_file                       = "/etc/vault/tls/listener.key"
  tls_min_version                    = "tls13"
  tls_require_and_verify_client_cert = true
  tls_client_ca_file                 = "/etc/vault/tls/front-ca.crt"

  x_forwarded_for_authorized_addrs      = "127.0.0.1/32"
  x_forwarded_for_hop_skips             = 0
  x_forwarded_for_reject_not_authorized = true
  x_forwarded_for_reject_not_present    = true

  # Each value of a request's JSON is 80 bytes of an audit log, four times, also where
  # the request is refused. The front is stricter in each and answers 400: what is
  # refused here is a 500, which clients repeat.
  max_request_json_strings = 30000
}

# For the jobs on this machine, by file permission. Vault sets mode, user and
# group only when all three are given.
listener "unix" {
  address      = "/run/vault/vault.sock"
  socket_mode  = "0660"
  socket_user  = "vault"
  socket_group = "strongroom"

  # Vault ends a request that takes longer than 30 s to arrive: a snapshot of 1 GB that
  # comes off a slow disk never gets in.
  http_read_timeout = "4h"

  # The ledger of a manifest is one write, and names all that it has made.
  max_request_json_strings = 100000

  telemetry {
    unauthenticated_metrics_access = true
  }
}

telemetry {
  prometheus_retention_time = "24h"
  disable_hostname          = true
}

user_lockout "all" {
  lockout_threshold     = "5"
  lockout_duration      = "15m"
  lockout_counter_reset = "15m"
  disable_lockout       = "false"
}
