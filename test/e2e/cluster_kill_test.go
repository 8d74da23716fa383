package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"strongroom.example/test/keyservice"
	"strongroom.example/test/vaulttest"
)

// losses are the ways in which a cluster loses its leader, in turn: of five,
// three are kills.
var losses = []string{"kill", "step-down", "kill", "freeze", "kill"}

// leaderLosses is how often: some in make test, all in make soak.
func leaderLosses() int {
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		return 50
	}
	return len(losses)
}

// dueAfter is the rotation period of the keys that fall due during the
// campaign, and dueAtLeast what the jitter leaves of it.
const (
	dueAfter   = 30 * time.Second
	dueAtLeast = dueAfter * 9 / 10
)

// The leader of three nodes is lost, over and over, while clients of every node
// rotate and read: killed with SIGKILL, asked to step down, or hung and come
// back when another leads. The next leader's engine goes on where the last one
// was: what a client was given works as long as it was told, each key has
// exactly one current version, the service has no key alive that the engine does
// not know, and what falls due meanwhile is rotated, once.
func TestClusterLosesItsLeader(t *testing.T) {
	cluster := vaulttest.NewCluster(t, 3)
	leader := cluster.Leader()
	leader.MountAPIKeys(t)
	c := &campaign{t: t, s: leader, service: keyservice.New(t), promised: map[string]time.Time{}}
	c.setUp()
	c.nodes = cluster.Nodes
	due := &campaign{t: t, s: leader, service: keyservice.New(t), promised: map[string]time.Time{}}
	began := due.setUpDue()
	due.nodes = cluster.Nodes

	seed := uint64(time.Now().UnixNano())
	t.Logf("random seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	n := leaderLosses()
	count := map[string]int{}
	without := map[string]time.Duration{}
	for i := range n {
		how := losses[i%len(losses)]
		count[how]++
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for worker := range 4 {
			load.Go(func() { c.rotateUntil(ctx, worker) })
		}
		for range cluster.Nodes {
			load.Go(func() { c.readUntil(ctx) })
		}
		load.Go(func() { due.readUntil(ctx) })
		<-time.After(time.Duration(rnd.Int64N(int64(700 * time.Millisecond))))
		without[how] += c.loseLeader(cluster, how, func() { stop(); load.Wait() })
		stop()
		load.Wait()
		c.assertPromises(fmt.Sprintf("after loss %d (%s)", i+1, how))
		due.assertPromises(fmt.Sprintf("after loss %d (%s)", i+1, how))
	}
	cluster.Settle()
	awaitOnlyEngine(t, cluster)
	minted := c.service.Minted()
	due.awaitDue(began)
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		c.assertSettled()
		due.assertSettled()
	}
	for _, each := range []*campaign{c, due} {
		each.awaitLookedFor()
		each.assertKnown(time.Now().Add(4 * time.Minute))
		each.assertPromises("in the end")
	}
	t.Logf("%d losses of the leader; %d keys minted at the service meanwhile; %d values were given to readers", n, minted, len(c.promised))
	for how, k := range count {
		t.Logf("%d times %s: %v on average until another led", k, how, (without[how] / time.Duration(k)).Round(time.Millisecond))
	}
	if minted < n {
		t.Errorf("%d keys for %d losses: the campaign did not rotate", minted, n)
	}
}

// loseLeader has the cluster lose its leader and returns when all nodes are back
// and one leads; it gives the time until another led. quiet ends the load.
func (c *campaign) loseLeader(cluster *vaulttest.Cluster, how string, quiet func()) time.Duration {
	c.t.Helper()
	leader := cluster.Leader()
	began := time.Now()
	var without time.Duration
	switch how {
	case "kill":
		leader.Down(c.t)
		cluster.Leader(leader)
		without = time.Since(began)
		leader.Up(c.t)
	case "step-down":
		if err := vaulttest.API(leader.Root).Sys().StepDownWithContext(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
		cluster.Leader(leader)
		without = time.Since(began)
	case "freeze":
		// A request that a hung leader has in its queue is answered from memory
		// when it comes back, before it notices what it has missed: that is
		// Vault's, and so nobody asks it here.
		quiet()
		leader.Freeze(c.t)
		next := cluster.Leader(leader)
		without = time.Since(began)
		l := vaulttest.API(next.Client(c.t, next.RootToken)).Logical()
		for _, name := range c.names {
			// Refused where it is in recovery, or where the freeze has cut it off.
			_, _ = l.WriteWithContext(c.t.Context(), "apikeys/rotate/"+name, nil)
		}
		leader.Thaw(c.t)
	}
	cluster.Settle()
	return without
}

// setUpDue makes keys that fall due, and gives the time before the first.
func (c *campaign) setUpDue() time.Time {
	c.t.Helper()
	c.write("apikeys/providers/due", map[string]any{
		"type": "http", "settings": c.service.Settings(),
		"credential": map[string]any{"token": keyservice.Credential}, "max_rotations_per_minute": 0,
	})
	began := time.Now()
	for i := range 4 {
		name := fmt.Sprintf("due/key-%d", i)
		c.names = append(c.names, name)
		c.write("apikeys/keys/"+name, map[string]any{
			"provider": "due", "rotation_period": dueAfter.String(), "grace_period": (dueAfter / 2).String(),
		})
	}
	return began
}

// state reads the engine's word on every key.
func (c *campaign) state() (open string, keys map[string]any) {
	c.t.Helper()
	l := c.client()
	s, err := l.ReadWithDataWithContext(c.t.Context(), "apikeys/status", map[string][]string{"all": {"true"}})
	if err != nil || s == nil {
		c.t.Fatalf("status: %v, %v", s, err)
	}
	keys, _ = s.Data["keys"].(map[string]any)
	return fmt.Sprint(s.Data["open_intents"]), keys
}

// recovering says whether the engine has looked for what a lost rotation may
// have left, found nothing, and waits to look once more.
func recovering(key any) bool {
	k, _ := key.(map[string]any)
	f, _ := k["rotation_failure"].(map[string]any)
	return f["operation"] == "recover" && f["kind"] == "uncertain"
}

// awaitDue waits until each key has fallen due and was rotated. None was more
// often than it fell due.
func (c *campaign) awaitDue(began time.Time) {
	c.t.Helper()
	deadline := time.Now().Add(4 * time.Minute)
	for {
		_, keys := c.state()
		most := 1 + int(time.Since(began)/dueAtLeast)
		waiting := 0
		for _, name := range c.names {
			k, _ := keys[name].(map[string]any)
			var version int
			if _, err := fmt.Sscan(fmt.Sprint(k["version"]), &version); err != nil {
				c.t.Fatalf("%s: %v", name, keys[name])
			}
			if version > most {
				c.t.Fatalf("%s is at version %d after %v, at most %d were due", name, version, time.Since(began), most)
			}
			if version < 2 && !recovering(k) {
				waiting++
			}
		}
		if waiting == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%d keys are due and were not rotated: %v", waiting, keys)
		}
		<-time.After(250 * time.Millisecond)
	}
}

// awaitLookedFor waits until the engine has looked at the service for every
// rotation that a lost leader may have begun. (Where it has found nothing, it
// looks again after a minute, which only the long form waits for.)
func (c *campaign) awaitLookedFor() {
	c.t.Helper()
	deadline := time.Now().Add(4 * time.Minute)
	for {
		open, keys := c.state()
		looked := 0
		for _, k := range keys {
			if recovering(k) {
				looked++
			}
		}
		if fmt.Sprint(looked) == open {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s intents are open, %d were looked for: %v", open, looked, keys)
		}
		<-time.After(250 * time.Millisecond)
	}
}

// awaitOnlyEngine waits until the leader alone runs the engine: a node that has
// lost the lead unloads it as soon as it notices.
func awaitOnlyEngine(t *testing.T, c *vaulttest.Cluster) {
	t.Helper()
	deadline := time.Now().Add(vaulttest.Patience)
	for {
		leader, running := c.Leader(), 0
		for _, s := range c.Nodes {
			running += len(s.Engines(t))
		}
		if running == 1 && len(leader.Engines(t)) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d plugin processes run, the leader's are %v", running, leader.Engines(t))
		}
		<-time.After(50 * time.Millisecond)
	}
}
