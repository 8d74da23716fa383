package snapshot

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

// A store that is busy is waited for as long as it asks, within bounds, and then served;
// one that stays busy is told in clear words, and nothing is left there.
func TestS3SlowDown(t *testing.T) {
	v := startVersity(t)
	k := newKeys(t)
	raw := buildArchive(t, archiveSpec{state: randomBytes(2*minPart+1000, 21)})
	any := func(*http.Request) bool { return true }
	for name, c := range map[string]struct {
		when  func(*http.Request) bool
		busy  int // answers for each kind of request
		after string
		want  time.Duration // each wait
		fails bool
	}{
		"each kind of request, twice": {any, 2, "7", 7 * time.Second, false},
		"the second part":             {func(r *http.Request) bool { return isPart(r, "2") }, 3, "1", time.Second, false},
		"the end of an upload":        {isComplete, 1, "2", 2 * time.Second, false},
		"for longer than anybody has": {any, 1, "86400", maxRetryAfter, false},
		"without a word how long":     {any, 1, "", 0, false},
		"until a date":                {any, 1, "Wed, 21 Oct 2015 07:28:00 GMT", 0, false},
		"nonsense":                    {any, 1, "-3", 0, false},
		"for ever":                    {any, 1 << 30, "7", 7 * time.Second, true},
		"for ever, in the middle":     {func(r *http.Request) bool { return isPart(r, "2") }, 1 << 30, "7", 7 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			bucket := "busy" + strings.ToLower(hexSum([]byte(name))[:8])
			v.bucket(t, bucket, false)
			var mu sync.Mutex
			busy, refused := map[string]int{}, 0
			p := newProxy(t, v, func(w http.ResponseWriter, r *http.Request) bool {
				q := r.URL.Query()
				kind := r.Method + " " + r.URL.Path + " " + q.Get("partNumber") + " " + strings.Join(slices.Sorted(maps.Keys(q)), ",")
				mu.Lock()
				again := c.when(r) && busy[kind] < c.busy
				if again {
					busy[kind]++
					refused++
				}
				mu.Unlock()
				if !again {
					return false
				}
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				answer(http.StatusServiceUnavailable, "SlowDown")(w, r)
				return true
			})
			var waits []time.Duration
			d := v.open(t, S3Config{Endpoint: p.URL, Bucket: bucket, PartSize: minPart, Retries: 5, wait: func(_ context.Context, d time.Duration) error {
				mu.Lock()
				defer mu.Unlock()
				waits = append(waits, d)
				return nil
			}})
			_, err := Take(t.Context(), takeOptions(t, k, bytesSource(raw), d))
			if c.fails {
				if !errors.Is(err, ErrBusy) || !errors.Is(err, ErrUnreachable) || !MayPass(err) || !strings.Contains(err.Error(), "asks for fewer requests") {
					t.Errorf("%v", err)
				}
				direct := v.open(t, S3Config{Bucket: bucket})
				if _, err := direct.Sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
				if left := v.stored(t, bucket); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			} else {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil {
					t.Fatal(err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			want := refused
			if c.want == 0 {
				want = 0
			}
			if refused == 0 || len(waits) != want {
				t.Errorf("%d waits, %d refusals", len(waits), refused)
			}
			for _, w := range waits {
				if w != c.want {
					t.Errorf("it waited for %s, want %s", w, c.want)
				}
			}
		})
	}
}

// Who wants the place no more is not kept by its wait.
func TestS3SlowDownIsGivenUp(t *testing.T) {
	v := startVersity(t)
	p := newProxy(t, v, func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Retry-After", "30")
		answer(http.StatusServiceUnavailable, "SlowDown")(w, r)
		return true
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("nobody wants it")
	d := v.open(t, S3Config{Endpoint: p.URL, Bucket: "busy", wait: func(ctx context.Context, _ time.Duration) error {
		cancel(gone)
		<-ctx.Done()
		return context.Cause(ctx)
	}})
	if _, err := d.List(ctx, ""); err == nil {
		t.Error("no error")
	}
}

// What else is in a bucket is kept and told: nothing counts it, chooses it, or deletes it,
// however much it looks like a snapshot's.
func TestForeignObjects(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "shared", false)
	k := newKeys(t)
	d := v.open(t, S3Config{Bucket: "shared"})
	var s storage
	old := s.takeAt(t, d, k, testTime.AddDate(-1, 0, 0), false)
	ours := s.takeAt(t, d, k, testTime, false)
	strangers := []string{
		"photographs/cat.jpg", "README.md", "dump.snap.age", testCluster + "/notes.txt", testCluster + "/backup.snap.age", testCluster + "/20261124T151500Z-1a2b3c4d.snap.age.part",
		testCluster + "/20261124T151500Z-1A2B3C4D.snap.age", testCluster + "/20261324T151500Z-1a2b3c4d.snap.age", testCluster + "/sub/20261124T151500Z-1a2b3c4d.snap.age",
		"x/" + ours.String() + ".snap.age", ours.String() + ".snap", ours.String() + ".ok.json.bak", "with space/20261124T151500Z-1a2b3c4d.json", "ünï/20261124T151500Z-1a2b3c4d.json",
	}
	for _, name := range strangers {
		if _, err := v.core.PutObject(t.Context(), "shared", name, strings.NewReader("theirs"), 6, "", "", minio.PutObjectOptions{}); err != nil {
			t.Fatal(name, err)
		}
	}
	before := v.stored(t, "shared")
	entries, err := InOrder(t.Context(), d, "")
	if err != nil || len(entries) != 2 {
		t.Fatalf("%+v, %v", entries, err)
	}
	// Two of their names are such as no place takes, and are not even listed.
	if got := Strangers(t.Context(), []Destination{d, newMem("none")}); len(got) != 1 || got[d.Name()] != len(strangers)-2 {
		t.Errorf("told: %v, want %d", got, len(strangers)-2)
	}
	if cluster, err := ClusterIn(t.Context(), d, "", t.TempDir()); err != nil || cluster != testCluster {
		t.Errorf("the cluster is %q, %v", cluster, err)
	}
	if rec, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil || rec.ID != ours.String() {
		t.Errorf("verified %q, %v", rec.ID, err)
	}
	res, err := Prune(t.Context(), PruneOptions{Destination: d, ClusterID: testCluster, Policy: Policy{Hourly: 1}, Now: clock(testTime.Add(time.Hour)), Doubt: func() error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Decisions) != 2 {
		t.Errorf("counted: %+v", res.Decisions)
	}
	after := v.stored(t, "shared")
	maps.DeleteFunc(before, func(name, _ string) bool { return strings.Contains(name, old.Base) })
	for name, sum := range before {
		if after[name] != sum {
			t.Errorf("%s is gone or another", name)
		}
	}
	if _, err := d.Stat(t.Context(), old.object(suffixSnap)); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old one was to go: %v", err)
	}
}
