package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Layout gives the paths below a scratch Vault's folder.
type Layout struct{ Dir string }

func (l Layout) join(p ...string) string { return filepath.Join(append([]string{l.Dir}, p...)...) }

// VaultConfig is Vault's one configuration file.
func (l Layout) VaultConfig() string { return l.join("etc", "vault.hcl") }

// FrontConfig is the front's configuration file.
func (l Layout) FrontConfig() string { return l.join("etc", "front.toml") }

// EpochFile tells the plugin which installation it belongs to.
func (l Layout) EpochFile() string { return l.join("etc", "epoch.json") }

func (l Layout) tls(name string) string { return l.join("etc", "tls", name) }

// LinkCA signs both ends of the link from the front to Vault.
func (l Layout) LinkCA() string { return l.tls("ca.crt") }

// LinkClient is the front's certificate and key on that link.
func (l Layout) LinkClient() (crt, key string) { return l.tls("front.crt"), l.tls("front.key") }

// Raft is Vault's storage.
func (l Layout) Raft() string { return l.join("data", "raft") }

// Front is the front's certificate storage.
func (l Layout) Front() string { return l.join("data", "front") }

// Plugins is Vault's plugin directory.
func (l Layout) Plugins() string { return l.join("plugins") }

// Audit is the file of an audit device.
func (l Layout) Audit(name string) string { return l.join("audit", name+".log") }

// Escrow is a file of age-encrypted keys.
func (l Layout) Escrow(name string) string { return l.join("escrow", name+".age") }

// Snapshots is a destination of backups.
func (l Layout) Snapshots() string { return l.join("snapshots") }

// Log is the output of one process.
func (l Layout) Log(name string) string { return l.join("log", name+".log") }

// Run holds sockets.
func (l Layout) Run() string { return l.join("run") }

// KMSSocket is where Vault finds its seal.
func (l Layout) KMSSocket() string { return l.join("run", "kms.sock") }

// VaultSocket is Vault's listener for local jobs.
func (l Layout) VaultSocket() string { return l.join("run", "vault.sock") }

// FrontMetrics is the unix socket of the front's metrics.
func (l Layout) FrontMetrics() string { return l.join("run", "front-metrics.sock") }

// FrontRoot is the certificate of the front's internal CA, for VAULT_CACERT.
func (l Layout) FrontRoot() string { return l.join("ca.crt") }

// ErrOccupied is returned for a folder that holds something already.
var ErrOccupied = errors.New("the folder is not empty")

// maxSocketPath is unix(7)'s limit of sun_path, less the closing NUL; the
// plugin's sockets in Run have the longest names.
const maxSocketPath = 107 - len("/plugin1234567890")

func (l Layout) make() error {
	if n := len(l.Run()); n > maxSocketPath {
		return fmt.Errorf("folder %q is %d bytes too long for unix sockets below it", l.Dir, n-maxSocketPath)
	}
	entries, err := os.ReadDir(l.Dir)
	if err != nil {
		return fmt.Errorf("folder for Vault: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("folder %q: %w", l.Dir, ErrOccupied)
	}
	for _, dir := range []string{
		l.join("etc", "tls"), l.Raft(), l.Front(), l.Plugins(), l.join("audit"),
		l.join("escrow"), l.Snapshots(), l.join("log"), l.Run(),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("folder for Vault: %w", err)
		}
	}
	// The folder may have been there with a wider mode.
	if err := os.Chmod(l.Dir, fs.FileMode(0o700)); err != nil {
		return fmt.Errorf("folder for Vault: %w", err)
	}
	return nil
}
