package bench

import (
	"fmt"
	"testing"
	"time"

	"strongroom.example/test/vaulttest"
)

// Rotations of generated keys are bound by raft's commits, as KV v2's writes.
// Both go round a hundred names.
func BenchmarkRotations(b *testing.B) {
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	setUpKey(b, s)
	setUpKV(b, s)
	const names, each, times = 100, 200, 7
	for i := range names {
		write(b, s, fmt.Sprintf("apikeys/keys/bulk/%d", i), map[string]any{"provider": "internal"})
	}
	perSecond := func(do func(i int)) float64 {
		began := time.Now()
		for i := range each {
			do(i)
		}
		return each / time.Since(began).Seconds()
	}
	for b.Loop() {
		var rotations, writes []float64
		for range times {
			rotations = append(rotations, perSecond(func(i int) { write(b, s, fmt.Sprintf("apikeys/rotate/bulk/%d", i%names), nil) }))
			writes = append(writes, perSecond(func(i int) { write(b, s, fmt.Sprintf("secret/data/w%d", i%names), kvValue) }))
		}
		b.ReportMetric(median(rotations), "rotations/s")
		b.ReportMetric(median(writes), "KVwrites/s")
		b.ReportMetric(ratio(rotations, writes), "rotations/KVwrites")
	}
}
