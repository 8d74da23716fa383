package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"strongroom.example/appliance/cli"
)

// maxRTO is the goal for a store of 100 MB, from the start of the fetch to a
// serving Vault.
const maxRTO = time.Minute

// TestDrillRTO drills a store of 100 MB; make test does so with a small one, in
// TestDrill.
func TestDrillRTO(t *testing.T) {
	if os.Getenv("STRONGROOM_SOAK") != "1" {
		t.Skip("a store of 100 MB: STRONGROOM_SOAK=1")
	}
	d := newDrillSite(t)
	fill(t, d.s, 130, 800_000)
	d.backup(t)
	d.drill(t, cli.ExitOK)
	r := d.report(t)
	t.Logf("snapshot of %d MB: RTO %.1f s; steps %v", r.Snapshot.Size>>20, r.RTOSeconds, r.Steps)
	if r.Snapshot.Size < 90<<20 {
		t.Errorf("the snapshot has %d bytes only", r.Snapshot.Size)
	}
	// The goal is for a machine with nothing else to do.
	if r.RTO() > 10*maxRTO {
		t.Errorf("RTO %s, the goal is %s", r.RTO(), maxRTO)
	}
}

// TestDrillKilledAnywhere kills drills all along their way. Nothing outlives one,
// and the next removes what it has left.
func TestDrillKilledAnywhere(t *testing.T) {
	if os.Getenv("STRONGROOM_SOAK") != "1" {
		t.Skip("kills at 20 times: STRONGROOM_SOAK=1; make test kills one, in TestDrill")
	}
	d := newDrillSite(t)
	d.backup(t)
	began := time.Now()
	d.drill(t, cli.ExitOK)
	whole := time.Since(began)
	const kills = 20
	for i := range kills {
		delay := whole * time.Duration(i) / kills
		ctx, cancel := context.WithTimeout(t.Context(), delay)
		err := d.command(ctx, t).Run() // killed when the time is up
		cancel()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		assertGone(t, d.state)
	}
	d.drill(t, cli.ExitOK)
}
