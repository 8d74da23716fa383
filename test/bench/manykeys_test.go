package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/vaulttest"
)

// manyKeys is how many keys the store holds: STRONGROOM_BENCH_KEYS, or what is
// promised.
func manyKeys(b *testing.B) int {
	b.Helper()
	text := os.Getenv("STRONGROOM_BENCH_KEYS")
	if text == "" {
		return 100_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < fewKeys {
		b.Fatalf("STRONGROOM_BENCH_KEYS=%q is no number of keys", text)
	}
	return n
}

const (
	fewKeys = 10
	writers = 64 // enough for raft to take several writes into one commit
)

func manyName(i int) string { return fmt.Sprintf("app-%d/production/key-%d", i/100, i) }

// keyed is a Vault with so many keys.
type keyed struct {
	*vaulttest.Server
	l     load
	total int

	// Of the reads that rate has measured.
	used  time.Duration // by the plugin, of the processors
	count int
}

func newKeyed(b *testing.B, total int) (k *keyed, perSecond float64) {
	b.Helper()
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	write(b, s, "apikeys/providers/internal", map[string]any{"type": "generated"})
	k = &keyed{Server: s, l: load{socket: s.Layout.VaultSocket(), token: s.RootToken, conns: 8}, total: total}
	began := time.Now()
	k.each(b, request{status: http.StatusNoContent, method: http.MethodPost, body: `{"provider":"internal"}`}, "apikeys/keys/", writers)
	return k, float64(total) / time.Since(began).Seconds()
}

// each sends r for every key, over so many connections.
func (k *keyed) each(b *testing.B, r request, prefix string, conns int) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			err := k.l.series(func() (request, bool) {
				i := int(next.Add(1)) - 1
				own := r
				own.path = prefix + manyName(i%k.total)
				return own, i < k.total && b.Context().Err() == nil
			})
			if err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

func (k *keyed) read(i int) request {
	return request{path: "apikeys/creds/" + manyName(i), status: http.StatusOK}
}

// rate is reads/s of one of ten keys, which lie spread over all that there are.
func (k *keyed) rate(b *testing.B, round int) float64 {
	b.Helper()
	pid := k.plugin(b)
	before := usedBy(b, pid)
	r, err := k.l.run(b.Context(), k.read(round%fewKeys*k.total/fewKeys), perRound)
	if err != nil {
		b.Fatal(err)
	}
	k.used += usedBy(b, pid) - before
	k.count += r.count
	return r.perSecond
}

func (k *keyed) plugin(b *testing.B) int {
	b.Helper()
	pid, err := vaulttest.ChildNamed(k.Process.PID(), engine)
	if err != nil {
		b.Fatal(err)
	}
	return pid
}

func (k *keyed) resident(b *testing.B) float64 {
	b.Helper()
	n, err := proc.Resident(k.plugin(b))
	if err != nil {
		b.Fatal(err)
	}
	return float64(n) / (1 << 20)
}

// Many keys on real raft, next to a Vault of its own with ten: how fast they
// are read, how long a killed Vault takes to serve them again, what they take
// of memory, and what the plugin does while nobody asks it anything.
func BenchmarkManyKeys(b *testing.B) {
	for b.Loop() {
		few, _ := newKeyed(b, fewKeys)
		many, perSecond := newKeyed(b, manyKeys(b))
		b.ReportMetric(perSecond, "keys-made/s")

		began := time.Now()
		many.KillAndWait(b)
		if _, err := many.l.run(b.Context(), many.read(many.total-1), time.Millisecond); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s-from-kill-to-first-read")
		b.ReportMetric(many.resident(b), "MiB-after-start")

		many.each(b, request{status: http.StatusOK}, "apikeys/creds/", many.l.conns)
		b.ReportMetric(many.resident(b), "MiB-all-read")

		var ratios []float64
		for round := range rounds + 1 {
			var a, z float64
			if round%2 == 0 {
				a = few.rate(b, round)
				z = many.rate(b, round)
			} else {
				z = many.rate(b, round)
				a = few.rate(b, round)
			}
			if round > 0 {
				ratios = append(ratios, z/a)
			}
		}
		b.ReportMetric(median(ratios), "reads/reads-with-10-keys")
		b.ReportMetric(float64(few.used.Microseconds())/float64(few.count), "plugin-µs/read-with-10-keys")
		b.ReportMetric(float64(many.used.Microseconds())/float64(many.count), "plugin-µs/read")
		b.ReportMetric(many.idle(b), "idle-ms-of-CPU/s")
	}
}

// idle is what the plugin uses of the processors while nothing is asked or due,
// in milliseconds a second: the ticks of its scheduler, and the runtime's own.
func (k *keyed) idle(b *testing.B) float64 {
	b.Helper()
	const span = 5 * time.Second
	pid := k.plugin(b)
	ctx, cancel := context.WithTimeout(b.Context(), span)
	defer cancel()
	before := usedBy(b, pid)
	<-ctx.Done()
	return float64((usedBy(b, pid) - before).Milliseconds()) / span.Seconds()
}
