package doctor

import "context"

type check struct {
	number int
	id     string
	title  string
	run    func(context.Context, *exam)
}

// checks are the checklist, in its order: 1 to 28 are the hardening checklist's,
// the rest the appliance's own.
func checks() []check {
	return []check{
		{1, "dedicated-user", "daemons run as users of their own, none as root", dedicatedUser},
		{2, "vault-readonly", "Vault cannot write its programs or configuration", vaultReadOnly},
		{3, "tls", "TLS 1.2 or newer and HSTS outside; sockets and loopback inside", tlsOutside},
		{4, "swap", "swap is off", swapOff},
		{5, "core-dumps", "no core dumps", coreDumps},
		{6, "listeners", "nothing else listens", listeners},
		{7, "firewall", "the firewall is in force, both directions", firewall},
		{8, "root-token", "no root token is alive", rootToken},
		{9, "user-lockout", "wrong passwords lock a user out", userLockout},
		{10, "audit-devices", "two audit devices write", auditDevices},
		{11, "shell-history", "vault's commands stay out of shell histories", shellHistory},
		{12, "vault-version", "Vault has no known faults", vaultVersion},
		{13, "clock", "the clock is synchronised", clock},
		{14, "storage-mode", "Vault's storage is Vault's alone", storageMode},
		{15, "cleartext", "no credential in clear in any configuration", cleartext},
		{16, "tls13", "TLS 1.3 is preferred", tls13},
		{17, "plugin-pinned", "plugins are pinned by SHA-256 and version", pluginPinned},
		{18, "one-config", "Vault has one configuration file", oneConfig},
		{19, "file-modes", "modes and owners of what the daemons read", fileModes},
		{20, "leaks", "no secret in arguments, environments or the journal", leaks},
		{21, "tokens", "tokens, leases and entities are looked over", tokensReviewed},
		{22, "token-ttl", "tokens live short", tokenTTL},
		{23, "ssh", "SSH by key only", sshKeysOnly},
		{24, "sandbox", "systemd's sandboxes are tight", sandboxes},
		{25, "mlock", "disable_mlock is explicit", mlock},
		{26, "audit-mode", "audit files are not executable", auditMode},
		{27, "sys-closed", "init, unseal, rekey and generate-root are closed outside", sysClosed},
		{28, "backup-drill", "a verified backup and a passed drill are recent", backupAndDrill},
		{29, "escrow", "the escrow is proved to open off this machine", escrowConfirmed},
		{30, "drift", "what the installer wrote is as it wrote it", drift},
		{31, "units", "daemons run, timers are armed", unitsRun},
	}
}
