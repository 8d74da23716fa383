package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/systemd"
)

// places has the backup jobs reach the places of [backup], and no other: the
// directories are theirs, and their units' sandboxes are opened for them.
type places struct{ *Env }

func (places) ID() string    { return "backup-places" }
func (places) Title() string { return "places for backups" }

// placesDropIn is the name of the drop-in with what a unit must know of the
// places.
const placesDropIn = "backup"

func (s places) Check(context.Context) (engine.Diff, error) {
	var c collect
	var dirs []string
	for i, to := range s.Config.Backup.To {
		if to.Type == config.BackupDir {
			dirs = append(dirs, to.Path)
			c.add(s.place(i, to.Path))
		}
	}
	var further []string
	for _, to := range s.Config.Backup.To {
		if name := to.Credentials; name != "" && name != machine.CredS3 && !slices.Contains(further, name) {
			further = append(further, name)
		}
	}
	for _, unit := range systemd.Names() {
		// The drill itself and who packs the files have no network and no place.
		if !machine.IsBackupUnit(unit) || path.Ext(unit) != ".service" || unit == machine.UnitDrill || unit == machine.UnitFiles {
			continue
		}
		c.add(s.dropIn(unit, placesDropIn, systemd.JobDropIn(dirs, further), len(dirs)+len(further) > 0))
	}
	return c.done()
}

// place wants a directory that is there to be the jobs' own. It is never made:
// a disk that is not mounted must not become a backup on the wrong one.
func (s places) place(i int, named string) (engine.Diff, error) {
	// Links on the way to it are followed, one in its place is not.
	dir, err := s.real(path.Dir(named))
	var info host.Info
	if err == nil {
		dir = path.Join(dir, path.Base(named))
		info, err = s.Host.Stat(dir)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, operator("mount the disk, or make the folder, then run the same command again", "backup.to[%d]: %q is not there", i, named)
	case err != nil:
		return nil, err
	case info.Type != fs.ModeDir:
		return nil, operator("name a folder", "backup.to[%d]: %q is no folder", i, named)
	}
	mounts, err := s.Host.ReadFile("/proc/self/mountinfo")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Root gives the folder to the jobs, before any of them looks.
	if err := snapshot.PlaceFolder(named, dir, mounts); err != nil {
		return nil, operator("name a folder, or a disk, of the backups' own", "backup.to[%d]: %w", i, err)
	}
	u, err := s.Host.User(machine.UserSnapshot)
	if errors.Is(err, host.ErrNotFound) {
		u.UID, u.GID = nobody, nobody
	} else if err != nil {
		return nil, err
	}
	// With setgid all that is stored belongs to the group, whoever of the jobs
	// has stored it.
	want := host.Attr{Mode: 0o770 | fs.ModeSetgid, UID: u.UID, GID: u.GID}
	var diff engine.Diff
	if info.GID != u.GID || info.Mode&0o070 != 0o070 {
		// It may be a disk's own root, where others keep something, too: it stays its
		// owner's, and open to whom it was.
		shared := host.Attr{Mode: info.Mode | 0o070 | fs.ModeSetgid, UID: info.UID, GID: u.GID}
		diff = append(diff, engine.Change{What: dir, From: "folder, " + describe(info.Attr), To: "for the group " + machine.UserSnapshot + ", too",
			Apply: func(context.Context) error { return s.Host.SetAttr(dir, shared) }})
	}
	// The place's marker, which the job that verifies reads, too.
	marker := path.Join(dir, snapshot.MarkerFile)
	switch info, err := s.Host.Stat(marker); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Type == 0 && (info.GID != u.GID || info.Mode&0o040 == 0):
		diff = append(diff, engine.Change{What: marker, From: "another's, " + describe(info.Attr), To: "for the user " + machine.UserSnapshot + " and its group",
			Apply: func(context.Context) error {
				return s.Host.SetAttr(marker, host.Attr{Mode: 0o640, UID: u.UID, GID: u.GID})
			}})
	}
	clusters, err := s.clusters(dir)
	if err != nil {
		return nil, err
	}
	for _, p := range clusters {
		info, err := s.Host.Stat(p)
		if err != nil {
			return nil, err
		}
		// What root has stored by hand may be closed to the group.
		if info.Type != fs.ModeDir || info.GID == u.GID && info.Mode&0o070 == 0o070 {
			continue
		}
		diff = append(diff, engine.Change{What: p, From: "another's, " + describe(info.Attr), To: "for the user " + machine.UserSnapshot + ", with all that is in it",
			Apply: func(ctx context.Context) error { return s.takeOver(ctx, p, want) }})
	}
	return diff, nil
}

// real is a path without links.
func (s places) real(p string) (string, error) {
	at, rest := "/", strings.Split(path.Clean(p), "/")
	for links := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		info, err := s.Host.Stat(next)
		if err != nil {
			return "", err
		}
		if info.Type != fs.ModeSymlink {
			at = next
			continue
		}
		if links++; links > 40 { // as many as Linux follows
			return "", fmt.Errorf("%q: too many links", p)
		}
		if path.IsAbs(info.Target) {
			at = "/"
		}
		rest = append(strings.Split(info.Target, "/"), rest...)
	}
	return at, nil
}

// clusters are the folders of snapshots in a place. What else lies there is
// somebody else's, and stays so.
func (s places) clusters(dir string) ([]string, error) {
	names, err := s.Host.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range names {
		if snapshot.VaultCluster(n) {
			out = append(out, path.Join(dir, n))
		}
	}
	return out, nil
}

// takeOver gives a folder from another machine, whose users had other numbers, to
// the jobs. chown follows no link, not even in the folder's own place, and comes
// to the folder last: after a run that was killed it is still another's.
func (s places) takeOver(ctx context.Context, dir string, want host.Attr) error {
	owner := fmt.Sprintf("%d:%d", want.UID, want.GID)
	if _, err := s.Host.Run(ctx, host.Command{Args: []string{"chown", "--recursive", "--no-dereference", "-P", owner, "--", dir}}); err != nil {
		return err
	}
	return s.Host.SetAttr(dir, want)
}

// dropIn wants a unit's drop-in to be there, or not to be there.
func (e *Env) dropIn(unit, name string, text []byte, wanted bool) (engine.Diff, error) {
	p := machine.DropInPath(unit, name)
	if wanted {
		var c collect
		c.add(e.dir(path.Dir(p), root(0o755)))
		c.add(e.file(p, bytesSource(text), root(0o644)))
		return c.done()
	}
	there, err := e.exists(p)
	if err != nil || !there {
		return nil, err
	}
	return engine.Diff{{What: p, From: fmt.Sprintf("a drop-in of %s", unit), Apply: func(context.Context) error { return e.Host.Remove(p) }}}, nil
}
