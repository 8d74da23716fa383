package recover

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"filippo.io/age"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/config"
)

// ErrClusters means that a place holds snapshots of several clusters, and none
// was named.
var ErrClusters = errors.New("snapshots of several clusters are there")

// Source says which snapshot, and who can open it.
type Source struct {
	Places []config.BackupTo
	// Keys gives the file with the key pair for the credential that a place
	// names.
	Keys       map[string]string
	Cluster    string // empty: the only one there
	ID         string // empty: the newest verified one
	Identities []age.Identity
	// Keyring is the lost machine's; where it is nil nobody's signature is asked for.
	Keyring *signing.Keyring
	// Unsigned takes the one that ID names although nobody has signed it.
	Unsigned bool
	WorkDir  string // for the download, as large as the snapshot
}

// Found is a snapshot on this machine that has been checked wholly.
type Found struct {
	restore.Choice
	Snapshot *restore.Checked
	Files    *restore.Files // nil: none were kept beside it
	// Notes tell of copies that could not be used.
	Notes []string
}

// Close lets the local copies go.
func (f *Found) Close() error {
	err := f.Snapshot.Close()
	if f.Files != nil {
		err = errors.Join(err, f.Files.Close())
	}
	return err
}

// Fetch finds the snapshot, downloads it and what is kept beside it, and checks
// both.
func (s Source) Fetch(ctx context.Context) (*Found, error) {
	dests, err := s.open()
	if err != nil {
		return nil, err
	}
	want := restore.Wanted{Places: dests, Cluster: s.Cluster, Unsigned: s.Unsigned}
	switch {
	case s.ID != "":
		want.ID, err = snapshot.ParseID(s.ID)
	case s.Cluster == "":
		want.Cluster, err = clusterOf(ctx, dests)
	}
	if err != nil {
		return nil, err
	}
	f := &Found{}
	var others error
	f.Choice, others, err = restore.First(ctx, want, func(c restore.Choice) error { return s.fetch(ctx, c, f) })
	if err != nil {
		return nil, err
	}
	f.Notes = restore.Notes(f.Choice, others)
	if s.Keyring == nil {
		f.Notes = append(f.Notes, "the escrow holds no keyring.json, so that nobody can tell who made this snapshot")
	}
	return f, nil
}

// fetch downloads one copy with its files.
func (s Source) fetch(ctx context.Context, c restore.Choice, f *Found) (err error) {
	if f.Snapshot, err = restore.Fetch(ctx, c, s.Identities, s.WorkDir); err != nil {
		return err
	}
	f.Files, err = restore.FetchFiles(ctx, c, s.Identities, s.WorkDir)
	if errors.Is(err, restore.ErrNoFiles) {
		return nil
	}
	if err != nil {
		return errors.Join(err, f.Snapshot.Close())
	}
	return nil
}

// clusterOf is the one cluster that has snapshots in the places.
func clusterOf(ctx context.Context, dests []snapshot.Destination) (string, error) {
	found := ""
	var errs []error
	for _, d := range dests {
		entries, err := snapshot.List(ctx, d, "")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, e := range entries {
			if found != "" && e.ID.Cluster != found {
				return "", fmt.Errorf("%w: %q and %q", ErrClusters, found, e.ID.Cluster)
			}
			found = e.ID.Cluster
		}
	}
	if found == "" {
		return "", errors.Join(append(errs, fmt.Errorf("%w in the places given", snapshot.ErrNoSnapshot))...)
	}
	return found, nil
}

func (s Source) open() ([]snapshot.Destination, error) {
	if len(s.Places) == 0 {
		return nil, errors.New("no place with snapshots is given")
	}
	return snapshot.Places(s.Places, func(name string) ([]byte, error) {
		return atomicfile.ReadSmall(cmp.Or(s.Keys[name], name), atomicfile.MaxSmall)
	}, &snapshot.Trust{Ring: s.Keyring}), nil
}
