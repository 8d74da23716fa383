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

	layout "strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/test/vaulttest"
)

// sensitive are the steps with a secret or a state that could be lost or made
// twice: each of their changes is killed, and as often within as at its start.
var sensitive = map[string]int{
	"master-key": 2, "job-keys": 1, "initialise": 3, "vault-setup": 1, "jobs": 1, "root-token": 3,
	"firewall": 2, "first-snapshot": 2, "first-drill": 1,
}

// long is how far into a change of a step a kill may come, where that is more than
// a moment: less than the change takes anywhere, or the kill would hit a later one.
var long = map[string]time.Duration{
	"vault-program": 400 * time.Millisecond, "initialise": 700 * time.Millisecond, "first-snapshot": 400 * time.Millisecond,
	"first-drill": 2 * time.Second,
}

// killPoint is one kill and what became of the change that it hit.
type killPoint struct {
	engine.Entry               // the change that was under way
	aimed        engine.Entry  // the one that the kill was meant for: the same, or one shortly before
	after        time.Duration // since that had begun
	next         string        // what the next run did about the change that was under way
}

// TestKilledEverywhere kills the installer with SIGKILL again and again on one
// machine: each time when it has just begun a further change, or a random
// moment later. At the end everything must be as after an undisturbed run, and
// no key may have been made twice. With STRONGROOM_SOAK=1 each change of each
// step is killed, and the sensitive ones three times; otherwise a few of the
// harmless steps' are.
func TestKilledEverywhere(t *testing.T) {
	m := boot(t, "kill")
	startStore(t, m)
	m.sh(t, "mkdir -p /srv/backup")
	m.write(t, "/root/appliance.toml", backupConfig(""))
	m.write(t, "/root/s3.toml", fmt.Appendf(nil, "access_key = %q\nsecret_key = %q\n", storeAccess, storeSecret))
	soak := os.Getenv("STRONGROOM_SOAK") == "1"
	seed := uint64(20261124)
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	var points []killPoint
	same := map[string]string{} // what must never be made twice
	change := func(e engine.Entry) string { return e.Step + " " + e.What }
	killedAt, killedIn := map[string]int{}, map[string]int{}
	// A change is killed at most so often, or a long one would never end.
	wanted := func(e engine.Entry) bool {
		n, important := sensitive[e.Step]
		switch {
		case soak && important:
			return killedAt[change(e)] < 3
		case soak:
			return killedAt[change(e)] < 1
		case important:
			return killedAt[change(e)] < n
		}
		return killedAt[change(e)] < 1 && killedIn[e.Step] < 6
	}
	for {
		if len(points) > 600 {
			t.Fatalf("no end in sight after %d kills:\n%s", len(points), killLog(points))
		}
		// At the boundary, or somewhere in the change.
		var after time.Duration
		delay := func(e engine.Entry) time.Duration {
			if after = 0; len(points)%2 == 1 {
				after = time.Duration(rnd.Int64N(int64(max(long[e.Step], 20*time.Millisecond))))
			}
			return after
		}
		seen := len(m.journal())
		aimed, done := m.installAndKill(t, delay, wanted)
		run := m.journal()[seen:]
		if n := len(points); n > 0 {
			points[n-1].next = nextRun(points[n-1].Entry, run)
		}
		if done {
			break
		}
		hit := lastBegun(run)
		points = append(points, killPoint{Entry: hit, aimed: aimed, after: after.Round(time.Microsecond)})
		killedAt[change(hit)]++
		killedIn[hit.Step]++
		// A change that ended before the kill may never begin again.
		if change(hit) != change(aimed) {
			killedAt[change(aimed)]++
			killedIn[aimed.Step]++
		}
		if err := m.sameKeys(t, same); err != nil {
			t.Fatalf("after kill %d: %v\n%s", len(points), err, killLog(points))
		}
	}
	t.Logf("%d kills\n%s", len(points), killLog(points))
	if len(points) < 50 {
		t.Errorf("only %d kills", len(points))
	}
	var missed []string
	for _, step := range []string{"master-key", "job-keys", "initialise", "vault-setup", "jobs", "root-token", "firewall", "timers", "first-snapshot"} {
		if killedIn[step] == 0 {
			missed = append(missed, step)
		}
	}
	// Where this side is held up, a short step is over before it can be killed.
	if len(missed) > 0 {
		t.Logf("no kill in %q", missed)
	}
	if len(missed) > 2 {
		t.Errorf("no kill in %q", missed)
	}
	if soak || os.Getenv("STRONGROOM_KILL_TABLE") == "1" {
		writeKillTable(t, points)
	}

	// The end state is that of an undisturbed run.
	if r := m.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
	for _, step := range []struct {
		name string
		do   func(*testing.T, *machine)
	}{
		{"from outside", testOutside},
		{"sandboxes", testSandboxes},
		{"no plain secret", testNoPlainSecret},
		{"manifest", testManifest},
		{"one login each", testOneLoginEach},
	} {
		t.Run(step.name, func(t *testing.T) { step.do(t, m) })
	}
	if state := verified(t, m); len(state.LastGood) != 2 {
		t.Errorf("verified: %+v", state)
	}
	// A job of now may be writing; what killed writes have left stays.
	m.waitFor(t, time.Minute, "find /etc/strongroom /var/lib/strongroom /usr/local /etc/systemd/system -name '.*tmp*' -o -name '*.new' -o -name 'probe*'", "")
	if out := strings.TrimSpace(m.sh(t, "systemctl list-timers --all --no-legend | grep rollback || true")); out != "" {
		t.Errorf("a rollback of the firewall is armed:\n%s", out)
	}
	r := m.in(t, append([]string{"/root/strongroom-installer", "install", "--yes"}, backupArgs...)...)
	if r.code != 0 || !strings.Contains(r.stdout, "Nothing to change") {
		t.Errorf("one more run: exit code %d:\n%s", r.code, r)
	}
}

// sameKeys compares what is on the machine with what was there before: a key
// that is there stays.
func (m *machine) sameKeys(t *testing.T, same map[string]string) error {
	t.Helper()
	script := "cd /etc/strongroom; for n in master-key drill-key drill-signing-key snapshot-signing-key; do test ! -e credentials/$n || " +
		"echo $n $(systemd-creds decrypt --name=$n credentials/$n - | sha256sum); done; " +
		"test ! -e epoch.json || echo epoch $(sha256sum <epoch.json)"
	for line := range strings.Lines(m.sh(t, script)) {
		name, sum, _ := strings.Cut(strings.TrimSpace(line), " ")
		if old, ok := same[name]; ok && old != sum {
			return fmt.Errorf("%s was made anew", name)
		}
		same[name] = sum
	}
	return nil
}

// testOneLoginEach: no kill has left a secret id alive that nobody holds.
func testOneLoginEach(t *testing.T, m *machine) {
	admin := login(t, m)
	c := m.client(roots(t, m))
	for _, role := range []string{"snapshot", "canary", "drill", "doctor", "monitor"} {
		_, out := m.vault(t, c, "LIST", "auth/approle/role/strongroom-"+role+"/secret-id", admin, nil)
		data, _ := out["data"].(map[string]any)
		if keys, _ := data["keys"].([]any); len(keys) != 1 {
			t.Errorf("%s: %d secret ids are alive, want one", role, len(keys))
		}
	}
}

// What the next run can do about a change that was killed.
const (
	nextAgain  = "makes it again"
	nextGoesOn = "finds it made, and goes on"
	nextAside  = "sets the storage aside that nobody has the keys of, and initialises again"
)

// nextRun says what a run did about a change that was begun before: steps are
// in order, so its first change tells.
func nextRun(killed engine.Entry, run []engine.Entry) string {
	for _, e := range run {
		switch {
		case e.Event != engine.EventBegin:
		case e.Step == killed.Step && e.What == killed.What:
			return nextAgain
		case e.Step == "initialise" && killed.Step == "initialise" && e.What != killed.What:
			return nextAside
		default:
			return nextGoesOn
		}
	}
	return nextGoesOn
}

// lastBegun is the change that a run which was killed was at.
func lastBegun(run []engine.Entry) engine.Entry {
	var last engine.Entry
	for _, e := range run {
		if e.Event == engine.EventBegin {
			last = e
		}
	}
	return last
}

func killLog(points []killPoint) string {
	var b strings.Builder
	for i, p := range points {
		after := "+" + p.after.String()
		if p.aimed != p.Entry {
			after += " of " + p.aimed.What
		}
		fmt.Fprintf(&b, "%3d  %-16s %-52s %-10s %s\n", i+1, p.Step, p.What, after, p.next)
	}
	return b.String()
}

// writeKillTable puts what was seen into docs/install.md.
func writeKillTable(t *testing.T, points []killPoint) {
	t.Helper()
	const begin, end = "<!-- kill table: written by TestKilledEverywhere -->\n", "<!-- end of the kill table -->\n"
	file := filepath.Join(vaulttest.Root(t), "docs", "install.md")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	type row struct{ step, what string }
	var order []row
	kills, next := map[row]int{}, map[row]map[string]int{}
	for _, p := range points {
		r := row{p.Step, p.What}
		if kills[r] == 0 {
			order = append(order, r)
			next[r] = map[string]int{}
		}
		kills[r]++
		next[r][p.next]++
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d kills in %d changes.\n\n| step | change | kills | the next run |\n|---|---|---|---|\n", len(points), len(order))
	for _, r := range order {
		var what []string
		for _, n := range []string{nextAgain, nextGoesOn, nextAside} {
			if c := next[r][n]; c > 0 {
				what = append(what, fmt.Sprintf("%s (%d)", n, c))
			}
		}
		fmt.Fprintf(&text, "| %s | `%s` | %d | %s |\n", r.step, r.what, kills[r], strings.Join(what, "; "))
	}
	if err := os.WriteFile(file, []byte(before+begin+text.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// installAndKill runs the installer and kills it the delay for it after it has begun
// the first change that is wanted. It returns that change, or done if the run ended
// by itself.
func (m *machine) installAndKill(t *testing.T, delay func(engine.Entry) time.Duration, wanted func(engine.Entry) bool) (engine.Entry, bool) {
	t.Helper()
	seen := len(m.journal())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := append([]string{"exec", m.name, "/root/strongroom-installer", "install", "--yes"}, backupArgs...)
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
		fi, err := os.Stat(filepath.Join(m.disk, layout.InstallJournal))
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
	timer := time.NewTimer(delay(begun))
	defer timer.Stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("install: %v\n%s", err, out.String())
		}
		return engine.Entry{}, true
	case <-timer.C:
	}
	if err, gone := killed(cmd.Process.Pid, installer, ended); gone {
		if err != nil {
			t.Fatalf("install: %v\n%s", err, out.String())
		}
		return engine.Entry{}, true
	}
	return begun, false
}

// killed kills the installer below the process pid, and waits for the end of
// that; where it ended by itself at that very moment, gone is true and err the
// result. The installer's own number may still be unknown, 0.
func killed(pid, installer int, ended <-chan error) (err error, gone bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if installer == 0 {
			installer = descendant(pid, "strongroom-inst")
		}
		// Never 0, which is everybody in this process's group.
		if installer != 0 && syscall.Kill(installer, syscall.SIGKILL) == nil {
			<-ended
			return nil, false
		}
		select {
		case err := <-ended:
			return err, true
		case <-tick.C:
		}
	}
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
	f, err := os.Open(filepath.Join(m.disk, layout.InstallJournal))
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
