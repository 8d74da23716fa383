// Package audit keeps Vault's audit logs from filling the disk: it rotates them
// by size and age, compresses and keeps the old ones, and warns before the disk
// is full. A request that Vault can't write to any audit device is refused, so a
// full disk stops Vault.
//
// One log at a time is renamed, then Vault is asked by SIGHUP to open its logs
// again, and only when the new file is there is the old one touched: until then
// Vault writes to it under its new name. So no entry is lost, and with two
// devices at least one is open under its own name at every moment.
// See https://developer.hashicorp.com/vault/docs/audit/file.
//
// It is not a log shipper: what must outlive this machine, or an intruder on it,
// is for a log collector.
package audit
