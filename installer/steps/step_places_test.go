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
