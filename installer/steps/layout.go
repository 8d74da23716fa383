package steps

// What upgrade and uninstall must know of where the steps put things.
const (
	EtcDir        = etc
	CredentialDir = credentialDir
	TLSDir        = tlsDir
	EpochFile     = epochFile
	NftablesConf  = nftablesConf
	VaultHCL      = vaultHCL
	UnitDir       = units
	BinDir        = binDir
	VaultProgram  = vaultBinary
	LibDir        = "/usr/local/lib/strongroom"
	PluginDir     = pluginDir
	VaultData     = vaultData
	RaftDir       = raftDir
	AuditDir      = auditDir
	FrontData     = frontData
	MasterKeyCred = masterKeyCred

	// MountKeys is where the secrets engine is mounted, without a slash.
	MountKeys = mountKeys

	// FirewallTable is the name of the rules' own table, of the family inet.
	FirewallTable = "strongroom"
	// FirewallRollback is the unit, without its suffix, that takes rules back.
	FirewallRollback = rollbackUnit
	// SwapNote is what an fstab line for swap has been commented out with.
	SwapNote = "# no swap, by strongroom-installer: "
)

// SystemFiles are the files outside of the appliance's own folders, for the
// machine as a whole.
func SystemFiles() []string { return []string{sysctlFile, limitsFile, historyFile, sshdFile} }

// Users are the names of the users that the installation made.
func Users() []string {
	var names []string
	for _, u := range users {
		names = append(names, u.name)
	}
	return names
}

// PluginFile is the plugin's file name in PluginDir for a version without its v.
func PluginFile(version string) string { return pluginFile(version) }
