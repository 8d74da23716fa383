package migrate_test

import (
	"fmt"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// BenchmarkRemaining looks through 10,000 files for 1,000 values.
func BenchmarkRemaining(b *testing.B) {
	dir := bigTree(b, 10000)
	var plan strings.Builder
	plan.WriteString(head)
	for i := 9; i < 10000; i += 10 {
		name := fmt.Sprintf("PASSWORD_%d", i)
		plan.WriteString(entry(name, fmt.Sprintf("d%d/s%d/.env.production", i%50, i), "a/p/"+strings.ToLower(name)))
	}
	p, err := migrate.ParsePlan("F", []byte(plan.String()))
	if err != nil {
		b.Fatal(err)
	}
	s := newFake()
	for b.Loop() {
		r, err := migrate.Remaining(b.Context(), dir, p, s)
		if err != nil || r.Values != 1000 || r.Files != 10000 {
			b.Fatalf("%d values in %d files, %v", r.Values, r.Files, err)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/10000files")
}
