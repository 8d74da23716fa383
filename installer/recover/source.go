package recover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"filippo.io/age"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
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
	WorkDir    string // for the download, as large as the snapshot
}

// Found is a snapshot on this machine that has been checked wholly.
type Found struct {
	restore.Choice
	Snapshot *restore.Checked
	Files    *restore.Files // nil: none were kept beside it
	// Notes tell of places that could not be asked.
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
	f := &Found{}
	if f.Choice, err = s.choose(ctx, dests, f); err != nil {
		return nil, err
	}
	if f.Snapshot, err = restore.Fetch(ctx, f.Choice, s.Identities, s.WorkDir); err != nil {
		return nil, err
	}
	f.Files, err = restore.FetchFiles(ctx, f.Choice, s.Identities, s.WorkDir)
	if errors.Is(err, restore.ErrNoFiles) {
		return f, nil
	}
	if err != nil {
		return nil, errors.Join(err, f.Snapshot.Close())
	}
	return f, nil
}

func (s Source) choose(ctx context.Context, dests []snapshot.Destination, f *Found) (restore.Choice, error) {
	if s.ID != "" {
		id, err := snapshot.ParseID(s.ID)
		if err != nil {
			return restore.Choice{}, err
		}
		return restore.ByID(ctx, dests, id)
	}
	cluster := s.Cluster
	if cluster == "" {
		var err error
		if cluster, err = clusterOf(ctx, dests); err != nil {
			return restore.Choice{}, err
		}
	}
	c, others, err := restore.Newest(ctx, dests, cluster)
	if others != nil {
		f.Notes = append(f.Notes, "not every place could be asked: "+others.Error())
	}
	return c, err
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
	return snapshot.OpenPlaces(s.Places, func(name string) ([]byte, error) {
		return os.ReadFile(cmp.Or(s.Keys[name], name))
	})
}
