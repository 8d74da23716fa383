package bench

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"strongroom/appliance/proc"
	"strongroom/test/vaulttest"
)

// manyKeys is how many keys the store holds; STRONGROOM_BENCH_KEYS=100000 is
// the promise, and takes minutes to write.
func manyKeys(b *testing.B) int {
	b.Helper()
	text := os.Getenv("STRONGROOM_BENCH_KEYS")
	if text == "" {
		return 10_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 10 {
		b.Fatalf("STRONGROOM_BENCH_KEYS=%q is no number of keys", text)
	}
	return n
}

// Reads with many keys against reads with ten, on real raft, and how long a
// killed Vault takes to serve them again.
func BenchmarkManyKeys(b *testing.B) {
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	write(b, s, "apikeys/providers/internal", map[string]any{"type": "generated"})
	const few = 10
	many := manyKeys(b)
	l := load{socket: s.Layout.VaultSocket(), token: s.RootToken, conns: 8}
	name := func(i int) string { return fmt.Sprintf("app-%d/production/key-%d", i/100, i) }
	fill := func(from, to int) {
		var next atomic.Int64
		next.Store(int64(from))
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				c := s.Client(b, s.RootToken).API().Logical()
				for i := next.Add(1) - 1; i < int64(to); i = next.Add(1) - 1 {
					if _, err := c.WriteWithContext(b.Context(), "apikeys/keys/"+name(int(i)), map[string]any{"provider": "internal"}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	// Ten names each time, spread over all that there are.
	reads := func(total int) float64 {
		var rates []float64
		for i := range 10 {
			r, err := l.run(b.Context(), request{path: "apikeys/creds/" + name(i*total/10), status: 200}, 500*time.Millisecond)
			if err != nil {
				b.Fatal(err)
			}
			rates = append(rates, r.perSecond)
		}
		return median(rates)
	}
	for b.Loop() {
		fill(0, few)
		reads(few) // warm up
		withFew := reads(few)
		began := time.Now()
		fill(few, many)
		b.ReportMetric(float64(many-few)/time.Since(began).Seconds(), "keys-made/s")
		withMany := reads(many)
		began = time.Now()
		s.KillAndWait(b)
		if _, err := l.run(b.Context(), request{path: "apikeys/creds/" + name(many-1), status: 200}, time.Millisecond); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s-from-kill-to-first-read")
		resident, err := proc.Resident(proc.ChildOf(s.Process.PID()))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(resident)/(1<<20), "plugin-MiB")
		b.ReportMetric(withMany/withFew, "reads/reads-with-10-keys")
	}
}
