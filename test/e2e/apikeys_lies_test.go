package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/config/machine"
	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/liar"
	"strongroom.example/test/vaulttest"
)

// hoursInMinutes is by how much lies are sooner here than in the engine's own tests,
// which have a clock of their own.
const hoursInMinutes = 60

// liesFor is how long services lie: some rounds in make test, minutes in make soak.
func liesFor() (rounds int, soak bool) {
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		return 120, true
	}
	return 6, false
}

// lyingService is one service with its keys, and what readers were told of them.
type lyingService struct {
	*liar.Service
	name     string
	caps     provider.Capabilities
	keys     []*liedKey
	history  liar.Lies // all its lies so far at once
	tellable bool      // it keeps to lies whose traces can be told from what others have
}

type liedKey struct {
	name string
	svc  *lyingService

	// verbs that break promises on purpose hold it alone, readers together.
	reading  sync.RWMutex
	mu       sync.Mutex
	promises []promised
	asks     int // how often something was done that may ask the service for a key
}

// promised is what one read has told a client.
type promised struct {
	value        string
	asked, until time.Time
}

// liesCampaign is a real Vault with services that lie.
type liesCampaign struct {
	t        *testing.T
	s        *vaulttest.Server
	client   *api.Logical // without retries: what one request does may fail
	services []*lyingService
	keys     []*liedKey

	mu     sync.Mutex
	verbs  map[string]int
	reads  int
	faults []string
}

// Services lie, alone and in combinations that are drawn at random, while verbs are
// drawn at random too, and Vault and the plugin's process are killed and the plugin
// is reloaded. Whatever a client was told holds, no key of others is touched, there
// is no storm of keys, and where a service can be listed nothing is left at it.
func TestKillCampaignOfLies(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("STRONGROOM_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatalf("STRONGROOM_SEED=%q is no number: %v", text, err)
		}
	}
	t.Logf("STRONGROOM_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	c := newLiesCampaign(t)
	rounds, soak := liesFor()
	began := time.Now()
	events := map[string]int{}
	for round := range rounds {
		for _, svc := range c.services {
			svc.SetLies(svc.draw(rnd))
		}
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		for worker := range 3 {
			load.Go(func() { c.doUntil(ctx, rand.New(rand.NewPCG(seed, uint64(round*10+worker+1)))) })
		}
		for reader := range 2 {
			load.Go(func() { c.readUntil(ctx, reader) })
		}
		<-time.After(time.Second + time.Duration(rnd.Int64N(int64(2*time.Second)))) // the point of what happens next
		event := []string{"plugin killed", "plugin reloaded", "Vault killed"}[round%3]
		events[event]++
		c.happen(event)
		stop()
		load.Wait()
		c.check()
		if len(c.faults) > 0 {
			break
		}
	}
	lied := time.Since(began)
	c.settle(soak)

	creates, most, bound := 0, 0, 0
	for _, svc := range c.services {
		_, one := svc.MintsAnHour()
		creates, most = creates+svc.Creates(), max(most, one)
		for _, k := range svc.keys {
			bound = max(bound, k.asks)
		}
	}
	// What the engine asks for by itself is bounded; what hands ask for comes on top.
	if bound += liar.MaxMintsAnHour; most > bound {
		c.fault("%d creates of one key in an hour, at most %d were to be expected", most, bound)
	}
	orphans, deleted := c.orphans()
	for _, o := range deleted {
		t.Log(o)
	}
	for _, o := range orphans {
		c.fault("%s", o)
	}
	for _, svc := range c.services {
		if slices.ContainsFunc(c.faults, func(f string) bool { return strings.Contains(f, svc.name) }) {
			c.describe(svc)
		}
	}
	for i, f := range c.faults {
		if i == 20 {
			t.Errorf("and %d more", len(c.faults)-i)
			break
		}
		t.Error(f)
	}
	if t.Failed() {
		t.Logf("again: STRONGROOM_SEED=%d STRONGROOM_REAL=1 VAULT_BIN=$PWD/bin/vault go test -count=1 -v -run %s ./test/e2e", seed, t.Name())
	}
	told := 0
	for _, k := range c.keys {
		told += len(k.promises)
	}
	t.Logf("%d services, %d keys; %v of lies in %d rounds, %v; verbs %v; %d creates at the services, at most %d of one key in an hour (bound %d); "+
		"%d answers to readers, %d of them not broken on purpose; orphans where they can be told: %d, and %d of keys that were deleted under lies; faults: %d; conditions at the end: %v",
		len(c.services), len(c.keys), lied.Round(time.Second), rounds, events, c.verbs, creates, most, bound, c.reads, told, len(orphans), len(deleted), len(c.faults), c.conditions())
	if creates < rounds {
		t.Errorf("%d creates in %d rounds: the campaign did not rotate", creates, rounds)
	}
}

func newLiesCampaign(t *testing.T) *liesCampaign {
	c := &liesCampaign{t: t, s: vaulttest.New(t), verbs: map[string]int{}}
	c.s.MountAPIKeys(t)
	a := vaulttest.API(c.s.Root)
	a.SetMaxRetries(0)
	a.SetClientTimeout(time.Minute)
	c.client = a.Logical()
	all := liar.Services()
	for i, kind := range append(slices.Sorted(maps.Keys(all)), "list and test") {
		caps := all[kind]
		svc := &lyingService{Service: liar.New(caps, liar.Lies{}, time.Now), name: fmt.Sprintf("%s-%d", strings.ReplaceAll(kind, " ", "-"), i), caps: caps,
			tellable: caps.List && caps.Named && i < len(all)}
		srv := httptest.NewUnstartedServer(svc.Handler())
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.Start()
		t.Cleanup(srv.Close)
		if err := c.do("providers/"+svc.name, svc.definition(srv.URL)); err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			k := &liedKey{name: fmt.Sprintf("lies/%s/key-%d", svc.name, n), svc: svc}
			svc.keys, c.keys = append(svc.keys, k), append(c.keys, k)
			if err := c.define(k, n); err != nil {
				t.Fatal(err)
			}
		}
		c.services = append(c.services, svc)
	}
	return c
}

func (s *lyingService) definition(url string) map[string]any {
	return map[string]any{"type": "http", "settings": s.Settings(url),
		"credential": map[string]any{"token": liar.Credential}, "max_rotations_per_minute": 0}
}

// draw gives new lies: mostly one of the table, often two of them at once.
func (s *lyingService) draw(rnd *rand.Rand) liar.Lies {
	table := liar.Table()
	names := slices.Sorted(maps.Keys(table))
	for {
		l := table[names[rnd.IntN(len(names))]]
		if rnd.IntN(3) == 0 {
			l = l.And(table[names[rnd.IntN(len(names))]])
		}
		if l = l.Faster(hoursInMinutes); !s.tellable || liar.Tellable(s.caps, s.history.And(l)) {
			s.history = s.history.And(l)
			return l
		}
	}
}

func (c *liesCampaign) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := fmt.Sprintf(format, args...); !slices.Contains(c.faults, text) {
		c.faults = append(c.faults, text)
	}
}

func (c *liesCampaign) request(ctx context.Context, method, path string, data map[string]any) (map[string]any, error) {
	l, path := c.client, "apikeys/"+path
	switch method {
	case "read":
		s, err := l.ReadWithContext(ctx, path)
		if err != nil || s == nil {
			return nil, err
		}
		return s.Data, nil
	case "delete":
		params := map[string][]string{}
		for k, v := range data {
			params[k] = []string{fmt.Sprint(v)}
		}
		_, err := l.DeleteWithDataWithContext(ctx, path, params)
		return nil, err
	}
	s, err := l.WriteWithContext(ctx, path, data)
	if err != nil || s == nil {
		return nil, err
	}
	return s.Data, nil
}

func (c *liesCampaign) do(path string, data map[string]any) error {
	_, err := c.request(c.t.Context(), "write", path, data)
	return err
}

// define writes the nth definition of a key. Short graces, so that revocations are
// lied about too.
func (c *liesCampaign) define(k *liedKey, n int) error {
	k.mu.Lock()
	k.asks++
	k.mu.Unlock()
	return c.do("keys/"+k.name, map[string]any{"provider": k.svc.name, "rotation_period": "30d", "grace_period": []string{"6s", "15s", "40s"}[n%3]})
}

// breaking are the verbs that break promises on purpose.
var breaking = []string{"force", "compromised", "provider compromised", "delete now", "end a version"}

// do1 does a verb that is drawn at random. What is refused is refused.
func (c *liesCampaign) do1(rnd *rand.Rand) {
	k := c.keys[rnd.IntN(len(c.keys))]
	verb := "rotate"
	switch n := rnd.IntN(40); {
	case n < 5:
		verb = breaking[n]
	case n < 9:
		verb = []string{"delete", "import", "roll back", "trial"}[n-5]
	case n < 20:
		verb = "define"
	}
	keys := []*liedKey{k}
	if verb == "provider compromised" {
		keys = k.svc.keys
	}
	breaks := slices.Contains(breaking, verb)
	for _, one := range keys {
		one.mu.Lock()
		one.asks++
		one.mu.Unlock()
		if breaks {
			one.reading.Lock()
			defer one.reading.Unlock()
			defer func() {
				one.mu.Lock()
				defer one.mu.Unlock()
				one.promises = nil
			}()
		}
	}
	ctx := c.t.Context()
	switch verb {
	case "rotate":
		_, _ = c.request(ctx, "write", "rotate/"+k.name, nil)
	case "force":
		_, _ = c.request(ctx, "write", "rotate/"+k.name, map[string]any{"force": true})
	case "compromised":
		_, _ = c.request(ctx, "write", "rotate/"+k.name, map[string]any{"compromised": true})
	case "provider compromised":
		_, _ = c.request(ctx, "write", "providers/"+k.svc.name+"/rotate", map[string]any{"compromised": true})
	case "delete":
		_, _ = c.request(ctx, "delete", "keys/"+k.name, nil)
	case "delete now":
		_, _ = c.request(ctx, "delete", "keys/"+k.name, map[string]any{"revoke_now": true})
	case "define":
		_ = c.define(k, rnd.IntN(3))
	case "import":
		mine := k.svc.ByHand()
		_, _ = c.request(ctx, "write", "import/"+k.name, map[string]any{"key": mine.Value, "provider_key_id": mine.ID})
	case "end a version":
		_, _ = c.request(ctx, "delete", "versions/"+k.name, map[string]any{"version": 1 + rnd.IntN(6), "force": true})
	case "roll back":
		_, _ = c.request(ctx, "write", "rollback/"+k.name, map[string]any{"version": 1 + rnd.IntN(6)})
	case "trial":
		_, _ = c.request(ctx, "write", "providers/"+k.svc.name+"/trial", nil)
	}
	c.mu.Lock()
	c.verbs[verb]++
	c.mu.Unlock()
}

func (c *liesCampaign) doUntil(ctx context.Context, rnd *rand.Rand) {
	for ctx.Err() == nil {
		c.do1(rnd)
		pause(ctx, 20*time.Millisecond)
	}
}

func (c *liesCampaign) readUntil(ctx context.Context, first int) {
	for i := first; ctx.Err() == nil; i++ {
		c.read(ctx, c.keys[i%len(c.keys)])
		pause(ctx, 5*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// read is a client that keeps to what it is told.
func (c *liesCampaign) read(ctx context.Context, k *liedKey) {
	k.reading.RLock()
	defer k.reading.RUnlock()
	asked := time.Now()
	data, err := c.request(ctx, "read", "creds/"+k.name, nil)
	if err != nil || data == nil {
		return
	}
	value, _ := data["key"].(string)
	seconds, err := json.Number(fmt.Sprint(data["cache_ttl"])).Int64()
	if err != nil || value == "" {
		c.fault("%s: a read without key or cache_ttl: %v", k.name, err)
		return
	}
	if seconds > 0 { // else nothing was promised: its successor's birth may have ended it
		k.mu.Lock()
		k.promises = append(k.promises, promised{value, asked, asked.Add(time.Duration(seconds) * time.Second)})
		k.mu.Unlock()
	}
	c.mu.Lock()
	c.reads++
	c.mu.Unlock()
}

// happen kills or reloads, and returns when the engine answers again.
func (c *liesCampaign) happen(event string) {
	c.t.Helper()
	switch event {
	case "Vault killed":
		c.s.KillAndWait(c.t)
	case "plugin killed":
		pid, err := vaulttest.ChildNamed(c.s.Process.PID(), machine.PluginName)
		if err != nil {
			return // it is being started
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			c.t.Fatal(err)
		}
	case "plugin reloaded":
		if err := c.s.Root.ReloadMount(c.t.Context(), "apikeys"); err != nil {
			c.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), vaulttest.Patience)
	defer cancel()
	for {
		if _, err := c.request(ctx, "read", "status", nil); err == nil {
			return
		} else if ctx.Err() != nil {
			c.t.Fatalf("%s, and the engine does not come back: %v", event, err)
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// check holds what clients were told against what was. A promise is counted from
// before it was asked for, so it is held against a moment no later than it ends.
func (c *liesCampaign) check() {
	for _, svc := range c.services {
		if touched := svc.Touched(); len(touched) > 0 {
			c.fault("%s: keys of others were revoked: %v", svc.name, touched)
		}
		truth := map[string]liar.Key{}
		for _, k := range svc.Keys() {
			truth[k.Value] = k
		}
		for _, key := range svc.keys {
			key.mu.Lock()
			for _, p := range key.promises {
				k, there := truth[p.value]
				switch {
				case !there:
					c.fault("%s: a value that nobody has made is served", key.name)
				case !k.Alive && k.ByEngine && k.Ended.Before(p.until):
					c.fault("%s: %s was promised for %v, and the engine has ended it %v before that was over; the service's lies so far: %+v",
						key.name, k.ID, p.until.Sub(p.asked), p.until.Sub(k.Ended), svc.history)
				case !k.Told.IsZero() && p.asked.After(k.Told):
					c.fault("%s: %s is served past the end that the service told", key.name, k.ID)
				case !k.Told.IsZero() && p.until.After(k.Told):
					c.fault("%s: %s is promised beyond the end that the service told", key.name, k.ID)
				}
			}
			key.mu.Unlock()
		}
	}
}

// settle lets all services be honest until nothing is left that the engine does not
// know. In make soak it may come to that by itself first: a sweep looks a minute after
// each try for a key, and where it has found something after an hour. A comparison
// that somebody asks for finds the rest.
func (c *liesCampaign) settle(soak bool) {
	c.t.Helper()
	for _, svc := range c.services {
		svc.SetLies(liar.Lies{})
	}
	if soak {
		c.until(3*time.Minute, func() bool { left, _ := c.orphans(); return len(left) == 0 })
	}
	for _, k := range c.keys {
		k.asks++
	}
	for done := false; !done; {
		data, err := c.request(c.t.Context(), "write", "reconcile", nil)
		if err != nil {
			c.t.Fatalf("reconcile: %v", err)
		}
		done, _ = data["done"].(bool)
	}
	c.until(5*time.Minute, func() bool { left, _ := c.orphans(); return len(left) == 0 })
	c.check()
}

// until reads on as clients do until something holds, or the time is over.
func (c *liesCampaign) until(limit time.Duration, holds func() bool) {
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	for ctx.Err() == nil && !holds() {
		for _, k := range c.keys {
			c.read(ctx, k)
		}
		pause(ctx, time.Second)
	}
}

// orphans are keys that are alive at a service, that the engine has asked for, and
// that it does not know, where it could: of keys that it has, and of keys that were
// deleted while the service lied, of which it has looked for a last time.
func (c *liesCampaign) orphans() (left, deleted []string) {
	c.t.Helper()
	for _, svc := range c.services {
		if !svc.tellable {
			continue
		}
		known, here := map[string]bool{}, map[string]bool{}
		for _, key := range svc.keys {
			data, err := c.request(c.t.Context(), "read", "keys/"+key.name, nil)
			if err != nil {
				c.t.Fatal(err)
			}
			if u, ok := data["uncertain"].(map[string]any); ok {
				known[fmt.Sprint(u["name"])] = true // a person is told where to look
			}
			versions, err := c.request(c.t.Context(), "read", "versions/"+key.name, nil)
			if err != nil {
				c.t.Fatal(err)
			}
			of, _ := versions["versions"].(map[string]any)
			for _, v := range of {
				v := v.(map[string]any)
				if v["state"] != "revoked" {
					known[fmt.Sprint(v["provider_key_id"])] = true
				}
				here[liar.Identity(fmt.Sprint(v["name"]))] = true
			}
		}
		for _, k := range svc.Keys() {
			if !k.Alive || !strings.HasPrefix(k.Asked, "sr-") || known[k.ID] || known[k.Asked] {
				continue
			}
			text := fmt.Sprintf("%s: %s is alive, was asked for as %s at %s under %+v, and nobody knows it", svc.name, k.ID, k.Asked, k.Created.Format(time.TimeOnly), k.Under)
			if here[liar.Identity(k.Asked)] {
				left = append(left, text)
			} else {
				deleted = append(deleted, text)
			}
		}
	}
	return left, deleted
}

// describe logs what the engine and a service say of its keys.
func (c *liesCampaign) describe(svc *lyingService) {
	c.t.Logf("%s, which lied %+v, was called: %s", svc.name, svc.history, strings.Join(svc.Calls(), "; "))
	for _, k := range svc.Keys() {
		k.Under = liar.Lies{}
		c.t.Logf("truth: %+v", k)
	}
	for _, key := range svc.keys {
		for _, kind := range []string{"keys/", "versions/"} {
			data, err := c.request(c.t.Context(), "read", kind+key.name, nil)
			text, _ := json.Marshal(data)
			c.t.Logf("%s%s: %s %v", kind, key.name, text, err)
		}
	}
	report, err := c.request(c.t.Context(), "read", "reconcile", nil)
	c.t.Logf("reconcile: %v %v", report, err)
}

// conditions are what the engine says of the keys.
func (c *liesCampaign) conditions() map[string]int {
	out := map[string]int{}
	for _, k := range c.keys {
		data, err := c.request(c.t.Context(), "read", "keys/"+k.name, nil)
		switch {
		case err != nil:
			c.t.Error(err)
		case data == nil:
			out["deleted"]++
		default:
			out[fmt.Sprint(data["condition"])]++
		}
	}
	return out
}
