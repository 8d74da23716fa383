package apikeys

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/condition"
	"strongroom.example/plugin/provider"
)

// version is the current version of a key.
func (w *world) version(name string) int {
	w.t.Helper()
	return w.read("keys/"+name, nil)["version"].(int)
}

func TestRotatesWhenDueAndNotBefore(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"rotation_period": "30d", "grace_period": "1d"})
	w.pass(30*day - time.Hour - time.Second) // jitter takes an hour at most
	if v := w.version("k"); v != 1 {
		t.Fatalf("version %d before it is due", v)
	}
	w.pass(time.Hour + 2*time.Second)
	if v := w.version("k"); v != 2 {
		t.Fatalf("version %d after it was due", v)
	}
	if n := len(w.remote.alive()); n != 2 {
		t.Errorf("%d keys are alive in grace, want 2", n)
	}
	w.pass(day + time.Second)
	if n := len(w.remote.alive()); n != 1 {
		t.Errorf("%d keys are alive after the grace, want 1", n)
	}
	if !w.events.has("apikeys/rotate") || !w.events.has("apikeys/revoke") {
		t.Errorf("events: %v", w.events.types)
	}
}

func TestRestartRotatesNothingThatIsNotDue(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for i := range 20 {
		w.remoteKey(fmt.Sprintf("k%d", i), nil)
	}
	for range 5 {
		w.clock.advance(day)
		w.start()
		w.tick()
	}
	if w.remote.count != 20 {
		t.Errorf("%d keys were made, want 20", w.remote.count)
	}
}

func TestChangedPeriodCountsFromTheLastRotationAtOnce(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("own", map[string]any{"rotation_period": "90d"})
	w.remoteKey("default", nil)
	w.pass(40 * day)
	w.write("keys/own", map[string]any{"rotation_period": "50d"})
	w.tick()
	if v := w.version("own"); v != 1 {
		t.Fatalf("40 of 50 days, and version %d", v)
	}
	w.write("keys/own", map[string]any{"rotation_period": "30d"})
	w.tick()
	if v := w.version("own"); v != 2 {
		t.Fatalf("40 of 30 days, and version %d", v)
	}
	w.write("config", map[string]any{"rotation_period": "30d"})
	w.start() // the change must last over a crash
	w.tick()
	if v := w.version("default"); v != 2 {
		t.Errorf("the mount's period is shorter now, and version %d", v)
	}
}

func TestCatchUpAfterDowntimeIsCapped(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": 5})
	for i := range 23 {
		w.remoteKey(fmt.Sprintf("k%02d", i), map[string]any{"rotation_period": "1d"})
	}
	w.clock.advance(20 * day)
	w.start()
	for minute := 1; minute <= 5; minute++ {
		w.tick()
		want := 23 + min(5*minute, 23)
		if w.remote.count != want {
			t.Fatalf("after %d minutes %d keys were made, want %d", minute, w.remote.count, want)
		}
		w.clock.advance(time.Minute)
	}
}

func TestClockThatJumpsRotatesNothing(t *testing.T) {
	for name, jump := range map[string]time.Duration{"a year forward": 365 * day, "a year back": -365 * day} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", map[string]any{"grace_period": "1d"})
			w.write("rotate/k", nil)
			w.clock.jump(jump)
			for range 10 {
				w.pass(time.Minute)
			}
			if v := w.version("k"); v != 2 || len(w.remote.alive()) != 2 {
				t.Fatalf("version %d, %d alive", v, len(w.remote.alive()))
			}
			clock := w.read("status", nil)["clock"].(map[string]any)
			if clock["state"] == "ok" {
				t.Errorf("status says nothing: %v", clock)
			}
			if !w.events.has("apikeys/clock") {
				t.Error("no event")
			}
			// Over a restart, too: nothing in storage may believe it.
			w.start()
			w.pass(time.Minute)
			if v := w.version("k"); v != 2 || len(w.remote.alive()) != 2 {
				t.Fatalf("after a restart: version %d, %d alive", v, len(w.remote.alive()))
			}
			w.clock.jump(-jump)
			w.pass(time.Minute)
			if got := w.read("status", nil)["clock"].(map[string]any)["state"]; got != "ok" {
				t.Errorf("the clock is back and %v", got)
			}
		})
	}
}

func TestAcceptedClock(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.clock.jump(365 * day)
	w.tick()
	w.write("config", map[string]any{"accept_clock": true})
	w.tick()
	if v := w.version("k"); v != 2 {
		t.Errorf("a year has passed, and version %d", v)
	}
}

func TestPairedKeysStayApart(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for _, name := range []string{"blue", "green"} {
		w.remoteKey(name, map[string]any{"rotation_period": "30d", "spread_group": "pair", "spread_distance": "10d", "grace_period": "1d"})
	}
	w.pass(30 * day)
	if sum := w.version("blue") + w.version("green"); sum != 3 {
		t.Fatalf("both or none rotated: versions add up to %d", sum)
	}
	second := "blue"
	if w.version("blue") == 2 {
		second = "green"
	}
	w.refused(logical.UpdateOperation, "rotate/"+second, nil, "pair", "force=true")
	w.pass(9 * day)
	if v := w.version(second); v != 1 {
		t.Fatalf("%s rotated within 10 days", second)
	}
	w.pass(day + time.Minute)
	if v := w.version(second); v != 2 {
		t.Errorf("%s has not rotated after 10 days", second)
	}
}

func TestMissedWindowWaitsForTheNext(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"rotation_schedule": "0 3 * * SUN", "rotation_window": "1h", "grace_period": "1d"})
	w.clock.advance(6*day + 20*time.Hour) // Sunday 8 March, 08:00: five hours after the time
	w.start()
	w.tick()
	if v := w.version("k"); v != 1 {
		t.Fatalf("rotated outside its window")
	}
	w.pass(6*day + 19*time.Hour + 40*time.Minute)
	if v := w.version("k"); v != 2 {
		t.Errorf("not rotated in the next window: %v", w.read("keys/k", nil)["next_rotation_time"])
	}
}

func TestFailureBacksOffKeepsTheOldKeyAndIsShown(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"rotation_period": "30d"})
	w.remote.setFault(func(op string, after bool) error {
		if op == "create" {
			return &provider.Error{Op: "create", Kind: provider.KindRateLimited, Status: 429, RetryAfter: 10 * time.Minute, Msg: "slow down"}
		}
		return nil
	})
	w.pass(31 * day)
	tries := func() (n int) {
		for _, c := range w.remote.calls {
			if len(c) > 6 && c[:6] == "create" {
				n++
			}
		}
		return n
	}
	before := tries()
	w.pass(9 * time.Minute)
	if tries() != before {
		t.Error("it did not wait as long as the service asked for")
	}
	w.pass(2 * time.Minute)
	if tries() != before+1 {
		t.Errorf("%d tries after the pause", tries()-before)
	}
	state := w.read("status", nil)["keys"].(map[string]any)["k"].(map[string]any)
	if state["condition"] != "failing" || state["rotation_failure"].(map[string]any)["kind"] != "rate_limited" {
		t.Errorf("status: %v", state)
	}
	creds := w.read("creds/k", nil)
	if creds["version"] != 1 || creds["ttl"].(int64) < 60 {
		t.Errorf("while overdue: version %v, ttl %v", creds["version"], creds["ttl"])
	}
	if !w.events.has("apikeys/rotate-fail") {
		t.Error("no event")
	}
	w.remote.setFault(nil)
	w.pass(2 * time.Hour)
	if w.version("k") != 2 {
		t.Error("it has not recovered")
	}
}

func TestNewKeyThatNeverWorksIsGivenUp(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"rotation_period": "30d"})
	w.remote.setFault(func(op string, _ bool) error {
		if op == "test" {
			return &provider.Error{Op: "test", Kind: provider.KindUnauthorized, Status: 401, Msg: "no"}
		}
		return nil
	})
	w.pass(30 * day)
	if got := w.read("keys/k", nil)["condition"]; got != "failing" {
		t.Fatalf("condition %v", got)
	}
	if got := w.read("creds/k", nil)["version"]; got != 1 {
		t.Fatalf("readers got version %v, which does not work", got)
	}
	for range 12 {
		w.pass(5 * time.Minute)
	}
	w.remote.setFault(nil)
	for range 30 {
		w.pass(5 * time.Minute)
	}
	creds := w.read("creds/k", nil)
	if creds["version"].(int) < 2 || !w.remote.works(creds["key"].(string)) {
		t.Errorf("version %v", creds["version"])
	}
	if n := len(w.remote.alive()); n != 2 {
		t.Errorf("%d keys are alive, want the current and the one in grace", n)
	}
}

func TestOnlyTheActivePrimaryActs(t *testing.T) {
	for name, state := range map[string]consts.ReplicationState{
		"performance standby":   consts.ReplicationPerformanceStandby,
		"performance secondary": consts.ReplicationPerformanceSecondary,
		"dr secondary":          consts.ReplicationDRSecondary,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", map[string]any{"rotation_period": "1d"})
			w.clock.advance(10 * day)
			w.sys.ReplicationStateVal = state
			writes := len(w.storage.writes())
			w.start()
			w.tick()
			if w.remote.count != 1 || len(w.storage.writes()) != writes {
				t.Errorf("%d keys made, %d writes", w.remote.count, len(w.storage.writes())-writes)
			}
			if got := w.read("creds/k", nil)["version"]; got != 1 {
				t.Errorf("it does not serve reads: %v", got)
			}
		})
	}
}

func TestStorageThatFailsIsNotHammered(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", map[string]any{"rotation_period": "1d"})
	w.clock.advance(2 * day)
	w.storage.setFault(func(op, key string, after bool) error {
		if op == "put" && key == "key/k" {
			return errCrash
		}
		return nil
	})
	before := len(w.storage.writes())
	w.tick()
	if n := len(w.storage.writes()) - before; n > 4 {
		t.Errorf("%d writes in one tick", n)
	}
	w.storage.setFault(nil)
	w.pass(pauseAfterError + time.Second)
	if v := w.version("k"); v != 2 {
		t.Errorf("version %d after storage is back", v)
	}
}

// BenchmarkIdleTick is what a tick costs while nothing is due, at two sizes of
// the mount; the goal is under a millisecond at 100,000.
func BenchmarkIdleTick(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprintf("%d keys", n), func(b *testing.B) {
			w := bigWorld(b, n)
			b.ResetTimer()
			for b.Loop() {
				w.b.tick(context.Background())
			}
		})
	}
}

func TestIdleTickAndStartAt100000Keys(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	w := bigWorld(t, 100_000)
	started := time.Now()
	w.start()
	// Some 100 ms; a start that reads every key takes minutes at a real Vault.
	took := time.Since(started)
	if took > time.Minute {
		t.Errorf("a start took %s", took)
	}
	w.b.tick(context.Background())
	// The fastest of many: whatever else the machine does, one of them had it
	// for itself.
	fastest := time.Hour
	for range 1000 {
		started = time.Now()
		w.b.tick(context.Background())
		fastest = min(fastest, time.Since(started))
	}
	t.Logf("start: %s, idle tick: %s", took, fastest)
	if fastest > time.Millisecond {
		t.Errorf("an idle tick took %s", fastest)
	}
	if got := len(w.b.index.list("app/", "", 0)); got != 100 {
		t.Errorf("the folder has %d entries, want 100", got)
	}
	if got := w.read("creds/app/99/99999", nil)["version"]; got != 1 {
		t.Errorf("version %v", got)
	}
}

// bigWorld has n keys, written as the engine writes them, but not through the
// API, which would take long.
func bigWorld(tb testing.TB, n int) *world {
	tb.Helper()
	w := newWorld(tb, remoteCaps())
	w.localKey("app/x", nil)
	template, err := (store{w.storage}).key(context.Background(), "app/x")
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.do(logical.DeleteOperation, "keys/app/x", map[string]any{"revoke_now": true}); err != nil {
		tb.Fatal(err)
	}
	shards := map[int][]packedEntry{}
	due := w.clock.Wall().Add(80 * day).Unix()
	for i := range n {
		rec := template.clone()
		rec.Name, rec.UID = fmt.Sprintf("app/%02d/%d", i%100, i), fmt.Sprintf("%012x", i)
		if err := (store{w.storage}).putKey(context.Background(), rec); err != nil {
			tb.Fatal(err)
		}
		s := shardOf(rec.Name)
		shards[s] = append(shards[s], packedEntry{Name: rec.Name, Provider: "gen", RotateAt: due, Condition: condition.OK, Wanted: due})
	}
	for s, entries := range shards {
		if err := (store{w.storage}).putShard(context.Background(), s, entries); err != nil {
			tb.Fatal(err)
		}
	}
	if err := (store{w.storage}).put(context.Background(), cleanKey, true); err != nil {
		tb.Fatal(err)
	}
	w.storage.puts = nil
	w.b = nil
	w.start()
	return w
}
