package snapshot

import (
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// Objects of one snapshot, beside each other:
//
//	<cluster id>/20261124T151500Z-1a2b3c4d.snap.age   the raft snapshot
//	<cluster id>/20261124T151500Z-1a2b3c4d.files.age  certificates and configuration; may be missing
//	<cluster id>/20261124T151500Z-1a2b3c4d.json       the manifest: written last, so it means "complete"
//	<cluster id>/20261124T151500Z-1a2b3c4d.ok.json    the proof that it was read back
//	<cluster id>/20261124T151500Z-1a2b3c4d.retired.json  it is not to be chosen any more
const (
	suffixSnap     = ".snap.age"
	suffixFiles    = ".files.age"
	suffixManifest = ".json"
	suffixProof    = ".ok.json"
	suffixRetired  = ".retired.json"

	stampLayout = "20060102T150405Z"
)

var (
	clusterPattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z-]{0,63}$`)
	segmentPattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,127}$`)
	basePattern    = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$`)
)

// vaultCluster is the id that Vault gives a cluster.
var vaultCluster = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// VaultCluster says whether a folder in a place has the name that only the
// snapshots of a Vault cluster have.
func VaultCluster(folder string) bool { return vaultCluster.MatchString(folder) }

// ID names one snapshot of one cluster. The names sort by time.
type ID struct {
	Cluster string
	Base    string // "20261124T151500Z-1a2b3c4d"
}

// newID makes the name of a snapshot begun at t. The random part keeps two
// machines that share a destination apart.
func newID(cluster string, t time.Time, rand io.Reader) (ID, error) {
	if !clusterPattern.MatchString(cluster) {
		return ID{}, fmt.Errorf("cluster id %q: want up to 64 letters, digits and hyphens", cluster)
	}
	var b [4]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return ID{}, fmt.Errorf("name a snapshot: %w", err)
	}
	return ID{cluster, t.UTC().Format(stampLayout) + "-" + hex.EncodeToString(b[:])}, nil
}

// ParseID parses what ID.String gives.
func ParseID(s string) (ID, error) {
	cluster, base, _ := strings.Cut(s, "/")
	if !clusterPattern.MatchString(cluster) || !basePattern.MatchString(base) {
		return ID{}, fmt.Errorf("snapshot name %q: want CLUSTER/YYYYMMDDTHHMMSSZ-XXXXXXXX", s)
	}
	if _, err := time.Parse(stampLayout, base[:len(stampLayout)]); err != nil {
		return ID{}, fmt.Errorf("snapshot name %q: not a time", s)
	}
	return ID{cluster, base}, nil
}

// String is the name as List shows it and ParseID reads it: "CLUSTER/BASE".
func (id ID) String() string { return id.Cluster + "/" + id.Base }

// Time is when the snapshot was begun, to the second, in UTC.
func (id ID) Time() time.Time {
	if len(id.Base) < len(stampLayout) {
		return time.Time{}
	}
	t, err := time.Parse(stampLayout, id.Base[:len(stampLayout)])
	if err != nil {
		return time.Time{}
	}
	return t
}

func (id ID) object(suffix string) string { return id.String() + suffix }

// splitObject tells which snapshot an object belongs to and what it is of it.
// ok is false for objects that are none of ours.
func splitObject(name string) (id ID, suffix string, ok bool) {
	// The longer suffixes first: ".ok.json" ends in ".json".
	for _, suffix := range []string{suffixSnap, suffixFiles, suffixProof, suffixRetired, suffixManifest} {
		stem, found := strings.CutSuffix(name, suffix)
		if !found {
			continue
		}
		if id, err := ParseID(stem); err == nil {
			return id, suffix, true
		}
	}
	return ID{}, "", false
}

// checkName refuses object names that could leave a destination.
func checkName(name string) error {
	for seg := range strings.SplitSeq(name, "/") {
		if !segmentPattern.MatchString(seg) {
			return fmt.Errorf("object name %q: bad part %q", name, seg)
		}
	}
	return nil
}
