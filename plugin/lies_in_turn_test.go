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

// A service lies otherwise every while, alone and in combinations, among verbs and
// crashes, as in the campaign of the end-to-end tests, on a clock that is set: what
// readers were told holds, and of what can be told nothing is left once it is honest
// and somebody has asked for a comparison.
func TestLiesInTurn(t *testing.T) {
	lives, seed := shorter(90, 9), uint64(1796059177894646650)
	if os.Getenv("STRONGROOM_SOAK") != "" {
		lives, seed = 3000, uint64(time.Now().UnixNano())
	}
	if text := os.Getenv("STRONGROOM_SEED"); text != "" {
		lives = 1
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	// Each of these has found something: what waited for a clock that was ahead, for a person
	// or for another version's end, current keys that were ended as leftovers, and those that
	// were replaced within their promises, for a leftover that was older than they; and what
	// is told once a comparison is asked for again, as the first one has said,
	// also beside a dead version that readers were promised for a month.
	seeds := []uint64{1796059177894646650, 1796064064739100675, 1796067032479517175, 1796067032479518691, 1796067032479519554, 1796067032478469474, 1796067032478469840, 1796130260191369498, 1796130260191366692, 1796130624177887068, 1796130624177888124, 1796132102499192790, 1796140120865958139}
	if os.Getenv("STRONGROOM_SEED") != "" {
		seeds = nil
	}
	for i := range uint64(lives) {
		seeds = append(seeds, seed+i)
	}
	services := liar.Services()
	for _, seed := range seeds {
		service := slices.Sorted(maps.Keys(services))[seed%uint64(len(services))]
		h := liesInTurn(t, services[service], seed)
		if liar.Tellable(services[service], liar.Lies{}) {
			h.faults = append(h.faults, h.left()...)
		}
		for _, f := range h.faults {
			t.Errorf("STRONGROOM_SEED=%d, %s: %s", seed, service, f)
		}
	}
	t.Logf("%d lives", len(seeds))
}

func liesInTurn(t testing.TB, caps provider.Capabilities, seed uint64) *hostile {
	rnd := rand.New(rand.NewPCG(seed, 5))
	h := newHostile(t, caps, liar.Lies{})
	h.keys = []string{"one", "two"}
	for i := range h.keys {
		h.verbOfTurn(rnd, h.keys[i], 20)
	}
	table, history := liar.Table(), liar.Lies{}
	names := slices.Sorted(maps.Keys(table))
	for range 6 {
		for {
			l := table[names[rnd.IntN(len(names))]]
			if rnd.IntN(3) == 0 {
				l = l.And(table[names[rnd.IntN(len(names))]])
			}
			if l = l.Faster(60); !liar.Tellable(caps, liar.Lies{}) || liar.Tellable(caps, history.And(l)) {
				history = history.And(l)
				h.liar.SetLies(l)
				break
			}
		}
		cr, crash := &crasher{at: -1}, rnd.IntN(16)
		for i := range 16 {
			if i == crash {
				cr = &crasher{at: 1 + rnd.IntN(6)}
				where := rnd.IntN(3)
				if where != 0 {
					h.storage.setFault(cr.storage)
				}
				if where != 1 {
					h.liar.SetPoint(cr.service)
				}
			}
			verb := rnd.IntN(40)
			h.verbOfTurn(rnd, h.keys[rnd.IntN(len(h.keys))], verb)
			if verb < 5 {
				h.promises = nil // it breaks them on purpose
			}
			for _, d := range []time.Duration{0, []time.Duration{0, 200 * time.Millisecond, time.Second, 3 * time.Second}[rnd.IntN(4)]} {
				if d > 0 {
					h.pass(d)
				}
				if cr.isDead() { // nobody reads from what is gone
					cr = &crasher{at: -1}
					h.newProcess()
					h.pass(time.Second)
				}
				h.readers()
			}
		}
		h.newProcess()
		h.readers()
	}
	h.liar.SetLies(liar.Lies{})
	for range 3 {
		said := h.write("reconcile", nil)
		for i := range 111 { // longer than a new key may be refused
			h.pass([]time.Duration{3 * time.Second, time.Minute}[boolInt(i >= 100)])
			h.readers()
		}
		if len(said.Data["problems"].(map[string]string)) == 0 {
			break // else it says when to ask again
		}
	}
	for range 8 { // what could not be told then is looked for once a day
		h.pass(6 * time.Hour)
		h.readers()
	}
	return h
}

func (h *hostile) newProcess() {
	h.storage.setFault(nil)
	h.liar.SetPoint(nil)
	h.start()
}

// verbOfTurn does the nth verb. What is refused is refused.
func (h *hostile) verbOfTurn(rnd *rand.Rand, name string, n int) {
	write := func(path string, data map[string]any) { _, _ = h.do(logical.UpdateOperation, path, data) }
	switch n {
	case 0:
		write("rotate/"+name, map[string]any{"force": true})
	case 1:
		write("rotate/"+name, map[string]any{"compromised": true})
	case 2:
		write("providers/svc/rotate", map[string]any{"compromised": true})
	case 3:
		_, _ = h.do(opDelete, "versions/"+name, map[string]any{"version": 1 + rnd.IntN(6), "force": true})
	case 4:
		_, _ = h.do(opDelete, "keys/"+name, map[string]any{"revoke_now": rnd.IntN(2) == 0})
	case 5:
		mine := h.liar.ByHand()
		write("import/"+name, map[string]any{"key": mine.Value, "provider_key_id": mine.ID})
	case 6:
		write("rollback/"+name, map[string]any{"version": 1 + rnd.IntN(6)})
	default:
		if n > 20 {
			write("rotate/"+name, nil)
			return
		}
		grace := []string{"6s", "15s", "40s"}[rnd.IntN(3)]
		write("keys/"+name, map[string]any{"provider": "svc", "rotation_period": "30d", "grace_period": grace})
	}
}

// left are the keys of the engine that are alive at the service, and that it does not
// know though it has the key that they were made for.
func (h *hostile) left() (out []string) {
	known, here := map[string]bool{}, map[string]bool{}
	for _, name := range h.keys {
		key, err := h.do(opRead, "keys/"+name, nil)
		if err != nil {
			h.t.Fatal(err)
		}
		if key == nil {
			continue
		}
		if u, ok := key.Data["uncertain"].(map[string]any); ok {
			known[fmt.Sprint(u["name"])] = true
		}
		for _, v := range h.read("versions/"+name, nil)["versions"].(map[string]any) {
			v := v.(map[string]any)
			known[fmt.Sprint(v["provider_key_id"])] = known[fmt.Sprint(v["provider_key_id"])] || v["state"] != "revoked"
			here[liar.Identity(fmt.Sprint(v["name"]))] = true
		}
	}
	for _, k := range h.liar.Keys() {
		if k.Alive && strings.HasPrefix(k.Asked, "sr-") && !known[k.ID] && !known[k.Asked] && here[liar.Identity(k.Asked)] {
			out = append(out, fmt.Sprintf("%s, asked for as %s under %+v, lives, and nobody knows it", k.ID, k.Asked, k.Under))
		}
	}
	return out
}
