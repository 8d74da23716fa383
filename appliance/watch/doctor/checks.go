package doctor

import "strongroom.example/config/machine"

// checks are the checklist, in its order.
func checks() []check {
	return []check{
		{id: "dedicated-user", title: "daemons run as users of their own, none as root", questions: []question{
			{asks: "the daemons' users can't log in and are in no group of power", least: 2, of: "user", ask: daemonUsers},
			{asks: "no process of a daemon is root's", least: 3, of: "daemon", ask: daemonProcesses},
		}},
		{id: "vault-readonly", title: "Vault cannot write its programs or configuration", questions: []question{
			{asks: "Vault can't write programs, configuration and units, nor a folder above them", least: len(readOnlyPaths()), of: "path", ask: vaultReadOnly},
			{asks: "Vault can't write its plugins", least: 1, of: "plugin", ask: pluginsReadOnly},
		}},
		{id: "tls", title: "TLS 1.2 or newer and HSTS outside; sockets and loopback inside", questions: []question{
			{asks: "the front refuses TLS 1.1 and older", ask: oldTLSRefused},
			{asks: "the front sends HSTS", ask: hstsSent},
			{asks: "by its configuration Vault listens on loopback, with TLS", least: 1, of: "listener", ask: vaultListeners},
			{asks: "what Vault listens on is loopback", least: 1, of: "socket", ask: vaultSockets},
		}},
		{id: "swap", title: "swap is off", questions: []question{
			{asks: "no swap is on", ask: swapOff},
			{asks: "no swap comes at the next boot", ask: noSwapAtBoot},
			{asks: "no unit brings swap", ask: noSwapUnit},
		}},
		{id: "core-dumps", title: "no core dumps", questions: []question{
			{asks: "fs.suid_dumpable is 0", ask: suidDumpable},
			{asks: "the daemons' units allow no core dump", least: 3, of: "unit", ask: unitCores},
			{asks: "the daemons' processes leave no core dump", least: 3, of: "daemon", remedy: "strongroom doctor, the item units", ask: processCores},
		}},
		{id: "listeners", title: "nothing else listens", questions: []question{
			{asks: "to the network nothing listens but what must", least: 2, of: "socket that must listen", remedy: "systemctl status " + machine.UnitFrontHTTPS + " " + machine.UnitFrontHTTP, ask: listeners},
		}},
		{id: "firewall", title: "the firewall is in force, both directions", questions: []question{
			{asks: "the rules in force are those that the installer wrote, and bind the daemons", least: 1, of: "rule", ask: firewallRules},
			{asks: "the rules come back at boot", ask: firewallAtBoot},
			{asks: "it is looked at every minute, and no set is full", ask: firewallWatched},
		}},
		{id: "root-token", title: "no root token is alive", questions: []question{
			{asks: "no root token is kept on the disk", ask: rootTokenFile},
			{asks: "Vault's configuration makes no root token for a caller without a token", ask: generateRootShut},
			{asks: "no living token is root's", least: 1, of: "token", remedy: "vault list auth/token/accessors", ask: rootToken},
		}},
		{id: "user-lockout", title: "wrong passwords lock a user out", questions: []question{
			{asks: "Vault's configuration locks users out", least: 1, of: "user_lockout \"all\"", ask: lockoutConfigured},
			{asks: "no auth method has lockout off", least: 1, of: "auth method", ask: lockoutTuned},
			{asks: "there is a way in that nobody outside can lock", ask: wayInUnlocked},
		}},
		{id: "audit-devices", title: "two audit devices write", questions: []question{
			{asks: "two audit devices write to two places, neither in clear", least: 2, of: "audit device", ask: auditDevices},
			{asks: "nothing of the audit history is lost, and each log is written", ask: auditWatched},
		}},
		{id: "shell-history", title: "vault's commands stay out of shell histories", questions: []question{
			{asks: "shells keep vault's commands out of histories", ask: historyIgnored},
			{asks: "no history holds a token or a key", least: 1, of: "person", ask: historiesClean},
		}},
		{id: "vault-version", title: "Vault has no known faults", questions: []question{
			{asks: "Vault is at or above the oldest version without known faults", ask: vaultVersion},
		}},
		{id: "clock", title: "the clock is synchronised", operation: true, questions: []question{
			{asks: "the engine has seen no jump of the clock", ask: engineClock},
			{asks: "the kernel's clock is synchronised", ask: kernelClock},
		}},
		{id: "storage-mode", title: "Vault's storage is Vault's alone", questions: []question{
			{asks: "Vault's storage is closed to everybody else", least: 2, of: "folder", ask: storageMode},
		}},
		{id: "cleartext", title: "no credential in clear in any configuration", questions: []question{
			{asks: "the appliance's configuration holds no secret in clear", least: 3, of: "file", ask: ownCleartext},
			{asks: "the units hold no secret in clear", least: 3, of: "file", ask: unitCleartext},
			{asks: "the system's configuration holds no secret in clear", least: 1, of: "file", ask: systemCleartext},
			{asks: "each credential is encrypted with a key", least: 1, of: "credential", ask: sealedCredentials},
		}},
		{id: "tls13", title: "TLS 1.3 is preferred", questions: []question{
			{asks: "the front chooses TLS 1.3", ask: tls13},
		}},
		{id: "plugin-pinned", title: "plugins are pinned by SHA-256 and version", questions: []question{
			{asks: "the engine for API keys is mounted", ask: engineMounted},
			{asks: "each plugin is pinned, and file, catalog and process have one SHA-256", least: 1, of: "plugin", ask: pluginPinned},
		}},
		{id: "one-config", title: "Vault has one configuration file", questions: []question{
			{asks: "Vault is started with one configuration", least: 1, of: "configuration", ask: oneConfig},
			{asks: "there is no other configuration of Vault's", ask: noOtherConfig},
			{asks: "the configuration is a regular file", ask: configIsFile},
		}},
		{id: "file-modes", title: "modes and owners of what the daemons read", questions: []question{
			{asks: "folders, configuration and sockets are as closed as they must be", least: len(closedFiles()), of: "path", ask: fileModes},
			{asks: "the keys of TLS are root's alone", least: 1, of: "key or certificate", ask: tlsModes},
			{asks: "the credentials are root's alone", least: 1, of: "credential", ask: credentialModes},
			{asks: "the escrow and systemd's own key are closed", ask: escrowModes},
		}},
		{id: "leaks", title: "no secret in arguments, environments or the journal", questions: []question{
			{asks: "no process has a secret in its arguments", least: 1, of: "command line", ask: argumentLeaks},
			{asks: "no process has a secret in its environment", least: 1, of: "environment", ask: environmentLeaks},
			{asks: "the journal holds no secret", least: 1, of: "line", remedy: "journalctl --since=-25h; systemctl status systemd-journald", ask: journalLeaks},
		}},
		{id: "tokens", title: "tokens, leases and entities are looked over", questions: []question{
			{asks: "no token lives for ever", least: 1, of: "token", remedy: "vault list auth/token/accessors", ask: tokensEnd},
			{asks: "entities are counted", least: 1, of: "record", remedy: "vault list identity/entity/id", ask: entitiesCounted},
			{asks: "no lease is beyond revoking", ask: leasesRevocable},
		}},
		{id: "token-ttl", title: "tokens live short", questions: []question{
			{asks: "no auth method gives tokens that live long", least: 1, of: "auth method", ask: methodTTL},
			{asks: "no AppRole gives tokens that live long", least: 1, of: "AppRole", ask: appRoleTTL},
		}},
		{id: "ssh", title: "SSH by key only", questions: []question{
			{asks: "sshd lets nobody in by password", least: len(sshdBad()), of: "setting", ask: sshKeysOnly},
			{asks: "no Match block of sshd's lets anybody in by password", least: 1, of: "file", ask: sshMatchBlocks},
		}},
		{id: "sandbox", title: "systemd's sandboxes are tight", questions: []question{
			{asks: "each service has a tight sandbox", least: 3, of: "service", ask: sandboxes},
		}},
		{id: "mlock", title: "disable_mlock is explicit", questions: []question{
			{asks: "the configuration says disable_mlock", ask: mlock},
			{asks: "memory that is not locked can't reach the disk", ask: swapIsOff},
		}},
		{id: "audit-mode", title: "audit files are not executable", questions: []question{
			{asks: "audit devices make files that only Vault reads", least: 1, of: "audit device that writes a file", ask: auditModes},
			{asks: "audit files are for Vault alone", least: 1, of: "file", ask: auditFileModes},
		}},
		{id: "sys-closed", title: "init, unseal, rekey and generate-root are closed outside", questions: []question{
			{asks: "the front itself refuses what is the machine's own", least: len(closedPaths()), of: "path", ask: sysClosed},
		}},
		{id: "backup-drill", title: "a verified backup and a passed drill are recent", operation: true, questions: []question{
			{asks: "a verified backup is recent", ask: backupRecent},
			{asks: "the last drill got its snapshot", ask: drillFetched},
			{asks: "a drill has passed lately", ask: drillPassed},
			{asks: "the drill's report is signed by this machine", ask: drillSigned},
		}},
		{id: "escrow", title: "the escrow is proved to open off this machine", operation: true, questions: []question{
			{asks: "each file of the escrow was opened off this machine", least: 1, of: "file", ask: escrowConfirmed},
		}},
		{id: "drift", title: "what the installer wrote is as it wrote it", questions: []question{
			{asks: "no restore was killed", ask: waitsEnded},
			{asks: "each file is as it was installed", least: 1, of: "file", ask: drift},
		}},
		{id: "units", title: "daemons run, timers are armed", operation: true, questions: []question{
			{asks: "sockets and daemons are enabled and active", least: 6, of: "unit", ask: daemonsRun},
			{asks: "timers are armed", least: 1, of: "unit", ask: timersArmed},
			{asks: "no unit has failed", ask: noneFailed},
		}},
	}
}
