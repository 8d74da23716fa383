package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/config"
)

// badPlaces cannot be opened, each for another reason.
func badPlaces(t *testing.T) map[string]Destination {
	t.Helper()
	dir := t.TempDir()
	lay(t, filepath.Join(dir, "file"))
	bucket := config.BackupTo{Type: config.BackupS3, Endpoint: "https://127.0.0.1:1", Bucket: "b", Credentials: "backup-s3"}
	ca := bucket
	ca.CAFile = filepath.Join(dir, "none")
	pair := func(string) ([]byte, error) { return []byte("access_key = \"a\"\nsecret_key = \"s\"\n"), nil }
	return map[string]Destination{
		"a folder that is gone":      NewPlace(config.BackupTo{Type: config.BackupDir, Path: filepath.Join(dir, "none")}, nil),
		"a file":                     NewPlace(config.BackupTo{Type: config.BackupDir, Path: filepath.Join(dir, "file")}, nil),
		"a key pair that is gone":    NewPlace(bucket, func(string) ([]byte, error) { return nil, fs.ErrNotExist }),
		"a key pair that is none":    NewPlace(bucket, func(string) ([]byte, error) { return []byte("\n"), nil }),
		"certificates that are gone": NewPlace(ca, pair),
	}
}

// One place that cannot be opened is in nobody's way: whatever comes first in the
// configuration, the other is served, and the fault is told.
func TestOneBadPlaceStopsNoOther(t *testing.T) {
	for name, bad := range badPlaces(t) {
		t.Run(name, func(t *testing.T) {
			k, good := newKeys(t), NewPlace(config.BackupTo{Type: config.BackupDir, Path: t.TempDir()}, nil)
			places := []Destination{bad, good}
			o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), places...)
			taken, err := Take(t.Context(), o)
			id := taken.Manifest.ID
			failsAlone(t, "take", err, bad)
			if !slices.Equal(taken.Held, []string{good.Name()}) {
				t.Fatalf("held by %q", taken.Held)
			}
			v := verifyOptions(t, k, nil)
			v.ClusterID, v.TakeStateDir = "", o.StateDir
			verified, err := VerifyPlaces(t.Context(), places, v)
			failsAlone(t, "verify", err, bad)
			if len(verified) != 1 || verified[good.Name()].ID != id {
				t.Errorf("verified %+v", verified)
			}
			listed, err := ListPlaces(t.Context(), places, "")
			failsAlone(t, "list", err, bad)
			if len(listed) != 1 || listed[0].ID.String() != id || !listed[0].Verified {
				t.Errorf("listed %+v", listed)
			}
			pruned, err := PrunePlaces(t.Context(), places, o.StateDir, PruneOptions{Policy: DefaultPolicy, Now: clock(testTime.Add(time.Hour))})
			failsAlone(t, "prune", err, bad)
			if len(pruned) != 1 || len(pruned[0].Decisions) != 1 {
				t.Errorf("pruned %+v", pruned)
			}
		})
	}
}

func failsAlone(t *testing.T, verb string, err error, bad Destination) {
	t.Helper()
	if !errors.Is(err, ErrPlace) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), bad.Name()) {
		t.Errorf("%s: got %v, want %v of %s", verb, err, ErrPlace, bad.Name())
	}
}

// A place that comes back is asked again.
func TestPlaceComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	p := NewPlace(config.BackupTo{Type: config.BackupDir, Path: dir}, nil)
	if _, err := p.List(t.Context(), ""); !errors.Is(err, ErrPlace) {
		t.Errorf("got %v, want %v", err, ErrPlace)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, p, "c/x", []byte("x"))
	if n, err := p.Sweep(t.Context(), time.Now()); n != 0 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
}

// The state files know a place by its name: it is the same opened or not, and as it
// was before places were opened late.
func TestPlaceNames(t *testing.T) {
	for want, to := range map[string]config.BackupTo{
		"dir:/mnt/backup":            {Type: config.BackupDir, Path: "/mnt/backup/"},
		"s3:127.0.0.1:9/vault":       {Type: config.BackupS3, Endpoint: "https://127.0.0.1:9", Bucket: "vault"},
		"s3:store.example/vault/a/b": {Type: config.BackupS3, Endpoint: "https://store.example/", Bucket: "vault", Prefix: "/a/b/"},
	} {
		if got := NewPlace(to, nil).Name(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if to.Type == config.BackupS3 {
			s, err := NewS3(S3Config{Endpoint: to.Endpoint, Bucket: to.Bucket, Prefix: to.Prefix, AccessKey: "a", SecretKey: "s"})
			if err != nil || s.Name() != want {
				t.Errorf("opened it is %q, %v; want %q", s.Name(), err, want)
			}
		}
	}
}
