package doctor

// Where the installer puts things.
const (
	etc           = "/etc/strongroom"
	vaultHCL      = etc + "/vault.hcl"
	nftablesConf  = etc + "/nftables.conf"
	installedJSON = etc + "/installed.json"
	credentialDir = etc + "/credentials"
	tlsDir        = etc + "/tls"
	unitDir       = "/etc/systemd/system"
	binDir        = "/usr/local/bin"
	pluginDir     = "/usr/local/lib/strongroom/plugins"
	vaultBinary   = binDir + "/vault"
	ourBinary     = binDir + "/strongroom"
	vaultData     = "/var/lib/vault"
	raftDir       = vaultData + "/raft"
	auditDir      = "/var/log/vault"
	stateDir      = "/var/lib/strongroom"
	historyFile   = "/etc/profile.d/strongroom.sh"

	vaultUser = "vault"
	frontUser = "strongroom-front"

	vaultUnit    = "vault.service"
	kmsUnit      = "strongroom-kms.service"
	frontUnit    = "strongroom-front.service"
	firewallUnit = "strongroom-firewall.service"
	// certificateUnit takes over a renewed certificate of the operator's own.
	certificateUnit = "strongroom-front-certificate.path"
	ownUnit         = "strongroom-doctor.service"

	// reinstall is what brings a whole machine back.
	reinstall = "strongroom-installer plan, then strongroom-installer install"
)
