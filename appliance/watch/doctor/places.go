package doctor

import "strongroom.example/config/machine"

// Where the installer puts things.
const (
	etc           = machine.Etc
	vaultHCL      = machine.VaultHCL
	nftablesConf  = machine.NftablesConf
	installedJSON = machine.ManifestFile
	credentialDir = machine.CredentialDir
	tlsDir        = machine.TLSDir
	unitDir       = machine.UnitDir
	binDir        = machine.BinDir
	pluginDir     = machine.PluginDir
	vaultBinary   = machine.VaultProgram
	ourBinary     = machine.Program
	vaultData     = machine.VaultData
	raftDir       = machine.RaftDir
	auditDir      = machine.AuditDir
	stateDir      = machine.StateDir
	historyFile   = machine.HistoryFile

	vaultUser = machine.UserVault
	frontUser = machine.UserFront

	vaultUnit    = machine.UnitVault
	kmsUnit      = machine.UnitKMS
	frontUnit    = machine.UnitFront
	firewallUnit = machine.UnitFirewall
	// certificateUnit takes over a renewed certificate of the operator's own.
	certificateUnit = machine.UnitFrontCertificatePath
	ownUnit         = machine.UnitDoctor

	// reinstall is what brings a whole machine back.
	reinstall = "strongroom-installer plan, then strongroom-installer install"
)
