package machine

// Where engines and logins are mounted in Vault, without a slash.
const (
	MountKeys     = "apikeys"
	MountKV       = "secret"
	MountDatabase = "database"
	AuthAppRole   = "approle"
	AuthUserpass  = "userpass"
)

// Ports of Vault on 127.0.0.1: its listener for the front, and its peers'.
const (
	VaultPort   = 8200
	ClusterPort = 8201
)
