package steps

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// A disk that comes from a lost machine holds snapshots of its users, whose
// numbers are others'. They are taken over; what is not ours is left alone.
func TestPlaceOfAnotherMachine(t *testing.T) {
	const (
		cluster = "/mnt/backup/c7ec6c12-8aa4-767f-1084-8c52bb38e391"
		ours    = "/mnt/backup/0f0e0d0c-8aa4-767f-1084-8c52bb38e391"
	)
	v := newVPS(t)
	jobs := host.User{Name: machine.UserSnapshot, UID: 990, GID: 990}
	v.Users[machine.UserSnapshot] = jobs
	folder := func(p string, id int, kind fs.FileMode) {
		v.Files[p] = &host.Node{Info: host.Info{Type: kind, Attr: host.Attr{Mode: 0o770 | fs.ModeSetgid, UID: id, GID: id}}}
	}
	folder("/mnt", 0, fs.ModeDir)
	folder("/mnt/backup", jobs.GID, fs.ModeDir)
	folder(cluster, 1234, fs.ModeDir)
	v.Files[cluster].Mode = 0o750 // as cp and tar may leave it
	folder(ours, jobs.GID, fs.ModeDir)
	const marker = "/mnt/backup/" + snapshot.MarkerFile
	v.Files[marker] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o640, UID: 1234, GID: 1234}}}
	folder("/mnt/backup/photographs", 1000, fs.ModeDir)
	folder("/mnt/backup/1f0e0d0c-8aa4-767f-1084-8c52bb38e391", 1000, fs.ModeSymlink)
	var calls []string
	v.Commands["chown"] = func(c host.Command, _ []byte) (host.Output, error) {
		calls = append(calls, c.String())
		n := v.Files[c.Args[len(c.Args)-1]]
		n.UID, n.GID = jobs.UID, jobs.GID
		return host.Output{}, nil
	}
	e := v.env()
	e.Config.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/mnt/backup"}}

	changes := func() engine.Diff {
		t.Helper()
		diff, err := places{e}.place(0, "/mnt/backup")
		if err != nil {
			t.Fatal(err)
		}
		return diff
	}
	diff := changes()
	if len(diff) != 2 || diff[0].What != marker || diff[1].What != cluster || !strings.Contains(diff[1].String(), "another's") {
		t.Fatalf("changes: %v, want those of %s and %s alone", diff, marker, cluster)
	}
	for _, c := range diff {
		if err := c.Apply(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := v.Files[marker].Attr; got != (host.Attr{Mode: 0o640, UID: jobs.UID, GID: jobs.GID}) {
		t.Errorf("the place's marker is %v", got)
	}
	if want := []string{"chown --recursive --no-dereference -P 990:990 -- " + cluster}; !slices.Equal(calls, want) {
		t.Errorf("ran %q, want %q", calls, want)
	}
	if got := v.Files[cluster].Attr; got != (host.Attr{Mode: 0o770 | fs.ModeSetgid, UID: jobs.UID, GID: jobs.GID}) {
		t.Errorf("the folder is %v", got)
	}
	if diff := changes(); len(diff) != 0 {
		t.Errorf("a second look: %v", diff)
	}
}

// A place is looked for and never made, and everything that is wrong is said at
// once, with which of the places it is.
func TestPlacesThatAreNone(t *testing.T) {
	v := newVPS(t)
	v.Files["/mnt"] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	v.Files["/mnt/file"] = &host.Node{}
	e := v.env()
	e.Config.Backup.To = []config.BackupTo{{Type: config.BackupS3}, {Type: config.BackupDir, Path: "/mnt/usb"}, {Type: config.BackupDir, Path: "/mnt/file"}}
	before := v.state()
	_, err := places{e}.Check(t.Context())
	var fe *fault.Error
	if !errors.As(err, &fe) || fe.Code != fault.Operator || fe.Hint == "" {
		t.Fatalf("error = %v", err)
	}
	for _, want := range []string{`backup.to[1]: "/mnt/usb" is not there`, `backup.to[2]: "/mnt/file" is no folder`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %q", err, want)
		}
	}
	if !maps.Equal(v.state(), before) {
		t.Error("the machine was changed")
	}
}

// A place is another's folder in part: it stays its owner's, and open to whom it was.
func TestPlaceIsShared(t *testing.T) {
	for name, c := range map[string]struct{ before, after host.Attr }{
		"a disk's root":       {host.Attr{Mode: 0o755}, host.Attr{Mode: 0o775 | fs.ModeSetgid, GID: 990}},
		"closed":              {host.Attr{Mode: 0o700, UID: 1000, GID: 1000}, host.Attr{Mode: 0o770 | fs.ModeSetgid, UID: 1000, GID: 990}},
		"another machine's":   {host.Attr{Mode: 0o770 | fs.ModeSetgid, UID: 1234, GID: 1234}, host.Attr{Mode: 0o770 | fs.ModeSetgid, UID: 1234, GID: 990}},
		"with a sticky bit":   {host.Attr{Mode: 0o777 | fs.ModeSticky}, host.Attr{Mode: 0o777 | fs.ModeSticky | fs.ModeSetgid, GID: 990}},
		"as an older version": {host.Attr{Mode: 0o770 | fs.ModeSetgid, UID: 990, GID: 990}, host.Attr{Mode: 0o770 | fs.ModeSetgid, UID: 990, GID: 990}},
	} {
		v := newVPS(t)
		v.Users[machine.UserSnapshot] = host.User{Name: machine.UserSnapshot, UID: 990, GID: 990}
		v.Files["/mnt"] = &host.Node{Info: host.Info{Type: fs.ModeDir, Attr: host.Attr{Mode: 0o755}}}
		v.Files["/mnt/backup"] = &host.Node{Info: host.Info{Type: fs.ModeDir, Attr: c.before}}
		for range 2 {
			diff, err := places{v.env()}.place(0, "/mnt/backup")
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range diff {
				if err := d.Apply(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got := v.Files["/mnt/backup"].Attr; got != c.after {
			t.Errorf("%s: %v, want %v", name, got, c.after)
		}
	}
}

// Root gives no system's folder away, however it is spelt.
func TestPlaceThatIsTheSystems(t *testing.T) {
	dir := func(v *vps, paths ...string) {
		for _, p := range paths {
			v.Files[p] = &host.Node{Info: host.Info{Type: fs.ModeDir, Attr: host.Attr{Mode: 0o755}}}
		}
	}
	link := func(v *vps, p, target string) {
		v.Files[p] = &host.Node{Info: host.Info{Type: fs.ModeSymlink, Target: target}}
	}
	for name, c := range map[string]struct {
		path string
		make func(v *vps)
		says string
	}{
		"below a link":             {"/srv/link/ssh", func(v *vps) { link(v, "/srv/link", "/etc"); dir(v, "/etc/ssh") }, `"/etc/ssh" is the system's own`},
		"below a relative link":    {"/srv/link/lib", func(v *vps) { link(v, "/srv/link", "../var"); dir(v, "/var/lib") }, `"/var/lib" is the system's own`},
		"below a link to a link":   {"/srv/a/home", func(v *vps) { link(v, "/srv/a", "b"); link(v, "/srv/b", "/"); dir(v, "/home") }, `"/home" is the system's own`},
		"a link that goes round":   {"/srv/a/x", func(v *vps) { link(v, "/srv/a", "a") }, "too many links"},
		"a link in its place":      {"/srv/link", func(v *vps) { link(v, "/srv/link", "/mnt") }, "is no folder"},
		"two slashes":              {"/srv//backup", func(v *vps) { dir(v, "/srv/backup") }, ""},
		"up again":                 {"/srv/x/../backup", func(v *vps) { dir(v, "/srv/backup", "/srv/x") }, ""},
		"a link to one of its own": {"/srv/link/backup", func(v *vps) { link(v, "/srv/link", "/mnt"); dir(v, "/mnt", "/mnt/backup") }, ""},
		"bound": {"/mnt/backup", func(v *vps) {
			dir(v, "/mnt", "/mnt/backup")
			v.Files["/proc/self/mountinfo"] = &host.Node{Data: []byte("28 1 8:1 / / rw - ext4 /dev/sda1 rw\n50 28 8:1 /root /mnt/backup rw - ext4 /dev/sda1 rw\n")}
		}, `"/mnt/backup" is another name of it: "/root" is the system's own`},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			dir(v, "/srv")
			c.make(v)
			before := v.state()
			diff, err := places{v.env()}.place(0, c.path)
			if c.says == "" {
				if err != nil || len(diff) == 0 {
					t.Errorf("%v, %v", diff, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) || !maps.Equal(v.state(), before) {
				t.Errorf("%v, %v", diff, err)
			}
		})
	}
}
