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
	"strconv"
	"strings"
	"syscall"
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
	perChange := func(step string) int {
		switch {
		case os.Getenv("STRONGROOM_SOAK") == "1":
			return 4
		case step == "master-key", step == "services", step == "firewall", step == "initialise", step == "vault-setup":
			return 2 // at the boundary and within
		}
		return 1
	}
	change := func(e engine.Entry) string { return e.Step + " " + e.What + " " + e.Note }
	killedAt := map[string]int{}
	for {
		if kills > 400 {
			t.Fatalf("no end in sight after %d kills:\n%s", kills, table.String())
		}
		// At the boundary, or somewhere in the change.
		delay := time.Duration(0)
		if kills%2 == 1 {
			delay = time.Duration(rnd.IntN(20_000)) * time.Microsecond
		}
		at, done := m.installAndKill(t, delay, func(e engine.Entry) bool { return killedAt[change(e)] < perChange(e.Step) })
		if done {
			break
		}
		kills++
		killedAt[change(at)]++
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
	// Often enough to catch a change that takes a millisecond.
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	var begun engine.Entry
	var size int64
	installer := 0
	for begun.Event == "" {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("install: %v\n%s", err, out.String())
			}
			return engine.Entry{}, true
		case <-tick.C:
		}
		if installer == 0 {
			installer = descendant(cmd.Process.Pid, "strongroom-inst")
		}
		fi, err := os.Stat(filepath.Join(m.disk, steps.JournalPath))
		if err != nil || fi.Size() == size {
			continue // not there yet, or nothing new
		}
		size = fi.Size()
		for _, e := range m.journal()[seen:] {
			if e.Event == engine.EventBegin && wanted(e) {
				begun = e // the last of them, if several came at once
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
	if err := syscall.Kill(installer, syscall.SIGKILL); err != nil {
		t.Fatalf("kill the installer (process %d): %v", installer, err)
	}
	<-ended
	return begun, false
}

// descendant finds a process by its name below pid, as this side numbers them;
// 0: none.
func descendant(pid int, name string) int {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return 0
	}
	if strings.TrimSpace(string(comm)) == name {
		return pid
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	for _, f := range strings.Fields(string(b)) {
		if child, err := strconv.Atoi(f); err == nil {
			if found := descendant(child, name); found != 0 {
				return found
			}
		}
	}
	return 0
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
