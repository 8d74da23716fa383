package vps_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom/installer/engine"
	"strongroom/installer/steps"
)

// TestKilledEverywhere kills the installer with SIGKILL again and again on one
// machine: each time when it has just begun a further change, or a random
// moment later. At the end everything must be as after an undisturbed run, and
// no key may have been made twice.
func TestKilledEverywhere(t *testing.T) {
	m := boot(t, "kill")
	seed := uint64(20261124)
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	var table strings.Builder
	fingerprint, kills := "", 0
	// A change is killed at most this often, or a long one would never end.
	perChange := 1
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		perChange = 4
	}
	killedAt := map[string]int{}
	for {
		if kills > 400 {
			t.Fatalf("no end in sight after %d kills:\n%s", kills, table.String())
		}
		delay := time.Duration(rnd.IntN(60)) * time.Millisecond
		if kills%3 == 0 {
			delay = 0
		}
		at, done := m.installAndKill(t, delay, func(e engine.Entry) bool { return killedAt[e.Step+e.What] < perChange })
		if done {
			break
		}
		kills++
		killedAt[at.Step+at.What]++
		fmt.Fprintf(&table, "%3d  %-16s %-40s +%s\n", kills, at.Step, at.What, delay)
		// The master key, once the KMS has it, stays.
		if m.in(t, "test", "-e", "/etc/strongroom/credentials/master-key").code == 0 {
			got := strings.TrimSpace(m.sh(t, "systemd-creds decrypt --name=master-key /etc/strongroom/credentials/master-key - | sha256sum"))
			if fingerprint == "" {
				fingerprint = got
			}
			if got != fingerprint {
				t.Fatalf("the master key was made anew after kill %d:\n%s", kills, table.String())
			}
		}
	}
	t.Logf("%d kills\n%s", kills, table.String())
	if kills < 50 {
		t.Errorf("only %d kills", kills)
	}

	// The end state is that of an undisturbed run.
	if r := m.installer(t, "plan"); r.code != 0 {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
	for _, step := range []struct {
		name string
		do   func(*testing.T, *machine)
	}{
		{"second run changes nothing", testSecondRun},
		{"from outside", testOutside},
		{"sandboxes", testSandboxes},
		{"no plain secret", testNoPlainSecret},
	} {
		t.Run(step.name, func(t *testing.T) { step.do(t, m) })
	}
	if out := m.sh(t, "find /etc/strongroom /var/lib/strongroom /usr/local /etc/systemd/system -name '.*tmp*' -o -name '*.new' -o -name 'probe*'"); out != "" {
		t.Errorf("left behind by killed writes:\n%s", out)
	}
	if out := strings.TrimSpace(m.sh(t, "systemctl list-timers --all --no-legend | grep rollback || true")); out != "" {
		t.Errorf("a rollback of the firewall is armed:\n%s", out)
	}
}

// installAndKill runs the installer and kills it delay after it has begun the
// first change that is wanted. It returns that change, or done if the run ended
// by itself.
func (m *machine) installAndKill(t *testing.T, delay time.Duration, wanted func(engine.Entry) bool) (engine.Entry, bool) {
	t.Helper()
	seen := len(m.journal())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := append([]string{"exec", m.name, "/root/strongroom-installer", "install", "--yes"}, installArgs...)
	cmd := exec.CommandContext(ctx, m.script, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var begun engine.Entry
	for begun.Event == "" {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("install: %v\n%s", err, out.String())
			}
			return engine.Entry{}, true
		case <-tick.C:
		}
		for _, e := range m.journal()[seen:] {
			if e.Event == engine.EventBegin && wanted(e) {
				begun = e
			}
		}
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("install: %v\n%s", err, out.String())
		}
		return engine.Entry{}, true
	case <-timer.C:
	}
	m.in(t, "pkill", "-KILL", "strongroom-inst")
	<-ended
	return begun, false
}

// journal reads the installer's journal on the machine's disk.
func (m *machine) journal() []engine.Entry {
	f, err := os.Open(filepath.Join(m.disk, steps.JournalPath))
	if err != nil {
		return nil // not there yet
	}
	defer f.Close()
	var all []engine.Entry
	for s := bufio.NewScanner(f); s.Scan(); {
		var e engine.Entry
		if json.Unmarshal(s.Bytes(), &e) == nil {
			all = append(all, e)
		}
	}
	return all
}
