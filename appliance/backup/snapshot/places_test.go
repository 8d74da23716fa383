package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/vaultapi"
)

// away is a place that can't be asked.
type away struct{ *mem }

func (away) List(context.Context, string) ([]ObjectInfo, error) {
	return nil, fmt.Errorf("away: %w", ErrUnreachable)
}

// placeWith takes one snapshot of each cluster into a place of its own; state is
// the taking job's.
func placeWith(t *testing.T, k keys, name, state string, clusters ...string) *mem {
	t.Helper()
	d := newMem(name)
	for i, cluster := range clusters {
		o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
		o.Vault.ClusterID, o.Now = cluster, clock(testTime.Add(time.Duration(i)*time.Minute))
		if state != "" {
			o.StateDir = state
		}
		if _, err := Take(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestClusterIn(t *testing.T) {
	k, state, none := newKeys(t), t.TempDir(), t.TempDir()
	corrupt := t.TempDir()
	if err := os.WriteFile(filepath.Join(corrupt, takeStateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := placeWith(t, k, "taken", state, "one", "two")
	both, one, empty := placeWith(t, k, "both", "", "one", "two"), placeWith(t, k, "one", "", "one", "one"), newMem("empty")
	for _, tt := range []struct {
		name   string
		places []Destination
		named  string
		state  string
		want   string
		err    error
	}{
		{"named", []Destination{both}, "three", state, "three", nil},
		{"the last that was taken", []Destination{taken}, "", state, "two", nil},
		{"of another place's state", []Destination{both}, "", state, "", ErrClusters},
		{"the only one", []Destination{one}, "", none, "one", nil},
		{"beside a state that can't be read", []Destination{one}, "", corrupt, "one", nil},
		{"several", []Destination{both}, "", none, "", ErrClusters},
		{"none", []Destination{empty}, "", none, "", ErrNoSnapshot},
		{"out of reach", []Destination{away{one}}, "", none, "", ErrUnreachable},
		{"the first that tells", []Destination{away{one}, empty, both, one}, "", none, "one", nil},
		{"none of them", []Destination{empty, away{one}}, "", none, "", ErrUnreachable},
		{"no place", nil, "", none, "", ErrNoSnapshot},
		{"no place, named", nil, "one", none, "", ErrNoSnapshot},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ClusterOf(t.Context(), tt.places, tt.named, tt.state)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// What is wrong with one place hides nothing of the others.
func TestPlaces(t *testing.T) {
	k := newKeys(t)
	here, there := placeWith(t, k, "here", "", "one"), placeWith(t, k, "there", "", "two", "two")
	mixed, empty := placeWith(t, k, "mixed", "", "one", "two"), newMem("empty")
	places := []Destination{away{here}, here, mixed, empty, there}
	faults := func(t *testing.T, err error, want ...error) {
		t.Helper()
		for _, w := range want {
			if !errors.Is(err, w) {
				t.Errorf("%v, want %v", err, w)
			}
		}
	}

	t.Run("list", func(t *testing.T) {
		all, err := ListPlaces(t.Context(), places, "")
		faults(t, err, ErrUnreachable)
		var got []string
		for _, p := range all {
			got = append(got, p.Place+" "+p.ID.Cluster)
		}
		if want := []string{"here one", "mixed one", "mixed two", "there two", "there two"}; !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		if all, err := ListPlaces(t.Context(), places[1:], "two"); err != nil || len(all) != 3 {
			t.Errorf("of one cluster: %+v, %v", all, err)
		}
	})

	t.Run("verify", func(t *testing.T) {
		o := verifyOptions(t, k, nil)
		o.ClusterID, o.TakeStateDir = "", t.TempDir()
		good, err := VerifyPlaces(t.Context(), places, o)
		faults(t, err, ErrUnreachable, ErrClusters, ErrNoSnapshot)
		if len(good) != 2 || mustID(t, good["here"].ID).Cluster != "one" || mustID(t, good["there"].ID).Cluster != "two" {
			t.Errorf("%+v", good)
		}
		o.ClusterID = "two"
		good, err = VerifyPlaces(t.Context(), []Destination{here, mixed, there}, o)
		faults(t, err, ErrNoSnapshot)
		if len(good) != 2 || mustID(t, good["mixed"].ID).Cluster != "two" {
			t.Errorf("of one cluster: %+v", good)
		}
		// A name says the cluster, too, and every place is asked for that one.
		o.ClusterID, o.ID = "", mustID(t, good["there"].ID)
		good, err = VerifyPlaces(t.Context(), []Destination{mixed, there}, o)
		faults(t, err, ErrNotFound)
		if len(good) != 1 || good["there"].ID != o.ID.String() {
			t.Errorf("by name: %+v, %v", good, err)
		}
	})

	t.Run("prune", func(t *testing.T) {
		o := PruneOptions{Policy: Policy{Daily: 1}, Now: clock(testTime.Add(48 * time.Hour))}
		done, err := PrunePlaces(t.Context(), places, t.TempDir(), o)
		faults(t, err, ErrUnreachable, ErrClusters, ErrNoSnapshot)
		var got []string
		for _, p := range done {
			got = append(got, fmt.Sprintf("%s: %d of %d", p.Place, p.Deleted, len(p.Decisions)))
		}
		if want := []string{"here: 0 of 1", "there: 1 of 2"}; !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

func TestMayPass(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{ErrUnreachable, true}, {ErrStalled, true}, {statefile.ErrBusy, true}, {ErrNoDestination, true},
		{&vaultapi.Error{Status: 500}, true}, {errors.New("anything else"), true},
		{&fault.Error{Code: fault.Failed, Err: ErrUnreachable}, true},
		{ErrFull, false}, {ErrDenied, false}, {ErrStandby, false}, {ErrSealed, false}, {ErrUninitialised, false},
		{ErrNoSnapshot, false}, {ErrCorrupt, false}, {ErrClusters, false}, {ErrWrongIdentity, false}, {ErrIncomplete, false},
		{&vaultapi.Error{Status: 403}, false}, {&vaultapi.Error{Status: 400}, false},
		{&fault.Error{Code: fault.Usage, Err: errors.New("no recipient")}, false},
		{&fault.Error{Code: fault.Operator, Err: errors.New("no login")}, false},
	} {
		if got := MayPass(fmt.Errorf("job: %w", tt.err)); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}
