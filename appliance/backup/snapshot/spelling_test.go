package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strongroom.example/config"
)

// A system's folder is refused under whatever name, and a disk's own root is none.
func TestPlaceFolder(t *testing.T) {
	const (
		disk = "28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
		usb  = disk + "40 28 8:17 / /mnt/backup rw - ext4 /dev/sdb1 rw\n"
	)
	for name, c := range map[string]struct {
		named, at, mounts string
		says              string // "": it is taken
	}{
		"a folder":                       {"/srv/backup", "/srv/backup", disk, ""},
		"without a table of mounts":      {"/srv/backup", "/srv/backup", "", ""},
		"a disk's own root":              {"/mnt/backup", "/mnt/backup", usb, ""},
		"a folder on it":                 {"/mnt/backup/vault", "/mnt/backup/vault", usb, ""},
		"a disk that others are like":    {"/mnt/backup", "/mnt/backup", usb + "41 28 8:33 /etc /mnt/backup2 rw - ext4 /dev/sdc1 rw\n", ""},
		"its own name, bound to itself":  {"/srv/backup", "/srv/backup", disk + "50 28 8:1 /srv/backup /srv/backup rw - ext4 /dev/sda1 rw\n", ""},
		"in a container":                 {"/mnt/backup", "/mnt/backup", "28 1 8:1 /machines/one / rw - ext4 /dev/sda1 rw\n", ""},
		"by a link":                      {"/srv/backup", "/etc", disk, `"/srv/backup" is another name of it: "/etc" is the system's own`},
		"by a link into it":              {"/srv/backup", "/etc/ssh", disk, `"/etc/ssh" is the system's own`},
		"by a link to root's home":       {"/srv/backup", "/root", disk, `"/root" is the system's own`},
		"by a link to the appliance's":   {"/srv/backup", "/var/lib/vault", disk, `"/var/lib/vault" is the appliance's own`},
		"the whole root, bound":          {"/mnt/all", "/mnt/all", disk + "50 28 8:1 / /mnt/all rw - ext4 /dev/sda1 rw\n", `"/mnt/all" is another name of it: "/" is the system's own`},
		"a folder in that":               {"/mnt/all/etc", "/mnt/all/etc", disk + "50 28 8:1 / /mnt/all rw - ext4 /dev/sda1 rw\n", `"/etc" is the system's own`},
		"a folder of one's own in that":  {"/mnt/all/srv/b", "/mnt/all/srv/b", disk + "50 28 8:1 / /mnt/all rw - ext4 /dev/sda1 rw\n", ""},
		"one bound":                      {"/mnt/etc", "/mnt/etc", disk + "50 28 8:1 /etc /mnt/etc rw - ext4 /dev/sda1 rw\n", `"/etc" is the system's own`},
		"one below it bound":             {"/mnt/s", "/mnt/s", disk + "50 28 8:1 /etc/ssh /mnt/s rw - ext4 /dev/sda1 rw\n", `"/etc/ssh" is the system's own`},
		"with a space":                   {"/mnt/a b", "/mnt/a b", disk + `50 28 8:1 /root /mnt/a\040b rw - ext4 /dev/sda1 rw` + "\n", `"/root" is the system's own`},
		"bound twice, the last counts":   {"/mnt/x", "/mnt/x", disk + "50 28 8:1 /srv /mnt/x rw - ext4 /dev/sda1 rw\n51 50 8:1 /etc /mnt/x rw - ext4 /dev/sda1 rw\n", `"/etc" is the system's own`},
		"in a container, bound":          {"/mnt/x", "/mnt/x", "28 1 8:1 /m / rw - ext4 /dev/sda1 rw\n50 28 8:1 /m/etc /mnt/x rw - ext4 /dev/sda1 rw\n", `"/etc" is the system's own`},
		"Vault's, bound":                 {"/mnt/x", "/mnt/x", disk + "50 28 8:1 /var/lib/vault /mnt/x rw - ext4 /dev/sda1 rw\n", "the appliance's own"},
		"what a restore put by, by hand": {"/var/lib/strongroom/replaced", "/var/lib/strongroom/replaced", disk, ""},
		"the system's, by hand":          {"//etc/../root/", "/root", disk, `"/root" is the system's own`},
	} {
		err := PlaceFolder(c.named, c.at, []byte(c.mounts))
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The same with the kernel's own mounts: by a link, and bound.
func TestPlaceThatIsTheSystems(t *testing.T) {
	dir := t.TempDir()
	link, bound := filepath.Join(dir, "link"), filepath.Join(dir, "bound")
	if err := errors.Join(os.Symlink("/etc", link), os.Mkdir(bound, 0o700)); err != nil {
		t.Fatal(err)
	}
	refused := func(path string) {
		t.Helper()
		p := NewPlace(config.BackupTo{Type: config.BackupDir, Path: path}, nil)
		if _, err := p.List(t.Context(), ""); !errors.Is(err, ErrPlace) || !strings.Contains(err.Error(), "system's own") {
			t.Errorf("%q: %v", path, err)
		}
	}
	refused(link)
	refused(filepath.Join(link, "."))
	p := NewPlace(config.BackupTo{Type: config.BackupDir, Path: bound}, nil)
	if _, err := p.List(t.Context(), ""); err != nil {
		t.Errorf("a folder of its own: %v", err)
	}
	if err := unix.Mount("/etc", bound, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("bind mounts: %v", err)
	}
	defer func() {
		if err := unix.Unmount(bound, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	refused(bound)
}
