package config

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"strongroom.example/config/machine"
)

// errSystemFolder: the folder of a place is given to the jobs, and what it is for others
// ends with that.
var errSystemFolder = errors.New("is the system's own: give the backups a folder, or a disk, of their own")

// The system's folders: with all below them, and those whose folders below may well be
// somebody's.
var (
	systemTrees = []string{
		"/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr",
	}
	systemFolders = []string{
		"/", "/dev", "/dev/shm", "/home", "/media", "/opt", "/root", "/run", "/tmp", "/var", "/var/backups", "/var/cache", "/var/lib", "/var/log", "/var/mail", "/var/spool", "/var/tmp",
	}
	ownTrees = []string{
		machine.StateDir, machine.VaultData, machine.AuditDir, machine.FrontData, machine.VaultRun, machine.KMSRun, machine.FrontRun,
	}
)

// SystemFolder is an error where snapshots must not be kept, as the folder is the
// system's.
func SystemFolder(at string) error {
	at = path.Clean(at)
	if slices.Contains(systemFolders, at) || slices.ContainsFunc(systemTrees, func(dir string) bool { return within(at, dir) }) {
		return fmt.Errorf("%q %w", at, errSystemFolder)
	}
	return nil
}

// PlaceFolder also refuses the appliance's own folders, and what is no absolute path.
func PlaceFolder(at string) error {
	if err := checkPath(at); err != nil {
		return err
	}
	if slices.ContainsFunc(ownTrees, func(dir string) bool { return within(path.Clean(at), dir) }) {
		return fmt.Errorf("%q is the appliance's own: what is kept there is lost with what it is to save", at)
	}
	return SystemFolder(at)
}

func within(at, dir string) bool { return at == dir || strings.HasPrefix(at, dir+"/") }
