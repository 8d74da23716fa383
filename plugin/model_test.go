package apikeys

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider/liar"
)

// happening is one thing that happens to an engine; n picks its details.
type happening struct {
	Name string
	N    int
}

// modelVerbs are all there are, with how often each is drawn.
func modelVerbs() map[string]int {
	return map[string]int{
		"create": 10, "change": 6, "rotate": 8, "force": 2, "compromised": 2, "rollback": 3, "delete": 3, "import": 2, "end a version": 2,
		"config": 3, "provider": 2, "compromise all": 1, "accept the clock": 1,
		"pass": 22, "jump": 3, "restart": 3, "reload": 2, "another leader": 2,
		"storage fault": 5, "storage crash": 4, "service fault": 5, "service crash": 4, "lie": 5, "honest": 4, "read": 3, "check": 4, "daily look": 3, "reconcile": 2, "resolve": 3,
	}
}

func drawVerbs(seed uint64, n int) []happening {
	draw := rand.New(rand.NewPCG(seed, 2))
	var bag []string
	for _, name := range slices.Sorted(maps.Keys(modelVerbs())) {
		bag = append(bag, slices.Repeat([]string{name}, modelVerbs()[name])...)
	}
	out := make([]happening, n)
	for i := range out {
		out[i] = happening{bag[draw.IntN(len(bag))], draw.IntN(1 << 16)}
	}
	return out
}

// modelKeys are the keys, and who makes them.
var modelKeys = [...][2]string{{"a/one", "svc"}, {"a/two", "svc"}, {"b", "gen"}}

// engineModel lives through verbs and is held against what must always be.
type engineModel struct {
	*hostile
	cr    *crasher
	kept  map[string]bool // by name: keys that were left at the service on purpose
	known map[string]bool // by value: keys that others have, and that must end
	verbs int             // that ask for a key by hand
	// jumped: the wall clock was set, so a restart takes it for time that has passed.
	// doubtful: a campaign was asked for and answered by an error, so a restart may find it.
	jumped, loose, doubtful bool
	done                    int
}

// modelService is the service of a life: each is one of what services may be able to do.
func modelService(seed uint64) string {
	all := slices.Sorted(maps.Keys(liar.Services()))
	return all[seed%uint64(len(all))]
}

func newModel(t testing.TB, service string) *engineModel {
	m := &engineModel{hostile: newHostile(t, liar.Services()[service], liar.Lies{}), kept: map[string]bool{}, known: map[string]bool{}, cr: &crasher{at: -1}}
	m.keys = nil
	for _, k := range modelKeys {
		m.keys = append(m.keys, k[0])
	}
	m.write("providers/gen", map[string]any{"type": "generated"})
	return m
}

// Only lies whose traces can be told from what others have, whatever comes at the
// same time: of two keys of one name, of a key that it said not to have made, of a
// revocation without effect TestLies says how they end.
func (m *engineModel) lie(n int) liar.Lies {
	var fit []liar.Lies
	table := liar.Table()
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if l := table[name]; !l.Renamed && !l.OtherIDs && l.NameCut == 0 && l.Limit == 0 && l.Life == 0 && !l.Twin && !l.NoEffect && l.AfterMade == 0 && !(l.NoAnswer && (l.ListLag > 0 || l.HalfLists)) {
			fit = append(fit, l)
		}
	}
	return fit[n%len(fit)]
}

func (m *engineModel) arm(at int, single, service bool) {
	m.cr = &crasher{at: at, single: single}
	if service {
		m.liar.SetPoint(m.cr.service)
	} else {
		m.storage.setFault(m.cr.storage)
	}
}

func (m *engineModel) disarm() {
	m.storage.setFault(nil)
	m.liar.SetPoint(nil)
}

// do1 does one verb. What is refused is refused; what breaks promises on purpose
// makes clients forget theirs.
func (m *engineModel) do1(v happening) {
	key := modelKeys[v.N%len(modelKeys)]
	name := key[0]
	pick := func(from ...any) any { return from[(v.N/8)%len(from)] }
	write := func(path string, data map[string]any) { _, _ = m.do(logical.UpdateOperation, path, data) }
	switch v.Name {
	case "create":
		m.verbs++
		write("keys/"+name, map[string]any{"provider": key[1], "rotation_period": pick("1d", "30d", "90d"), "grace_period": pick("1h", "1d", "10m")})
	case "change":
		data := pick(
			map[string]any{"rotation_period": "2d"}, map[string]any{"rotation_period": "60d"}, map[string]any{"grace_period": "2h"},
			map[string]any{"disable_automated_rotation": true}, map[string]any{"disable_automated_rotation": false},
			map[string]any{"rotation_schedule": "0 3 * * *", "rotation_period": 0, "rotation_window": "6h"},
			map[string]any{"rotation_schedule": "", "rotation_window": 0, "rotation_period": "3d"},
			map[string]any{"custom_metadata": map[string]any{"a": v.N}}, map[string]any{"grace_period": "30s", "force": true},
		).(map[string]any)
		if data["force"] != nil {
			m.forget()
		}
		write("keys/"+name, maps.Clone(data))
	case "rotate":
		m.verbs++
		write("rotate/"+name, nil)
	case "force":
		m.verbs++
		write("rotate/"+name, map[string]any{"force": true})
		m.forget()
	case "compromised":
		m.verbs++
		write("rotate/"+name, map[string]any{"compromised": true})
		m.forget()
	case "rollback":
		write("rollback/"+name, map[string]any{"version": 1 + v.N/8%5})
	case "delete":
		data := pick(map[string]any{}, map[string]any{"revoke_now": true}, map[string]any{"revoke": false}).(map[string]any)
		if data["revoke"] == false {
			for _, k := range m.liar.Keys() { // whatever is there now may stay
				m.kept[k.ID] = true
			}
		}
		if data["revoke_now"] == true {
			m.forget()
		}
		_, _ = m.do(opDelete, "keys/"+name, data)
	case "import":
		if key[1] == "svc" {
			k := m.liar.ByHand()
			write("import/"+name, map[string]any{"key": k.Value, "provider_key_id": k.ID})
		}
	case "end a version":
		_, _ = m.do(opDelete, "versions/"+name, map[string]any{"version": 1 + v.N/8%5, "force": true})
		m.forget()
	case "check":
		m.looks(name, func() { write("check/"+name, nil) })
	case "daily look":
		m.looks(name, func() {
			m.b.index.checked(name, m.b.clock.now().Add(-time.Second), time.Time{}, "")
			_ = m.b.withKey(context.Background(), m.storage, name, func(ctx context.Context, w *work) error { return w.checkIfDue(ctx) })
		})
	case "reconcile":
		write("reconcile", nil)
	case "resolve":
		if rec, err := (store{m.storage.Storage}).key(context.Background(), name); err == nil && rec != nil && rec.Uncertain != nil {
			said := map[string]any{"action": "absent"}
			for _, k := range m.liar.Keys() { // a person looks, and sees no further than the service shows
				if k.Alive && k.Asked == rec.Uncertain.Name {
					said = map[string]any{"action": "revoke", "provider_key_id": k.ID}
				}
			}
			write("resolve/"+name, said)
		}
	case "config":
		write("config", maps.Clone(pick(map[string]any{"rotation_period": "20d"}, map[string]any{"rotation_period": "90d"}, map[string]any{"jitter": "2h"},
			map[string]any{"grace_period": "2d"}, map[string]any{"max_versions": 3}, map[string]any{"warn_before": "3d"}).(map[string]any)))
	case "provider":
		write("providers/svc", map[string]any{"type": "liar", "max_rotations_per_minute": pick(0, 1, 30)})
	case "compromise all":
		m.verbs += len(modelKeys)
		_, err := m.do(logical.UpdateOperation, "providers/"+key[1]+"/rotate", map[string]any{"compromised": true})
		m.doubtful = m.doubtful || err != nil
		if err == nil {
			m.expose(key[1])
		}
		m.forget()
	case "accept the clock":
		if _, err := m.do(logical.UpdateOperation, "config", map[string]any{"accept_clock": true}); err == nil {
			m.jumped, m.loose = false, false
		}
		m.forget() // whoever says that the time has passed says that promises have
	case "pass":
		m.pass(pick(time.Minute, 10*time.Minute, time.Hour, 6*time.Hour, day, 8*day).(time.Duration))
	case "jump":
		if m.jumped = true; m.loose {
			m.forget() // a restart has taken the clock as it was, and any time may have passed
		}
		before := m.b.clock.now()
		m.clock.jump(pick(time.Minute, -time.Minute, 2*time.Hour, -2*time.Hour, 3*day, -3*day).(time.Duration))
		// A correction is believed, and takes as much of each promise.
		if gain := m.b.clock.now().Sub(before); gain <= lifecycle.ClockSlack {
			for i := range m.promises {
				m.promises[i].until -= gain
			}
		}
		m.tick()
	case "restart", "another leader":
		m.again()
	case "reload":
		m.b.Cleanup(context.Background())
		m.again()
	case "storage fault":
		m.arm(1+v.N%6, true, false)
	case "storage crash":
		m.arm(1+v.N%6, false, false)
	case "service fault":
		m.arm(1+v.N%4, true, true)
	case "service crash":
		m.arm(1+v.N%4, false, true)
	case "lie":
		m.liar.SetLies(m.lie(v.N))
	case "honest":
		m.liar.SetLies(liar.Lies{})
	}
}

// looks checks that a look at a key makes nothing, ends nothing and changes nothing but
// what is known of the key's end, and that a version whose successor was lost needs one.
func (m *engineModel) looks(name string, look func()) {
	state := func() string {
		snap, err := m.b.snapshot(context.Background(), m.storage, name)
		if err != nil || snap == nil {
			return ""
		}
		rec := snap.rec.clone()
		for i := range rec.Life.Versions {
			rec.Life.Versions[i].Expires = time.Time{}
		}
		if rec.Refusal = nil; isDoubted(rec) {
			rec.Requested = time.Time{}
		}
		alive, calls := "", 0
		for _, k := range m.liar.Keys() {
			alive += fmt.Sprint(k.Alive, " ")
		}
		for _, call := range m.liar.Calls() {
			calls += boolInt(!strings.HasPrefix(call, "test ") && !strings.HasPrefix(call, "list "))
		}
		return fmt.Sprint(asText(rec), alive, calls)
	}
	before := state()
	look()
	if after := state(); before != "" && after != "" && after != before {
		m.fault("a look has changed\n%s\nto\n%s", before, after)
	}
}

// expose notes what of a provider's keys others have.
func (m *engineModel) expose(provider string) {
	for _, name := range m.keys {
		rec, err := (store{m.storage.Storage}).key(context.Background(), name)
		if err != nil || rec == nil || rec.Def.Provider != provider {
			continue
		}
		for i := range rec.Life.Versions {
			if v := &rec.Life.Versions[i]; v.Alive() && !v.Keep {
				m.known[rec.Values[v.Number]["key"]] = true
			}
		}
	}
}

// exposed gives a key that others have and that lives on, though no version that
// must live has its identifier; "": there is none.
func (m *engineModel) exposed() string {
	needed := map[string]bool{}
	for _, name := range m.keys {
		rec, err := (store{m.storage.Storage}).key(context.Background(), name)
		if err != nil || rec == nil {
			continue
		}
		for i := range rec.Life.Versions {
			if v := &rec.Life.Versions[i]; v.Alive() && !m.known[rec.Values[v.Number]["key"]] {
				needed[v.ProviderID] = true
			}
		}
	}
	for _, value := range slices.Sorted(maps.Keys(m.known)) {
		if k := m.liar.Truth(value); k != nil && k.Alive && !needed[k.ID] && !m.kept[k.ID] {
			return value
		}
	}
	return ""
}

// again is another process.
func (m *engineModel) again() {
	if m.jumped || m.doubtful {
		m.forget()
	}
	m.loose, m.doubtful = m.loose || m.jumped, false
	_ = m.tryStart()
}

func (m *engineModel) forget() { m.promises = nil }

// run lives through verbs and gives the first thing that must not be; "": nothing.
func (m *engineModel) run(verbs []happening) string {
	for i, v := range verbs {
		m.do1(v)
		m.done++
		if m.cr.isDead() {
			m.disarm()
			m.cr = &crasher{at: -1}
			m.again()
		} else if m.cr.hit() {
			m.disarm()
			m.cr = &crasher{at: -1}
		}
		if fault := m.holds(); fault != "" {
			return fmt.Sprintf("after verb %d, %v: %s", i+1, v, fault)
		}
	}
	return m.settles()
}

// holds checks what must be at any time.
func (m *engineModel) holds() string {
	m.watch()
	// A hand may ask for any number; the engine by itself for a few.
	m.faults = slices.DeleteFunc(m.faults, func(f string) bool { return strings.HasSuffix(f, "creates in an hour") })
	if n, _ := m.liar.MintsAnHour(); n > len(modelKeys)*liar.MaxMintsAnHour+m.verbs {
		m.fault("%d creates in an hour, %d by hand in all", n, m.verbs)
	}
	if len(m.faults) > 0 {
		return m.faults[0]
	}
	for _, name := range m.b.index.page("", 100) {
		stored, err := (store{m.storage.Storage}).key(context.Background(), name)
		if err != nil {
			return fmt.Sprintf("%s cannot be read: %v", name, err)
		}
		snap := m.b.cache.get(name)
		if snap != nil && len(snap.marked) == 0 {
			if a, b := asText(snap.rec), asText(stored); a != b {
				return fmt.Sprintf("%s: the cache has\n%s\nstorage has\n%s", name, a, b)
			}
		}
		if stored != nil {
			if err := stored.Life.Check(); err != nil {
				return fmt.Sprintf("%s: %v", name, err)
			}
		}
	}
	return ""
}

// inTime checks that no key whose record says that it is due is forgotten.
func (m *engineModel) inTime() string {
	for _, name := range m.b.index.page("", 100) {
		snap, err := m.b.snapshot(context.Background(), m.storage, name)
		if err != nil || snap == nil {
			return fmt.Sprintf("%s: %v", name, err)
		}
		want := m.b.dueOf(snap)
		m.b.index.mu.RLock()
		e := m.b.index.entryLocked(name)
		rotate, review := e.rotateAt, e.reviewAt
		m.b.index.mu.RUnlock()
		first := func(a, b int64) int64 {
			if a == 0 || b != 0 && b < a {
				return b
			}
			return a
		}
		now := m.b.clock.now().Unix()
		if w, h := first(want.rotateAt, want.reviewAt), first(rotate, review); w != 0 && w <= now && (h == 0 || h > now) {
			return fmt.Sprintf("%s is due at %d, the index says %d", name, w, h)
		}
	}
	return ""
}

func asText(rec *keyRecord) string {
	out, err := json.Marshal(rec)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// settles lets everything be honest and whole again, and checks how it ends.
func (m *engineModel) settles() string {
	m.disarm()
	m.start()
	m.write("config", map[string]any{"accept_clock": true})
	m.forget()
	m.recover()
	// What is due at this very moment waits for its turn: a cap lets one rotate in a minute.
	for range len(modelKeys) {
		m.go_(time.Minute, time.Minute)
	}
	if fault := m.holds(); fault != "" {
		return "at the end: " + fault
	}
	if fault := m.inTime(); fault != "" {
		return "at the end: " + fault
	}
	m.liar.Disown(func(k liar.Key) bool { return m.kept[k.ID] || k.Asked == "by hand" }) // nobody has to know it
	end := m.outcome()
	if len(m.faults) > 0 {
		return "at the end: " + m.faults[0]
	}
	if strings.Contains(end, "not known") && liar.Tellable(m.liar.Capabilities(), liar.Lies{}) {
		return "at the end: " + end
	}
	full := slices.ContainsFunc(m.keys, func(name string) bool { // an account with no place for another key is in the way
		rec, err := (store{m.storage}).key(context.Background(), name)
		resp, _ := m.do(opRead, "keys/"+name, nil)
		return err == nil && rec != nil && rec.Wait.For(lifecycle.WhyLimit) || resp != nil && resp.Data["rotation_waits_for"] == string(lifecycle.WhyLimit)
	})
	for _, word := range []string{"`pending`", "`overdue`"} {
		if strings.Contains(end, word) && !(full && word == "`overdue`") {
			return "after days with nothing in its way a key is still " + word
		}
	}
	if value := m.exposed(); value != "" && !strings.Contains(end, "revoked_unverified") {
		return value + " is known to others since a campaign, and works"
	}
	writes := len(m.storage.writes())
	for range 24 {
		m.pass(time.Hour)
	}
	perKey := map[string]int{}
	for _, line := range m.storage.writes()[writes:] {
		if _, name, ok := strings.Cut(line, " key/"); ok {
			perKey[name]++
		}
	}
	for name, n := range perKey {
		rec, _ := (store{m.storage}).key(context.Background(), name)
		busy := rec != nil && m.clock.Wall().Sub(rec.LastRotation) < 30*time.Hour || strings.Contains(end, "`")
		if n > 10 && !busy {
			return fmt.Sprintf("%d writes of %s on a day on which nothing happened", n, name)
		}
	}
	return ""
}

// kind is a fault without its numbers, and where it happened.
func kind(fault string) string {
	_, what, late := strings.Cut(fault, "}: ")
	if !late {
		what = fault
	}
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, what)
}

// shrink drops verbs as long as it fails without them, by the same kind of fault:
// what is left of another says nothing of this one.
func shrink(t testing.TB, service string, verbs []happening, fault string, tries int) []happening {
	for size := len(verbs) / 2; size > 0 && tries > 0; {
		smaller := false
		for at := 0; at+size <= len(verbs) && tries > 0; {
			less := slices.Concat(verbs[:at], verbs[at+size:])
			tries--
			if kind(newModel(t, service).run(less)) == kind(fault) {
				verbs, smaller = less, true
				continue
			}
			at += size
		}
		if !smaller || size > len(verbs)/2 {
			size /= 2
		}
	}
	return verbs
}

// What the model has found once.
func TestModelFound(t *testing.T) {
	for name, verbs := range map[string][]happening{
		"a pause that a clock ahead has counted outlasts it": {{"lie", 21077}, {"create", 46495}, {"jump", 58938}, {"jump", 30425}, {"service crash", 16589}, {"pass", 30557}},
		"delete revoke=false, older versions forgotten":      {{"create", 13713}, {"config", 65267}, {"rotate", 49149}, {"rotate", 65001}, {"rotate", 65484}, {"delete", 14394}},
		"a schedule in place of a period":                    {{"create", 41339}, {"jump", 884}, {"change", 7028}},
		"two keys of one schedule, and a cap of one a minute, at their time": {{"pass", 11353}, {"pass", 9042}, {"create", 17572}, {"pass", 41881}, {"pass", 7558}, {"pass", 53789}, {"pass", 6319},
			{"jump", 24787}, {"create", 2211}, {"change", 40938}, {"change", 5803}, {"pass", 22532}, {"pass", 257}, {"pass", 12937}, {"provider", 58548}},
		"two keys of one schedule, and a cap of one a minute, after a compromise": {{"create", 30510}, {"import", 12780}, {"pass", 6353}, {"pass", 29405}, {"pass", 7368}, {"pass", 50888}, {"provider", 45806}, {"pass", 35347},
			{"compromised", 34740}, {"change", 1845}, {"create", 51772}},
		"an answer lost, a list by halves, and its versions forgotten":                 {{"config", 15829}, {"import", 31279}, {"lie", 29248}, {"create", 62856}, {"lie", 1826}, {"pass", 63327}, {"create", 37204}, {"pass", 43625}, {"rotate", 32556}, {"pass", 4183}},
		"a crash after a create, and a list that lags":                                 {{"create", 14770}, {"pass", 25448}, {"lie", 38253}, {"storage crash", 51574}, {"rotate", 56302}, {"pass", 18343}},
		"a campaign after a crash, the clock a minute behind":                          {{"create", 51378}, {"pass", 29896}, {"create", 35419}, {"jump", 16670}, {"storage crash", 38821}, {"delete", 41703}, {"compromise all", 48825}},
		"a campaign after a restart after the clock was accepted":                      {{"jump", 54171}, {"create", 34323}, {"accept the clock", 58483}, {"restart", 53956}, {"compromise all", 20406}, {"change", 25512}},
		"a pause of an ending that a clock ahead has counted":                          {{"jump", 16559}, {"create", 4342}, {"jump", 35420}, {"compromise all", 33094}, {"service crash", 44396}, {"pass", 31956}},
		"a clock that could not be accepted":                                           {{"jump", 7229}, {"storage crash", 46068}, {"accept the clock", 17666}, {"create", 19930}, {"rotate", 64813}, {"jump", 43810}},
		"a minute that the clock is put forward, and a grace of half a minute":         {{"create", 22444}, {"change", 40675}, {"rotate", 61291}, {"jump", 18196}},
		"an answer that could not be stored, and the id of a dead version":             {{"create", 26466}, {"import", 16335}, {"lie", 5986}, {"pass", 28745}, {"storage fault", 46911}, {"rotate", 3333}},
		"two keys: a window that closes while the account is full":                     {{"create", 38020}, {"create", 36471}, {"change", 15019}, {"change", 12936}},
		"no overlap: windows that close while readers were promised the key":           {{"create", 556}, {"change", 46768}, {"jump", 56591}},
		"no overlap: rotated by hand after its rotation was disabled":                  {{"create", 48687}, {"change", 14718}, {"rotate", 20142}, {"pass", 13139}},
		"no overlap: deleted after its rotation was disabled":                          {{"create", 37771}, {"change", 5065}, {"delete", 1852}, {"pass", 32034}},
		"no overlap nor test: replaced after its rotation was disabled":                {{"create", 25950}, {"change", 33579}, {"import", 13887}, {"pass", 34150}},
		"two keys: a schedule of days, a grace of one, and the account full":           {{"create", 42204}, {"pass", 26133}, {"pass", 14956}, {"import", 42144}, {"pass", 44130}, {"pass", 2759}, {"pass", 41683}, {"pass", 10647}, {"pass", 403}, {"change", 47706}},
		"no overlap: a look while a rotation is late":                                  {{"create", 41939}, {"jump", 7950}, {"reload", 29278}, {"pass", 62874}, {"delete", 6380}, {"create", 12867}, {"pass", 39004}, {"storage fault", 19090}, {"pass", 61768}, {"storage crash", 50752}, {"pass", 61018}, {"check", 30570}},
		"no overlap: a look at a key whose successor was lost":                         {{"create", 52870}, {"create", 9154}, {"create", 37182}, {"change", 62584}, {"pass", 16456}, {"lie", 49623}, {"change", 414}, {"compromised", 60448}, {"create", 55423}, {"change", 42106}, {"service crash", 13873}, {"force", 50182}, {"check", 2317}},
		"a revocation that a crash cut off, the clock a minute behind, and a rollback": {{"create", 44428}, {"lie", 1966}, {"pass", 62722}, {"lie", 26665}, {"pass", 49779}, {"jump", 36206}, {"storage crash", 11788}, {"pass", 57814}, {"rollback", 18727}, {"pass", 43607}},
		"no overlap: a reconcile while a new key is refused":                           {{"create", 11410}, {"lie", 64390}, {"reconcile", 58764}, {"pass", 63827}},
		"neither: one id for all, and a write that was carried out and failed":         {{"jump", 59309}, {"create", 57379}, {"lie", 25498}, {"rotate", 39994}, {"restart", 43033}, {"jump", 13524}, {"storage crash", 63287}, {"compromised", 16318}},
		"no overlap nor list nor test: a crash, and a person who ends what was made":   {{"jump", 12860}, {"create", 41022}, {"accept the clock", 58622}, {"storage crash", 40875}, {"force", 22797}, {"pass", 59687}, {"resolve", 45087}},
		"no overlap nor test: a reconcile that finds a later key":                      {{"create", 47617}, {"pass", 23795}, {"pass", 36212}, {"pass", 63818}, {"storage fault", 47651}, {"pass", 37486}, {"storage crash", 1473}, {"reconcile", 40201}, {"service crash", 2458}, {"pass", 7383}},
		"no overlap: a rotation by hand while nobody knows whether the key works":      {{"create", 12622}, {"storage fault", 44805}, {"rotate", 47920}, {"force", 31825}, {"reload", 12986}, {"pass", 53632}, {"rotate", 37780}, {"pass", 58242}},
		"no names: a campaign right after one by a clock of before":                    {{"jump", 42621}, {"create", 29370}, {"accept the clock", 55093}, {"compromise all", 48796}, {"pass", 1176}, {"pass", 3122}, {"compromise all", 35875}},
		"a late revocation, and an id that is given again":                             {{"lie", 2797}, {"create", 49932}, {"service fault", 34804}, {"compromised", 17892}, {"lie", 10270}, {"pass", 5812}, {"pass", 26293}},
	} {
		t.Run(name, func(t *testing.T) {
			service, _, other := strings.Cut(name, ": ")
			if !other {
				service = "list and test"
			}
			if fault := newModel(t, service).run(verbs); fault != "" {
				t.Error(fault)
			}
		})
	}
}

// Whatever happens to an engine, in any order: no key is served that it ended, no
// promise is broken, what memory holds is what storage holds, and when all is well
// again nothing is left behind and every due key gets done.
func TestModel(t *testing.T) {
	runs, length, seed := shorter(27, 9), 60, uint64(1)
	if os.Getenv("STRONGROOM_SOAK") != "" {
		runs, length, seed = 1500, 120, uint64(time.Now().UnixNano())
	}
	if text := os.Getenv("STRONGROOM_SEED"); text != "" {
		runs = 1
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	done := 0
	for i := range uint64(runs) {
		verbs, service := drawVerbs(seed+i, length), modelService(seed+i)
		m := newModel(t, service)
		fault := m.run(verbs)
		done += m.done
		if fault == "" {
			continue
		}
		less := shrink(t, service, verbs, fault, 300)
		for _, v := range less {
			if v.Name == "lie" {
				t.Logf("%v: %+v", v, m.lie(v.N))
			}
		}
		t.Errorf("STRONGROOM_SEED=%d, %s: %s\nin short: %v\n%s", seed+i, service, fault, less, newModel(t, service).run(less))
		if os.Getenv("STRONGROOM_SOAK") == "" {
			break
		}
	}
	t.Logf("%d lives, %d verbs, STRONGROOM_SEED=%d", runs, done, seed)
}
