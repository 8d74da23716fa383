package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/test/keyservice"
	"strongroom.example/test/vaulttest"
)

// kills is how often Vault is killed: some in make test, all in make soak.
func kills() int {
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		return 200
	}
	return 12
}

// campaign is a Vault that is killed while it rotates keys at a service that
// survives it.
type campaign struct {
	t       *testing.T
	s       *vaulttest.Server
	nodes   []*vaulttest.Server // of a cluster, of which clients take each in turn
	service *keyservice.Service
	names   []string

	mu       sync.Mutex
	promised map[string]time.Time // key values that readers got, and until when they may use them
	clients  int
}

// The real Vault with the real plugin is killed with SIGKILL at random points
// of rotations. Whatever a client was given works for as long as it was told;
// in the end each key has exactly one current version, and the service has no
// key alive that the engine does not know.
func TestKillCampaign(t *testing.T) {
	c := &campaign{t: t, s: vaulttest.New(t), service: keyservice.New(t), promised: map[string]time.Time{}}
	c.s.MountAPIKeys(t)
	c.setUp()

	seed := uint64(time.Now().UnixNano())
	t.Logf("random seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	n := kills()
	var down time.Duration
	for i := range n {
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for worker := range 4 {
			load.Go(func() { c.rotateUntil(ctx, worker) })
		}
		load.Go(func() { c.readUntil(ctx) })
		// The point of the kill: some rotations take 5 ms, a start takes 500 ms.
		<-time.After(time.Duration(rnd.Int64N(int64(700 * time.Millisecond))))
		killed := time.Now()
		c.s.KillAndWait(t)
		down += time.Since(killed)
		stop()
		load.Wait()
		c.assertPromises(fmt.Sprintf("after kill %d", i+1))
	}
	minted := c.service.Minted()
	c.assertSettled()
	t.Logf("%d kills; %d keys minted at the service meanwhile; %d values were given to readers; %v on average from kill to unsealed",
		n, minted, len(c.promised), (down / time.Duration(n)).Round(time.Millisecond))
	if minted < n {
		t.Errorf("%d keys for %d kills: the campaign did not rotate", minted, n)
	}
}

func (c *campaign) setUp() {
	c.write("apikeys/providers/service", map[string]any{
		"type": "http", "settings": c.service.Settings(),
		"credential": map[string]any{"token": keyservice.Credential}, "max_rotations_per_minute": 0,
	})
	for i := range 8 {
		name := fmt.Sprintf("app/production/key-%d", i)
		c.names = append(c.names, name)
		// Short enough that revocations are cut off too, and that a key does
		// not run into the limit of versions that may be alive.
		def := map[string]any{"provider": "service", "grace_period": []string{"6s", "30s"}[i%2]}
		c.write("apikeys/keys/"+name, def)
	}
}

func (c *campaign) write(path string, data map[string]any) {
	c.t.Helper()
	if _, err := vaulttest.API(c.s.Root).Logical().WriteWithContext(c.t.Context(), path, data); err != nil {
		c.t.Fatal(err)
	}
}

// client has no retries: the load goes on, whatever one request does.
func (c *campaign) client() *api.Logical {
	s := c.s
	if len(c.nodes) > 0 {
		c.mu.Lock()
		s = c.nodes[c.clients%len(c.nodes)]
		c.clients++
		c.mu.Unlock()
	}
	cl := vaulttest.API(s.Client(c.t, c.s.RootToken))
	cl.SetMaxRetries(0)
	cl.SetClientTimeout(time.Minute)
	return cl.Logical()
}

func (c *campaign) rotateUntil(ctx context.Context, worker int) {
	l := c.client()
	for i := worker; ctx.Err() == nil; i++ {
		// Refused while a key is in recovery, or Vault is down: both are the
		// normal course of this test.
		_, err := l.WriteWithContext(ctx, "apikeys/rotate/"+c.names[i%len(c.names)], nil)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

func (c *campaign) readUntil(ctx context.Context) {
	l := c.client()
	for i := 0; ctx.Err() == nil; i++ {
		asked := time.Now()
		s, err := l.ReadWithContext(ctx, "apikeys/creds/"+c.names[i%len(c.names)])
		if err != nil || s == nil {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
			continue
		}
		seconds, err := s.Data["cache_ttl"].(json.Number).Int64()
		value, ok := s.Data["key"].(string)
		if err != nil || !ok {
			c.t.Errorf("a read without key or cache_ttl: %v", err)
			return
		}
		c.mu.Lock()
		c.promised[value] = asked.Add(time.Duration(seconds) * time.Second)
		c.mu.Unlock()
	}
}

// assertPromises checks that every value that a reader may still use works.
func (c *campaign) assertPromises(when string) {
	c.t.Helper()
	alive := c.service.Alive()
	c.mu.Lock()
	defer c.mu.Unlock()
	for value, until := range c.promised {
		if _, ok := alive[value]; !ok && time.Now().Before(until) {
			c.t.Errorf("%s: a key is dead that was promised until %v", when, until)
		}
	}
}

// assertSettled waits until recovery is through and compares what the engine
// knows with what is alive.
func (c *campaign) assertSettled() {
	c.t.Helper()
	deadline := time.Now().Add(4 * time.Minute)
	for {
		s, err := c.client().ReadWithContext(c.t.Context(), "apikeys/status")
		if err == nil && fmt.Sprint(s.Data["open_intents"]) == "0" {
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("recovery is not through: %v, %v", s, err)
		}
		<-time.After(250 * time.Millisecond)
	}
	c.assertKnown(deadline)
	c.assertPromises("in the end")
}

// assertKnown compares what the engine knows with what is alive.
func (c *campaign) assertKnown(deadline time.Time) {
	c.t.Helper()
	// What is in its grace ends by itself: between two looks, one side may know of
	// it before the other does.
	for wrong := c.differences(); len(wrong) > 0; wrong = c.differences() {
		if time.Now().After(deadline) {
			c.t.Error(strings.Join(wrong, "\n"))
			break
		}
		<-time.After(250 * time.Millisecond)
	}
}

// differences are what the engine and the service know of each other's keys
// that does not fit.
func (c *campaign) differences() (wrong []string) {
	c.t.Helper()
	known := map[string]bool{}
	for _, name := range c.names {
		s, err := c.client().ReadWithContext(c.t.Context(), "apikeys/versions/"+name)
		if err != nil || s == nil {
			c.t.Fatalf("versions of %s: %v", name, err)
		}
		current := 0
		for _, v := range versionsOf(c.t, s) {
			switch v.State {
			case "current":
				current++
				known[v.ProviderID] = true
			case "grace", "pending":
				known[v.ProviderID] = true
			}
		}
		if current != 1 {
			c.t.Errorf("%s has %d current versions", name, current)
		}
		read, err := c.client().ReadWithContext(c.t.Context(), "apikeys/creds/"+name)
		if err != nil {
			c.t.Fatal(err)
		}
		if _, ok := c.service.Alive()[read.Data["key"].(string)]; !ok {
			c.t.Errorf("%s: the current key does not work", name)
		}
	}
	for _, k := range c.service.Alive() {
		if !known[k.ID] {
			wrong = append(wrong, fmt.Sprintf("orphan at the service: %s, made as %s", k.ID, k.Name))
		}
		delete(known, k.ID)
	}
	for id := range known {
		wrong = append(wrong, fmt.Sprintf("the engine counts %s as alive, the service does not", id))
	}
	return wrong
}

type versionInfo struct {
	State      string `json:"state"`
	ProviderID string `json:"provider_key_id"`
}

func versionsOf(t *testing.T, s *api.Secret) map[string]versionInfo {
	t.Helper()
	text, err := json.Marshal(s.Data["versions"])
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]versionInfo
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatalf("versions have another shape: %v in %s", err, text)
	}
	if len(out) == 0 {
		t.Fatalf("no versions in %s", text)
	}
	return out
}
