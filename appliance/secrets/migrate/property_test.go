package migrate_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/appliance/secrets/migrate/storetest"
)

// A migration is a state: whatever is edited, planned, applied, cut over, taken
// back and killed, in whatever order, by one person or by two with one Vault, no
// value is lost, unreadable by programs, or left in clear by a cutover that says
// that all is well.
func TestAnyOrder(t *testing.T) {
	sequences := 50
	if testing.Short() {
		sequences = 10
	}
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		sequences = 4000
	}
	var all counts
	var mu sync.Mutex
	lanes := runtime.GOMAXPROCS(0)
	t.Run("sequences", func(t *testing.T) {
		for lane := range lanes {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				for seed := lane; seed < sequences; seed += lanes {
					c := sequence(t, uint64(seed))
					mu.Lock()
					all.add(c)
					mu.Unlock()
					if (seed-lane)%500 == 0 {
						t.Logf("sequence %d of %d", seed, sequences)
					}
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%d sequences, %d steps: %d edits, %d plans, %d applies, %d cutovers, %d rollbacks, %d merges; %d runs were killed, %d refused; %d values",
		sequences, all.steps, all.edits, all.plans, all.applies, all.cutovers, all.rollbacks, all.merges, all.kills, all.refused, all.values)
	if all.kills < sequences || all.cutovers < sequences || all.rollbacks < sequences {
		t.Error("too little was tried")
	}
}

func sequence(t *testing.T, seed uint64) counts {
	w := newWorld(t, seed)
	defer w.close()
	fail := func(where string) {
		for _, l := range w.log {
			t.Log(l)
		}
		t.Fatalf("sequence %d%s: %s", seed, where, w.fault)
	}
	for range 30 {
		if !w.step() {
			fail("")
		}
	}
	if !w.finish() {
		fail(", at its end")
	}
	return w.counts
}

type counts struct {
	steps, edits, plans, applies, cutovers, rollbacks, merges, kills, refused, values int
}

func (c *counts) add(o counts) {
	c.steps, c.edits, c.plans, c.applies = c.steps+o.steps, c.edits+o.edits, c.plans+o.plans, c.applies+o.applies
	c.cutovers, c.rollbacks, c.merges, c.kills = c.cutovers+o.cutovers, c.rollbacks+o.rollbacks, c.merges+o.merges, c.kills+o.kills
	c.refused, c.values = c.refused+o.refused, c.values+o.values
}

// world is one Vault and one or two people with a tree each.
type world struct {
	counts
	t      *testing.T
	r      *rand.Rand
	store  *storetest.Fake
	people []*person
	truth  map[string]string          // by environment/name: what was set last and never taken out by hand
	ever   map[string]map[string]bool // all values that it had
	log    []string
	fault  string
}

type person struct {
	*site
	name string
	cut  map[string]bool // taken out of the files by cutovers, since the last rollback
}

var propertyNames = []string{"A_PASSWORD", "B_TOKEN", "C_SECRET", "D_PASSWORD"}

// The .env files of each environment, and the plain variables beside them.
var propertyFiles = map[string][]string{"development": {".env", "web/.env", "conf/.env"}, "production": {".env.production", "web/.env.production"}}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 14)), store: storetest.NewFake(nil, nil), truth: map[string]string{}, ever: map[string]map[string]bool{}}
	// Thousands of syncs: in memory where there is such a place.
	base := ""
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		base = "/dev/shm"
	}
	for i := range 1 + w.r.IntN(2) {
		dir, err := os.MkdirTemp(base, "migrate-")
		if err != nil {
			if dir, err = os.MkdirTemp("", "migrate-"); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		key, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		p := &person{site: &site{t: t, dir: dir, store: w.store, key: key}, name: fmt.Sprintf("P%d", i+1), cut: map[string]bool{}}
		write(t, dir, "app.py", "import os\n\nA = os.environ['A_PASSWORD']\n\n\nB = os.getenv('B_TOKEN')\n")
		w.people = append(w.people, p)
	}
	return w
}

func (w *world) close() {
	for _, p := range w.people {
		_ = os.RemoveAll(p.dir)
	}
}

func (w *world) logf(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) fail(format string, args ...any) bool {
	if w.fault == "" {
		w.fault = fmt.Sprintf(format, args...)
	}
	return false
}

// envOf is a .env file's variables.
func (p *person) envOf(file string) map[string]string {
	out := map[string]string{}
	data, err := os.ReadFile(filepath.Join(p.dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return out
	}
	p.must(err)
	f, err := dotenv.Parse(data, dotenv.Python)
	p.must(err)
	vars, err := f.Resolve(nil)
	p.must(err)
	for _, v := range vars {
		if v.Set {
			out[v.Name] = v.Value
		}
	}
	return out
}

// inFiles is what the .env files have, by environment/name, and the file.
func (p *person) inFiles() (values, where map[string]string) {
	values, where = map[string]string{}, map[string]string{}
	for env, files := range propertyFiles {
		for _, f := range files {
			for name, v := range p.envOf(f) {
				if v != "" {
					values[env+"/"+name], where[env+"/"+name] = v, f
				}
			}
		}
	}
	return values, where
}

var mappingEnvironment = regexp.MustCompile(`(?m)^# Which variable is which secret of \S+ in (\S+)\. `)

// program is what a program reads: by the mapping file, else from the .env files.
func (p *person) program() map[string]string {
	out, _ := p.inFiles()
	for env := range propertyFiles {
		for _, file := range []string{migrate.MappingFile, migrate.MappingName(env)} {
			data, err := os.ReadFile(filepath.Join(p.dir, file))
			if err != nil {
				continue
			}
			if m := mappingEnvironment.FindSubmatch(data); m == nil || string(m[1]) != env {
				continue
			}
			for name, v := range p.reads(file) {
				if v != "" {
					out[env+"/"+name] = v
				}
			}
		}
	}
	return out
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// step does one thing, and looks at everything afterwards.
func (w *world) step() bool {
	w.steps++
	p := pick(w.r, w.people)
	before := map[*person]map[string]string{}
	for _, q := range w.people {
		before[q] = q.program()
	}
	files, _ := p.inFiles()
	plain := p.plain()
	vault, ok := false, true
	switch n := w.r.IntN(100); {
	case n < 34:
		w.edits++
		w.edit(p)
		return w.nothingLost() // what a person takes away is his
	case n < 48:
		ok = w.run(p, "plan", func() error { return p.replan() })
		w.plans++
	case n < 66:
		w.applies++
		force := w.r.IntN(3) == 0
		ok = w.run(p, fmt.Sprintf("apply, force %t", force), func() error { _, err := p.apply(force); return err })
	case n < 82:
		w.cutovers++
		ok = w.run(p, "cutover", func() error { return w.cutover(p) })
	case n < 94:
		w.rollbacks++
		vault = w.r.IntN(2) == 0
		ok = w.run(p, fmt.Sprintf("rollback, vault %t", vault), func() error { return w.rollback(p, vault) })
	default:
		w.merges++
		w.merge(p)
	}
	if !ok {
		return false
	}
	if now := p.plain(); !maps.Equal(plain, now) {
		return w.fail("plain variables were %v and are %v", plain, now)
	}
	for _, q := range w.people {
		if q != p && vault {
			continue // who takes a secret back takes it from others, too
		}
		after := q.program()
		for at, was := range before[q] {
			switch now := after[at]; {
			case now == "":
				return w.fail("%s: %s was read and is not any more", q.name, at)
			case now != was && q == p && now != files[at] && !w.ever[at][now], now != was && !w.ever[at][now]:
				return w.fail("%s: %s is another variable's value", q.name, at)
			}
		}
	}
	return w.nothingLost() && w.nothingOpen(p)
}

// plain are all variables that are no secrets, by file.
func (p *person) plain() map[string]string {
	out := map[string]string{}
	for _, files := range propertyFiles {
		for _, f := range files {
			for name, v := range p.envOf(f) {
				if strings.HasPrefix(name, "PORT") {
					out[f+" "+name] = v
				}
			}
		}
	}
	return out
}

// run is one command, perhaps killed at one of its writes or calls.
func (w *world) run(p *person, what string, do func() error) bool {
	if p.plan == nil && what != "plan" {
		return true
	}
	kill := ""
	if w.r.IntN(2) == 0 {
		n, after, inVault := 1+w.r.IntN(5), w.r.IntN(2) == 0, w.r.IntN(2) == 0
		kill = fmt.Sprintf(", killed at %d (Vault %t, after %t)", n, inVault, after)
		if inVault {
			start := w.store.Calls()
			w.store.Fail = func(call int, _ string) (bool, bool) { return call >= start+n, after && call == start+n }
		} else {
			steps := 0
			p.fault = func(string) error {
				if steps++; steps >= n {
					return kvtest.ErrInjected
				}
				return nil
			}
		}
	}
	err := do()
	p.fault, w.store.Fail = nil, nil
	var refused *migrate.Refused
	switch {
	case err == nil:
		w.logf("%s: %s%s", p.name, what, kill)
		return w.fault == ""
	case errors.Is(err, kvtest.ErrInjected):
		w.kills++
		w.logf("%s: %s%s: %v", p.name, what, kill, err)
		if w.r.IntN(4) == 0 { // in the middle of a line
			f, err := os.OpenFile(filepath.Join(p.dir, migrate.StateDir, "journal"), os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString(`{"op":"int`)
				p.must(errors.Join(err, f.Close()))
			}
		}
		return w.fault == ""
	case errors.As(err, &refused), what == "plan":
		w.refused++
		w.logf("%s: %s%s: refused: %v", p.name, what, kill, err)
		return w.fault == ""
	}
	return w.fail("%s: %s: %v", p.name, what, err)
}

func (w *world) cutover(p *person) error {
	before, _ := p.inFiles()
	r, err := p.cutover()
	after, where := p.inFiles()
	for at := range before {
		if after[at] == "" {
			p.cut[at] = true
		}
	}
	if err == nil && len(r.Unplanned) == 0 {
		for at := range after {
			if _, name := path.Split(at); !strings.HasPrefix(name, "PORT") {
				w.fail("%s: a cutover that says nothing leaves %s in %s", p.name, at, where[at])
			}
		}
	}
	return err
}

func (w *world) rollback(p *person, vault bool) error {
	_, err := p.rollback(vault)
	if err != nil {
		return err
	}
	after, _ := p.inFiles()
	for at := range p.cut {
		if after[at] == "" {
			w.fail("%s: a rollback does not bring %s back", p.name, at)
		}
	}
	clear(p.cut)
	return nil
}

// edit is what people do to a tree.
func (w *world) edit(p *person) {
	env := pick(w.r, []string{"development", "development", "production"})
	name := pick(w.r, propertyNames)
	at := env + "/" + name
	_, where := p.inFiles()
	file := where[at]
	if file == "" {
		file = pick(w.r, propertyFiles[env])
	}
	full := filepath.Join(p.dir, file)
	data, err := os.ReadFile(full)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.must(err)
	}
	lines := strings.SplitAfter(string(data), "\n")
	if n := len(lines) - 1; lines[n] != "" {
		lines[n] += "\n"
	}
	whole := !strings.ContainsAny(string(data), "'\"") // no line is part of a value
	insert := func(text string) {
		i := len(lines)
		if whole {
			i = w.r.IntN(len(lines) + 1)
		}
		if i == len(lines) && w.r.IntN(4) == 0 {
			text = strings.TrimSuffix(text, "\n")
		}
		write(w.t, p.dir, file, strings.Join(slices.Insert(lines, i, text), ""))
	}
	without := func() []byte {
		out, err := dotenv.Remove([]byte(strings.Join(lines, "")), dotenv.Python, func(s dotenv.Statement) bool { return s.Name == name })
		p.must(err)
		return out
	}
	set := func() {
		w.values++
		value := fmt.Sprintf("value-%d-%s", w.values, pick(w.r, []string{"xyz", "a b", "it's", "#1", "l1\nl2", "$HOME"}))
		lines = strings.SplitAfter(string(without()), "\n")
		quoted, err := dotenv.Quote(value, dotenv.Python)
		p.must(err)
		insert(name + "=" + quoted + "\n")
		w.truth[at] = value
		if w.ever[at] == nil {
			w.ever[at] = map[string]bool{}
		}
		w.ever[at][value] = true
		w.logf("%s: %s is set in %s to %q", p.name, at, file, value)
	}
	switch n := w.r.IntN(20); {
	case n < 10:
		set()
	case n < 12: // taken out by hand
		if where[at] == "" {
			return
		}
		p.must(os.WriteFile(full, without(), 0o640))
		delete(p.cut, at)
		w.forget(at)
		w.logf("%s: %s is taken out of %s by hand", p.name, at, file)
	case n < 13: // left empty
		if where[at] != "" {
			return
		}
		lines = strings.SplitAfter(string(without()), "\n")
		insert(name + "=\n")
		w.logf("%s: %s is empty in %s", p.name, at, file)
	case n < 15:
		insert(fmt.Sprintf("PORT_%d=%d\n", w.r.IntN(1000), w.r.IntN(9)))
		w.logf("%s: a port more in %s", p.name, file)
	case n < 17:
		to := pick(w.r, propertyFiles[env])
		if _, err := os.Lstat(filepath.Join(p.dir, to)); err == nil || len(data) == 0 {
			return
		}
		p.must(os.MkdirAll(filepath.Dir(filepath.Join(p.dir, to)), 0o755))
		p.must(os.Rename(full, filepath.Join(p.dir, to)))
		w.logf("%s: %s is now %s", p.name, file, to)
	case n < 19:
		code, err := os.ReadFile(filepath.Join(p.dir, "app.py"))
		p.must(err)
		line := fmt.Sprintf("X = os.environ['%s'] + '%d'\n", name, w.r.IntN(99))
		at := pick(w.r, []string{string(code) + line, strings.Replace(string(code), "import os\n", "import os\n"+line, 1), strings.Replace(string(code), "\n\n\n", "\n\n\n"+line, 1)})
		p.must(os.WriteFile(filepath.Join(p.dir, "app.py"), []byte(at), 0o640))
		w.logf("%s: code that reads %s", p.name, name)
	default:
		_ = os.Remove(filepath.Join(p.dir, migrate.PlanFile))
		w.logf("%s: the plan is deleted", p.name)
	}
}

// forget is what a person has thrown away: it may be gone.
func (w *world) forget(at string) {
	delete(w.truth, at)
}

// merge brings the other's plan and mapping files in, as git does where it needs
// help everywhere.
func (w *world) merge(p *person) {
	if len(w.people) < 2 {
		return
	}
	other := w.people[0]
	if other == p {
		other = w.people[1]
	}
	theirs := tree(w.t, other.dir)
	ours := tree(w.t, p.dir)
	for name, text := range theirs {
		if !strings.HasSuffix(name, ".toml") || ours[name] == text {
			continue
		}
		if mine, there := ours[name]; there {
			text = "<<<<<<< ours\n" + mine + "=======\n" + text + ">>>>>>> theirs\n"
		}
		write(w.t, p.dir, name, text)
	}
	// Nobody goes on with that before plan and apply have made one of it.
	w.logf("%s: merges what %s has", p.name, other.name)
	if err := p.replan(); err != nil {
		w.logf("%s: plan: %v", p.name, err)
		p.restoreTOML(ours)
		return
	}
	if _, err := p.apply(false); err != nil {
		w.logf("%s: apply: %v", p.name, err)
		p.restoreTOML(ours)
	}
}

// restoreTOML is git merge --abort.
func (p *person) restoreTOML(as map[string]string) {
	for name := range tree(p.t, p.dir) {
		if strings.HasSuffix(name, ".toml") {
			p.must(os.Remove(filepath.Join(p.dir, name)))
		}
	}
	p.plan = nil
	for name, text := range as {
		if strings.HasSuffix(name, ".toml") {
			write(p.t, p.dir, name, text)
		}
	}
	if _, there := as[migrate.PlanFile]; there {
		p.plan, _ = migrate.LoadPlan(filepath.Join(p.dir, migrate.PlanFile))
	}
}

// nothingLost: each value is in a tree, in Vault, or in a backup.
func (w *world) nothingLost() bool {
	if w.fault != "" {
		return false
	}
	var found []string
	for _, p := range w.people {
		for _, files := range propertyFiles {
			for _, f := range files {
				found = append(found, slices.Collect(maps.Values(p.envOf(f)))...)
			}
		}
	}
	missing := map[string]string{}
	for at, value := range w.truth {
		if !slices.Contains(found, value) {
			missing[at] = value
		}
	}
	for at, value := range missing {
		got, err := w.store.Read(w.t.Context(), "secret", "app/"+strings.ToLower(strings.ReplaceAll(at, "_", "-")))
		if err != nil {
			w.t.Fatal(err)
		}
		if got.Data["value"] == value {
			delete(missing, at)
		}
	}
	if len(missing) == 0 {
		return true
	}
	for _, p := range w.people {
		texts, err := migrate.BackedUp(p.dir, p.key)
		if err != nil {
			return w.fail("%s: backups: %v", p.name, err)
		}
		for at, value := range missing {
			if slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, strings.Split(value, "\n")[0]) }) {
				delete(missing, at)
			}
		}
	}
	for at, value := range missing {
		return w.fail("%s: %q is nowhere any more", at, value)
	}
	return true
}

var propertyTree = regexp.MustCompile(`^(?:(?:web/|conf/)?\.env(?:\.production)?|app\.py|strongroom-(?:migrate|env(?:\.development|\.production)?)\.toml)$`)

// nothingOpen: no file is in the tree that was not made to be there, and neither
// plan, mapping files nor the state folder hold a value.
func (w *world) nothingOpen(p *person) bool {
	err := filepath.WalkDir(p.dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(p.dir, full)
		rel = filepath.ToSlash(rel)
		inState := strings.HasPrefix(rel, migrate.StateDir+"/")
		if !inState && !propertyTree.MatchString(rel) {
			return fmt.Errorf("%s is in the tree", rel)
		}
		if strings.Contains(path.Base(rel), ".env") || strings.HasSuffix(rel, ".age") {
			return nil
		}
		data, err := os.ReadFile(full)
		if strings.Contains(string(data), "value-") {
			return fmt.Errorf("%s holds a value", rel)
		}
		return err
	})
	if err != nil {
		return w.fail("%s: %v", p.name, err)
	}
	return true
}

// finish ends where one undisturbed run would: everything moved and read, none in
// clear, and a run more changes nothing.
func (w *world) finish() bool {
	p := w.people[0]
	if len(w.people) > 1 {
		return true // the other may have taken back what this one reads
	}
	w.logf("%s: the end", p.name)
	before := p.program()
	for range 2 {
		if err := p.replan(); err != nil {
			return w.noPlan(p, err)
		}
		if _, err := p.apply(true); err != nil {
			return w.fail("apply: %v", err)
		}
		if r, err := p.cutover(); err != nil || len(r.Unplanned) > 0 {
			return w.fail("cutover: %v, %v", r.Unplanned, err)
		}
		after := p.program()
		for at := range before {
			if after[at] == "" {
				return w.fail("%s is not read any more", at)
			}
		}
		if values, where := p.inFiles(); len(values) > len(p.plain()) {
			return w.fail("in clear: %v", where)
		}
	}
	was := tree(w.t, p.dir)
	if err := p.replan(); err != nil {
		return w.fail("plan: %v", err)
	}
	if r, err := p.apply(false); err != nil || r.Written > 0 || !maps.Equal(was, tree(w.t, p.dir)) {
		return w.fail("a run more writes: %+v, %v", r, err)
	}
	if _, err := p.rollback(false); err != nil {
		return w.fail("rollback: %v", err)
	}
	after := p.program()
	for at := range before {
		if after[at] == "" {
			return w.fail("%s is not read after the rollback", at)
		}
	}
	return w.nothingLost() && w.nothingOpen(p)
}

// noPlan: nothing can be planned for a tree that is at odds with itself, as with
// one name in two files of one environment.
func (w *world) noPlan(p *person, err error) bool {
	if strings.Contains(err.Error(), "two secrets of the environment") {
		return true
	}
	return w.fail("%s: plan: %v", p.name, err)
}
