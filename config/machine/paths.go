// Package machine names what an installed machine is made of: folders and files,
// sockets, users, units, credentials, mounts. Programs, units and templates agree
// by it, and tests hold the units and templates to it.
//
// It knows names only: what is in a file, and who makes it, is its users' matter.
// It imports the standard library alone.
package machine

// Etc is the folder of the configuration, and what is in it.
const (
	Etc = "/etc/strongroom"
	// ConfigFile is what the operator decided.
	ConfigFile = Etc + "/appliance.toml"
	// AppsFile is what is declared of apps and environments.
	AppsFile  = Etc + "/apps.toml"
	VaultHCL  = Etc + "/vault.hcl"
	FrontTOML = Etc + "/front.toml"
	// EpochFile tells the engine which installation it belongs to.
	EpochFile    = Etc + "/epoch.json"
	NftablesConf = Etc + "/nftables.conf"
	// NftablesCandidate has rules that are in force and wait to be confirmed.
	NftablesCandidate = NftablesConf + ".new"
	// ManifestFile lists all files that the installer has put on the machine.
	ManifestFile = Etc + "/installed.json"
	// ManifestFormat is that of ManifestFile.
	ManifestFormat = 1
	// AuthorityDir has the root of the internal CA: see package authority.
	AuthorityDir = Etc + "/authority"
	// DrillKeyPub is the recipient of backups whose private half the machine
	// keeps, so that it can prove them.
	DrillKeyPub = Etc + "/drill-key.pub"
	// DrillSigningPub is what reports of drills are checked with.
	DrillSigningPub = Etc + "/drill-signing.pub"
	// KeyringFile holds the public keys of the jobs that sign, of this machine and of those
	// before it; KeyringEscrow is the copy that goes off the machine.
	KeyringFile = Etc + "/keyring.json"
	// TLSDir has the certificates of the link from the front to Vault.
	TLSDir = Etc + "/tls"
	// CredentialDir has the sealed credentials, each in a file of its name.
	CredentialDir = Etc + "/credentials"
)

// StateDir is the folder of the states, each job's in a folder of its own that
// its unit makes.
const (
	StateDir      = "/var/lib/strongroom"
	SnapshotState = StateDir + "/snapshot"
	VerifyState   = StateDir + "/verify"
	DrillState    = StateDir + "/drill"
	DoctorState   = StateDir + "/doctor"
	AuditState    = StateDir + "/audit"
	// AuditWatchState is root's: what must be there of the audit logs.
	AuditWatchState = StateDir + "/audit-watch"
	AlertState      = StateDir + "/alert"
	// EscrowDir has what only the operator can open.
	EscrowDir       = StateDir + "/escrow"
	MasterKeyEscrow = EscrowDir + "/master-key.age"
	KeyringEscrow   = EscrowDir + "/keyring.json"
	// AdminEscrow has the first administrator's password, LocalEscrow the one of
	// AuthLocal.
	AdminEscrow = EscrowDir + "/admin.age"
	LocalEscrow = EscrowDir + "/local-admin.age"
	// InstallJournal is the journal of all runs of the installer.
	InstallJournal = StateDir + "/install.journal"
	// ProductFile says whose server the data in RaftDir is of, a config.Product.
	ProductFile = StateDir + "/product"
	// NodeFile says which of raft's nodes the data in RaftDir is of.
	NodeFile = StateDir + "/node-id"
	// ApportMasked is there where the installer has masked Ubuntu's collector of crashes.
	ApportMasked = StateDir + "/apport-masked"
	// BackupTried says of which [backup] a snapshot has been stored and read back.
	BackupTried = StateDir + "/backup-tried"
	// RetiredDir keeps key material that is no longer wanted, sealed.
	RetiredDir = StateDir + "/retired"
	// StartedFile says with which files each daemon was started.
	StartedFile = StateDir + "/started.json"
	// UpgradeDir has what an upgrade keeps of the versions before it.
	UpgradeDir = StateDir + "/upgrade"
	// UpgradeRecord is there while an upgrade is unfinished, and RecoveryRecord tells how far
	// a restore onto this machine has come.
	UpgradeRecord  = UpgradeDir + "/record.json"
	RecoveryRecord = StateDir + "/recovery.json"
	// ReplacedDir has what a restore has replaced.
	ReplacedDir = StateDir + "/replaced"
	// RestoreWaits is where a restore notes what it sets to 0 for a while.
	RestoreWaits = StateDir + "/restore-waits.json"
)

// The daemons' data.
const (
	VaultData = "/var/lib/vault"
	RaftDir   = VaultData + "/raft"
	// Aside, with a time behind it, ends the name of what was set aside and is kept.
	Aside = ".aside-"
	// ChangedFile is what the engine writes after a rotation.
	ChangedFile = VaultData + "/changed/rotated"
	AuditDir    = "/var/log/vault"
	FrontData   = "/var/lib/strongroom-front"
	// FrontPEM is the operator's own certificate with its key, as the front has it.
	FrontPEM = FrontData + "/files.pem"
	// FrontRoot is the root of the front's own authority, in the mode internal.
	FrontRoot = FrontData + "/root.crt"
)

// The programs, and what they are handed to systemd with.
const (
	BinDir       = "/usr/local/bin"
	VaultProgram = BinDir + "/vault"
	Program      = BinDir + "/" + ProgramName
	LibDir       = "/usr/local/lib/strongroom"
	PluginDir    = LibDir + "/plugins"
	// DocDir has the pages that hints name as docs/….
	DocDir = LibDir + "/docs"
	// DownloadDir is swept at each download.
	DownloadDir = LibDir + "/download"
	UnitDir     = "/etc/systemd/system"
	// SearchPath is where root's programs look for commands, whoever calls them:
	// a PATH that is handed in may name others.
	SearchPath = "/usr/local/sbin:" + BinDir + ":/usr/sbin:/usr/bin:/sbin:/bin"
)

// The names of our programs.
const (
	ProgramName   = "strongroom"
	InstallerName = "strongroom-installer"
	// PluginName is also the engine's type in Vault's catalog.
	PluginName = "vault-plugin-secrets-apikeys"
)

// Sockets, and the folders that they are in.
const (
	VaultRun    = "/run/vault"
	VaultSocket = VaultRun + "/vault.sock"
	// VaultAddress is VaultSocket as Vault's clients write it.
	VaultAddress = "unix://" + VaultSocket
	KMSRun       = "/run/strongroom-kms"
	KMSSocket    = KMSRun + "/kms.sock"
	// FilesSocket is where root's job hands the packed files of [backup] over.
	FilesSocket = "/run/strongroom-snapshot-files.sock"
	// AuthoritySocket is where the front asks for intermediate certificates.
	AuthoritySocket = "/run/strongroom-front-authority.sock"
	FrontRun        = "/run/strongroom-front"
	// FrontMetrics is where the monitor asks the front.
	FrontMetrics = FrontRun + "/metrics.sock"
	// DoorSocket is where OpenBao makes a root token for recovery keys, while
	// DoorLock is held; its folder is root's own.
	DoorRun    = "/run/strongroom-door"
	DoorSocket = DoorRun + "/vault.sock"
	DoorLock   = "/run/strongroom-door.lock"
	// OperationLock is held by what changes the machine as a whole.
	OperationLock = "/run/strongroom-installer.lock"
	// NetworkReport is what the doctor's networked half has seen.
	NetworkReport = "/run/strongroom-doctor/network.json"
	// FirewallWatchRun has what the look of every minute has found of the firewall.
	FirewallWatchRun = "/run/strongroom-firewall-watch"
)

// Files outside of the appliance's own folders, for the machine as a whole.
const (
	SysctlFile  = "/etc/sysctl.d/60-strongroom.conf"
	LimitsFile  = "/etc/security/limits.d/60-strongroom.conf"
	HistoryFile = "/etc/profile.d/strongroom.sh"
	// SSHDFile is first in its folder: of several values sshd takes the first.
	SSHDFile = "/etc/ssh/sshd_config.d/00-strongroom.conf"
)

// FirewallTable is the name of the rules' own table, of the family inet.
const FirewallTable = "strongroom"

// HiddenFromPacking is what the job that packs the files of [backup] cannot see: homes,
// what opens the machine, and what is no file of a backup.
func HiddenFromPacking() []string {
	return []string{
		"/home", "/root", "/run/user", "/var/lib/systemd/credential.secret", RunningCredentials, VaultRun, KMSRun, VaultData, AuditDir,
		"/etc/shadow", "/etc/gshadow", "/etc/ssh", StateDir,
	}
}

// SystemFiles are the files outside of the appliance's own folders.
func SystemFiles() []string { return []string{SysctlFile, LimitsFile, HistoryFile, SSHDFile} }

// PluginFile is the plugin's file name in PluginDir: with its version, without
// its v, so that versions stand side by side and the one in use is never
// overwritten.
func PluginFile(version string) string { return PluginName + "-" + version }

// DropInPath is the place of a unit's drop-in.
func DropInPath(unit, name string) string { return UnitDir + "/" + unit + ".d/" + name + ".conf" }
