package machine

// Where engines and logins are mounted in Vault, without a slash.
const (
	MountKeys     = "apikeys"
	MountKV       = "secret"
	MountDatabase = "database"
	AuthAppRole   = "approle"
	AuthUserpass  = "userpass"
	// AuthLocal is a userpass whose users nobody outside can lock: the front lets
	// nobody there.
	AuthLocal = "strongroom-local"
)

// KVKeyring is the path in MountKV of the keyring, as it is in KeyringFile.
const KVKeyring = "strongroom/keyring"

// Ports of Vault on 127.0.0.1: its listener for the front, and its peers'.
const (
	VaultPort   = 8200
	ClusterPort = 8201
)
