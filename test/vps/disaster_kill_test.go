package vps_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"strongroom.example/installer/engine"
)

// killed kills the restore in its own steps, at the boundary or a random moment
// later; what it began the next run ends. STRONGROOM_SOAK=1 kills in each.
func (w *world) killed(t *testing.T, m *machine) {
	points := []string{"recover-snapshot", "recover-keys"}
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		points = []string{"recover-files", "recover-master-key", "recover-vault", "recover-snapshot", "recover-token", "recover-keys", "jobs", "root-token", "recover-end"}
	}
	seed := uint64(20261124)
	rnd := rand.New(rand.NewPCG(seed, 1))
	// How long a step takes, about; the run goes on for longer than that.
	long := map[string]time.Duration{"recover-vault": time.Second, "recover-snapshot": 3 * time.Second, "recover-keys": 2 * time.Second, "jobs": 300 * time.Millisecond}
	for _, step := range points {
		delay := time.Duration(rnd.Int64N(int64(max(long[step], 20*time.Millisecond))))
		seen := len(m.journal())
		at, done := m.runAndKill(t, restoreArgs, delay, func(e engine.Entry) bool { return e.Step == step })
		if done {
			// Its work may have been done by a run that was killed a moment later.
			before := slices.ContainsFunc(m.journal()[:seen], func(e engine.Entry) bool { return e.Step == step && e.Event == engine.EventBegin })
			var events []string
			for _, e := range m.journal()[seen:] {
				events = append(events, e.Event+" "+e.Step)
			}
			if !before {
				t.Errorf("seed %d: %s was not reached in %q", seed, step, events)
			}
			t.Logf("seed %d: %s was done before it could be killed; the run: %q", seed, step, events)
			return
		}
		t.Logf("seed %d: killed in %s (%s) after %v", seed, at.Step, at.What, delay)
	}
}

// runAndKill runs the installer and kills it delay after it has begun the first
// change that is wanted. It returns that change, or done if the run ended by
// itself.
func (m *machine) runAndKill(t *testing.T, args []string, delay time.Duration, wanted func(engine.Entry) bool) (engine.Entry, bool) {
	t.Helper()
	seen := len(m.journal())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.script, append([]string{"exec", m.name}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	over := func(err error) (engine.Entry, bool) {
		// The doctor's opinion is for the end.
		if err != nil && cmd.ProcessState.ExitCode() != 3 {
			t.Fatalf("%q: %v\n%s", args, err, out.String())
		}
		return engine.Entry{}, true
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	installer := 0
	for {
		select {
		case err := <-ended:
			return over(err)
		case <-tick.C:
		}
		if installer == 0 {
			installer = descendant(cmd.Process.Pid, "strongroom-inst")
		}
		all := m.journal()
		for _, e := range all[min(seen, len(all)):] {
			if e.Event != engine.EventBegin || !wanted(e) {
				continue
			}
			timer := time.NewTimer(delay)
			defer timer.Stop()
			select {
			case err := <-ended:
				return over(err)
			case <-timer.C:
			}
			if err, gone := killed(cmd.Process.Pid, installer, ended); gone {
				return over(err)
			}
			return e, false
		}
	}
}
