package config

import "testing"

// A place is given to the jobs: never what others live in.
func TestPlaceFolders(t *testing.T) {
	for _, path := range []string{
		"/", "//", "/.", "/root", "/etc", "/etc/", "/etc/backup", "/mnt/../etc", "/tmp", "/var/tmp/", "/var", "/var/lib", "/var/lib/vault", "/var/lib/vault/backup",
		"/var/lib/strongroom", "/var/lib/strongroom/snapshot", "/var/lib/strongroom-front", "/var/log/vault", "/home", "/usr/local/backup", "/boot", "/dev/shm", "/proc/1", "/run/vault/x",
	} {
		if PlaceFolder(path) == nil {
			t.Errorf("%q is taken", path)
		}
	}
	for _, path := range []string{"/mnt", "/mnt/backup", "/srv", "/srv/backup", "/backup", "/var/lib/backup", "/var/lib/vaultbackup", "/home/backup/disk", "/media/disk", "/tmp/test", "/run/media/me/disk", "/etcetera"} {
		if err := PlaceFolder(path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}
