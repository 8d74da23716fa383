package apikeys

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/liar"
)

// told is what a client was promised, by a clock that nobody sets.
type told struct {
	value string
	until time.Duration
}

// hostile is a life with a service that lies, and what must hold in it.
type hostile struct {
	*world
	liar     *liar.Service
	keys     []string
	promises []told
	faults   []string
}

func newHostile(t testing.TB, caps provider.Capabilities, l liar.Lies) *hostile {
	h := &hostile{world: newWorld(t, remoteCaps()), keys: []string{"app/key", "gone"}}
	began := h.clock.Wall()
	h.liar = liar.New(caps, l, func() time.Time { return began.Add(h.clock.Monotonic()) })
	h.others = map[string]provider.Factory{"liar": h.liar.Factory}
	h.start()
	h.write("providers/svc", map[string]any{"type": "liar", "max_rotations_per_minute": 0})
	return h
}

func (h *hostile) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(h.faults, text) {
		h.faults = append(h.faults, text)
	}
}

// watch is readers, and a look at how many keys the engine asks for by itself.
func (h *hostile) watch() {
	h.readers()
	if n, _ := h.liar.MintsAnHour(); n > liar.MaxMintsAnHour {
		h.fault("%d creates in an hour", n)
	}
}

// readers read every key, as clients that keep to what they are told, and hold
// what they have been told so far against the truth.
func (h *hostile) readers() {
	now, mono := h.clock.Wall(), h.clock.Monotonic()
	for _, name := range h.keys {
		resp, err := h.do(opRead, "creds/"+name, nil)
		if err != nil || resp == nil {
			continue
		}
		value, ttl := resp.Data["key"].(string), time.Duration(resp.Data["cache_ttl"].(int64))*time.Second
		k, until := h.liar.Truth(value), now.Add(ttl)
		switch {
		case k == nil && !strings.HasPrefix(value, "value-"):
			continue // Vault has made it
		case k == nil:
			h.fault("a value that nobody has made is served")
			continue
		case k.ByEngine && !k.Alive && !until.After(now):
			// Its successor's birth ended it, whose answer was lost: nothing is promised.
		case k.ByEngine && !k.Alive:
			h.fault("version %v is served, and the engine has ended it", resp.Data["version"])
		case !k.Told.IsZero() && !now.Before(k.Told):
			h.fault("version %v is served past the end that the service told", resp.Data["version"])
		case !k.Told.IsZero() && until.After(k.Told):
			h.fault("version %v is promised beyond the end that the service told", resp.Data["version"])
		}
		h.promises = append(h.promises, told{value, mono + ttl})
	}
	h.promises = slices.DeleteFunc(h.promises, func(p told) bool {
		if mono >= p.until {
			return true
		}
		if k := h.liar.Truth(p.value); k != nil && !k.Alive && k.ByEngine {
			h.fault("%s was promised, and the engine has ended it", p.value)
			return true
		}
		return false
	})
	if touched := h.liar.Touched(); len(touched) > 0 {
		h.fault("keys of others were revoked: %v", touched)
	}
}

func (h *hostile) go_(d, step time.Duration) {
	for ; d > 0; d -= step {
		h.pass(min(d, step))
		h.watch()
	}
}

// life is what happens to two keys; each step tolerates failure.
func (h *hostile) life() []func() {
	write := func(path string, data map[string]any) { _, _ = h.do(logical.UpdateOperation, path, data) }
	def := map[string]any{"provider": "svc", "rotation_period": "30d", "grace_period": "1d"}
	return []func(){
		func() { write("keys/app/key", maps.Clone(def)) },
		func() { write("keys/gone", maps.Clone(def)) },
		func() { h.go_(2*time.Hour, 10*time.Minute) },
		func() { write("rotate/app/key", nil) },
		func() { h.go_(26*time.Hour, time.Hour) }, // version 1 is ended
		func() { _, _ = h.do(opDelete, "keys/gone", nil) },
		func() { h.go_(30*day, 12*time.Hour) }, // it rotates by itself
		func() { h.go_(4*time.Hour, 5*time.Minute) },
		func() { write("rotate/app/key", map[string]any{"compromised": true}); h.promises = nil },
		func() { h.go_(2*time.Hour, 5*time.Minute) },
	}
}

// recover lets a service be honest for as long as every retry may take.
func (h *hostile) recover() {
	h.liar.SetLies(liar.Lies{})
	h.go_(4*time.Hour, 5*time.Minute)
	h.go_(4*day, 3*time.Hour)
}

// outcome is how it ended: "well", or the words that say that it did not.
func (h *hostile) outcome() string {
	known := map[string]bool{}
	said := map[string]bool{}
	for _, name := range h.keys {
		resp, err := h.do(opRead, "keys/"+name, nil)
		if err != nil {
			h.fault("keys/%s: %v", name, err)
		}
		if err != nil || resp == nil {
			continue
		}
		condition := fmt.Sprint(resp.Data["condition"])
		if u, ok := resp.Data["uncertain"].(map[string]any); ok {
			known[fmt.Sprint(u["name"])] = true // a person is told where to look
			condition = "uncertain"
		}
		if condition != "ok" {
			said["`"+condition+"`"] = true
		}
		for _, v := range h.read("versions/"+name, nil)["versions"].(map[string]any) {
			if v := v.(map[string]any); v["state"] != "revoked" {
				known[fmt.Sprint(v["provider_key_id"])] = true
			}
		}
		creds, err := h.do(opRead, "creds/"+name, nil)
		if condition != "ok" {
			continue
		}
		if err != nil || creds == nil {
			h.fault("it says ok, and cannot be read: %v", err)
			continue
		}
		k := h.liar.Truth(creds.Data["key"].(string))
		if k == nil && !strings.HasPrefix(creds.Data["key"].(string), "value-") {
			continue
		}
		if k == nil || k.ByEngine && !k.Alive {
			h.fault("it says ok, and its current version is dead")
		} else if !k.Alive {
			said["dead, and not noticed"] = true
		}
	}
	for _, k := range h.liar.Keys() {
		if k.Alive && k.Asked != "" && !known[k.ID] && !known[k.Asked] {
			said["alive, and not known"] = true
		}
	}
	if len(said) == 0 {
		return "well"
	}
	return strings.Join(slices.Sorted(maps.Keys(said)), ", ")
}

// live lives the life, is interrupted at point n (0: not), and recovers with an
// honest service. single: the point fails once, as a network does; else the
// process is gone. It tells whether the point was reached.
func (h *hostile) live(n int, single bool) (reached bool, during, after string) {
	cr := &crasher{at: n, single: single}
	h.storage.setFault(cr.storage)
	h.liar.SetPoint(cr.service)
	for _, step := range h.life() {
		step()
		if cr.isDead() {
			break
		}
		h.watch()
	}
	h.storage.setFault(nil)
	h.liar.SetPoint(nil)
	if n > 0 && !cr.hit() {
		return false, "", ""
	}
	if cr.isDead() {
		h.start()
		h.watch()
	}
	during = h.outcome()
	h.recover()
	return true, during, h.outcome()
}

// columns are the services that docs/providers.md shows, under its headings.
func columns() []string { return []string{"list and test", "test", "neither"} }

// No promise is broken by the engine, no key of others is touched, no storm comes
// of it, and what can be listed is left by nobody: whatever a service does. How
// it ends when the service is honest again is a row of docs/providers.md.
func TestLies(t *testing.T) {
	var rows []string
	for i, name := range slices.Sorted(maps.Keys(liar.Table())) {
		if i%shorter(1, 6) != 0 {
			continue
		}
		ends := map[string]string{}
		for svc, caps := range liar.Services() {
			if testing.Short() && !slices.Contains(columns(), svc) {
				continue
			}
			h := newHostile(t, caps, liar.Table()[name])
			_, _, ends[svc] = h.live(0, false)
			for _, fault := range h.faults {
				t.Errorf("%s, %s: %s", svc, name, fault)
			}
			if liar.Tellable(caps, liar.Table()[name]) && strings.Contains(ends[svc], "not known") {
				t.Errorf("%s, %s: a key is alive that nobody knows, and the service lists it: %s", svc, name, ends[svc])
			}
		}
		row := "| " + name
		for _, svc := range columns() {
			row += " | " + ends[svc]
		}
		rows = append(rows, row+" |")
	}
	if t.Failed() {
		return // the rows are not worth a look
	}
	page, err := os.ReadFile("../docs/providers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "<!-- table: lies -->\n")
	table, _, _ = strings.Cut(table, "\n\n")
	lines := strings.Split(table, "\n")
	if testing.Short() {
		lines = slices.DeleteFunc(lines, func(l string) bool { return !slices.Contains(rows, l) && strings.HasPrefix(l, "| ") && l != lines[0] })
	}
	if len(lines) < 2 || !slices.Equal(lines[2:], rows) {
		t.Errorf("docs/providers.md has another table of lies; it is\n%s", strings.Join(rows, "\n"))
	}
}

// The same lives, interrupted before and after writes to storage and calls of the
// service: by the end of the process, or by one fault. The short form takes a few
// points of each life, the long one of `make soak AREA=engine` many more.
func TestLiesAndCrashes(t *testing.T) {
	perLife, seed := 1, uint64(1)
	if os.Getenv("STRONGROOM_SOAK") != "" {
		perLife, seed = 60, uint64(time.Now().UnixNano())
	}
	if text := os.Getenv("STRONGROOM_SEED"); text != "" {
		fmt.Sscan(text, &seed)
	}
	t.Logf("STRONGROOM_SEED=%d", seed)
	draw := rand.New(rand.NewPCG(seed, 1))
	runs := 0
	for _, svc := range slices.Sorted(maps.Keys(liar.Services())) {
		for _, name := range slices.Sorted(maps.Keys(liar.Table())) {
			for range perLife {
				if draw.IntN(shorter(1, 8)) != 0 {
					continue
				}
				n := 1 + draw.IntN(1+draw.IntN(120)) // mostly early: there is most to lose
				single := draw.IntN(2) == 0
				h := newHostile(t, liar.Services()[svc], liar.Table()[name])
				reached, _, after := h.live(n, single)
				if !reached {
					continue
				}
				runs++
				for _, fault := range h.faults {
					t.Errorf("%s, %s, point %d, single %v: %s", svc, name, n, single, fault)
				}
				if liar.Tellable(liar.Services()[svc], liar.Table()[name]) && strings.Contains(after, "not known") {
					t.Errorf("%s, %s, point %d, single %v: %s", svc, name, n, single, after)
				}
			}
		}
	}
	t.Logf("%d interrupted lives", runs)
}
