package machine

// The users; each has a group of its own by the same name.
const (
	UserVault    = "vault"
	UserFront    = "strongroom-front"
	UserSnapshot = "strongroom-snapshot"
	UserVerify   = "strongroom-verify"
	UserDrill    = "strongroom-drill"
	UserMonitor  = "strongroom-monitor"
)

// Account is a user that the installer makes.
type Account struct{ Name, Comment string }

// Accounts are the users of the daemons and jobs. The KMS has none: systemd makes
// one for it at each start (DynamicUser=).
func Accounts() []Account {
	return []Account{
		{UserVault, "HashiCorp Vault"},
		{UserFront, "Strongroom front"},
		// One for each job, so that what takes backups can't call them verified.
		{UserSnapshot, "Strongroom snapshots"},
		{UserVerify, "Strongroom verification of snapshots"},
		{UserDrill, "Strongroom drill"},
		{UserMonitor, "Strongroom metrics and alerts"},
	}
}

// Users are the names of Accounts.
func Users() []string {
	var names []string
	for _, a := range Accounts() {
		names = append(names, a.Name)
	}
	return names
}
