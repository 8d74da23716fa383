package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
)

// machine is a set of settings that can be made to fail.
type machine struct {
	state map[string]string
	calls int
	// failAt is the action that fails, from 1; 0: none. afterEffect lets it
	// take effect first, as when the process is killed right behind it.
	failAt      int
	afterEffect bool
}

var errBroken = errors.New("broken for the test")

func (m *machine) set(k, v string) error {
	m.calls++
	if m.calls == m.failAt && !m.afterEffect {
		return errBroken
	}
	m.state[k] = v
	if m.calls == m.failAt {
		return errBroken
	}
	return nil
}

// setting is a step that wants key=value for each pair, in order.
type setting struct {
	id   string
	m    *machine
	want [][2]string
	// stubborn settings claim success and change nothing.
	stubborn bool
	checkErr error
}

func (s *setting) ID() string    { return s.id }
func (s *setting) Title() string { return "setting " + s.id }

func (s *setting) Check(context.Context) (Diff, error) {
	if s.checkErr != nil {
		return nil, s.checkErr
	}
	var d Diff
	for _, kv := range s.want {
		if got := s.m.state[kv[0]]; got != kv[1] {
			d = append(d, Change{What: kv[0], From: got, To: kv[1], Apply: func(context.Context) error {
				if s.stubborn {
					return nil
				}
				return s.m.set(kv[0], kv[1])
			}})
		}
	}
	return d, nil
}

func steps(m *machine) []Step {
	return []Step{
		&setting{id: "one", m: m, want: [][2]string{{"a", "1"}, {"b", "2"}}},
		&setting{id: "two", m: m, want: [][2]string{{"c", "3"}}},
		&setting{id: "three", m: m, want: [][2]string{{"d", "4"}, {"e", "5"}, {"f", "6"}}},
	}
}

var wanted = map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6"}

// tick is a clock that moves 10 ms at each look.
func tick() func() time.Time {
	t := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return func() time.Time { t = t.Add(10 * time.Millisecond); return t }
}

func engine(t *testing.T, m *machine, journal string) (*Engine, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	now := tick()
	e := &Engine{Steps: steps(m), Out: &out, Now: now}
	if journal != "" {
		j, err := OpenJournal(journal, "1.2.3", now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { j.Close() })
		e.Journal = j
	}
	return e, &out
}

func TestInstallThenNothingToChange(t *testing.T) {
	m := &machine{state: map[string]string{"c": "3"}}
	journal := filepath.Join(t.TempDir(), "state", "journal")
	e, out := engine(t, m, journal)
	res, err := e.Install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(m.state, wanted) {
		t.Errorf("state = %v", m.state)
	}
	if res.Steps != 3 || res.Changed != 2 || res.Changes != 5 {
		t.Errorf("result = %+v", res)
	}
	for _, want := range []string{"✓ [ 1/3] setting one", "2 changes", "= [ 2/3] setting two", "no change", "Done: 5 changes in 2 of 3 steps"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}

	calls := m.calls
	e, out = engine(t, m, journal)
	if _, err := e.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.calls != calls {
		t.Errorf("the second run made %d actions", m.calls-calls)
	}
	if !strings.Contains(out.String(), "Nothing to change: all 3 steps are as they should be") {
		t.Errorf("the second run doesn't say so:\n%s", out)
	}
}

func TestPlanChangesNothing(t *testing.T) {
	m := &machine{state: map[string]string{"a": "0", "c": "3"}}
	e, out := engine(t, m, "")
	_, err := e.Plan(t.Context())
	var ee *fault.Error
	if !errors.As(err, &ee) || ee.Code != fault.Drift {
		t.Errorf("error = %v, want exit code %d", err, fault.Drift)
	}
	if m.calls != 0 {
		t.Errorf("plan made %d actions", m.calls)
	}
	for _, want := range []string{"~ a: 0 → 1", "+ b: 2", "= setting two", "2 of 3 steps have 5 changes. Nothing has been changed."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	m.state = maps.Clone(wanted)
	if _, err := e.Plan(t.Context()); err != nil {
		t.Errorf("plan on a machine that is right: %v", err)
	}
}

func TestEveryActionFails(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; n <= len(wanted); n++ {
			t.Run(fmt.Sprintf("action %d after=%v", n, after), func(t *testing.T) {
				m := &machine{state: map[string]string{}, failAt: n, afterEffect: after}
				journal := filepath.Join(t.TempDir(), "journal")
				e, out := engine(t, m, journal)
				_, err := e.Install(t.Context())
				if !errors.Is(err, errBroken) {
					t.Fatalf("error = %v", err)
				}
				if !strings.Contains(out.String(), "✗") {
					t.Errorf("no mark of the failure:\n%s", out)
				}
				if e.Journal.Finished() {
					t.Error("the journal calls a failed run finished")
				}
				e, _ = engine(t, m, journal)
				if e.Journal.Finished() {
					t.Error("the journal read back calls a failed run finished")
				}
				if _, err := e.Install(t.Context()); err != nil {
					t.Fatalf("second run: %v", err)
				}
				if !maps.Equal(m.state, wanted) {
					t.Errorf("state = %v", m.state)
				}
				e, _ = engine(t, m, journal)
				if !e.Journal.Finished() {
					t.Error("the journal doesn't know that the second run ended well")
				}
				calls := m.calls
				if _, err := e.Install(t.Context()); err != nil || m.calls != calls {
					t.Errorf("third run: %v, %d actions", err, m.calls-calls)
				}
			})
		}
	}
}

func TestStubbornStepIsFound(t *testing.T) {
	m := &machine{state: map[string]string{}}
	e, _ := engine(t, m, "")
	e.Steps[1].(*setting).stubborn = true
	_, err := e.Install(t.Context())
	if err == nil || !strings.Contains(err.Error(), `step "two": c: still differs after the change`) {
		t.Errorf("error = %v", err)
	}
	if m.state["d"] != "" {
		t.Error("a later step ran")
	}
}

func TestErrorsKeepCodeAndHint(t *testing.T) {
	m := &machine{state: map[string]string{}}
	e, _ := engine(t, m, "")
	e.Steps[0].(*setting).checkErr = &fault.Error{Code: fault.Operator, Err: errors.New("no SSH key"), Hint: "add one"}
	_, err := e.Install(t.Context())
	var out bytes.Buffer
	if code := fault.Report(&out, "prog", err); code != fault.Operator {
		t.Errorf("code = %d, want %d", code, fault.Operator)
	}
	if got, want := out.String(), "prog: step \"one\": check: no SSH key\n  → add one\n"; got != want {
		t.Errorf("report = %q, want %q", got, want)
	}
}

func TestStopBetweenActions(t *testing.T) {
	m := &machine{state: map[string]string{}}
	e, _ := engine(t, m, "")
	ctx, cancel := context.WithCancel(t.Context())
	e.Steps[0].(*setting).want = nil
	e.Steps[1] = stopStep{e.Steps[1], cancel}
	if _, err := e.Install(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if len(m.state) != 0 {
		t.Errorf("state = %v after the stop", m.state)
	}
}

// stopStep cancels while it is checked.
type stopStep struct {
	Step
	cancel context.CancelFunc
}

func (s stopStep) Check(ctx context.Context) (Diff, error) {
	s.cancel()
	return s.Step.Check(ctx)
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	// A line cut off by a crash, and one that is none.
	if err := os.WriteFile(path, []byte("rubbish\n"+`{"event":"begin","step":"s","what":"w"}`+"\n"+`{"event":"do`), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := OpenJournal(path, "v", tick())
	if err != nil {
		t.Fatal(err)
	}
	if j.Unfinished("s", "w") || j.Unfinished("s", "x") || j.Finished() {
		t.Errorf("entries = %+v", j.old)
	}
	if err := j.add(Entry{Event: EventDone}); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if j, err = OpenJournal(path, "v", tick()); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if !j.Finished() || len(j.old) != 2 {
		t.Errorf("entries = %+v", j.old)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("journal's mode = %v, %v", fi.Mode(), err)
	}
}

func TestFullJournalStopsTheRun(t *testing.T) {
	m := &machine{state: map[string]string{}}
	e, _ := engine(t, m, "")
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full: ", err)
	}
	defer f.Close()
	e.Journal = &Journal{f: f, now: tick()}
	if _, err := e.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "journal") {
		t.Errorf("error = %v", err)
	}
	if m.calls != 0 {
		t.Error("changes were made that the journal doesn't know of")
	}
}

// slowStep has one slow change, which notes what was shown before it.
type slowStep struct {
	out   *bytes.Buffer
	shown string
}

func (*slowStep) ID() string    { return "slow" }
func (*slowStep) Title() string { return "first snapshot" }

func (s *slowStep) Check(context.Context) (Diff, error) {
	if s.shown != "" {
		return nil, nil
	}
	return Diff{{What: "snapshot", To: "taken", Slow: true, Apply: func(context.Context) error {
		s.shown = s.out.String()
		return nil
	}}}, nil
}

// What takes long is named before it, not only when it has ended.
func TestSlowChangeIsShownBefore(t *testing.T) {
	var out bytes.Buffer
	s := &slowStep{out: &out}
	if _, err := (&Engine{Steps: []Step{s}, Out: &out, Now: time.Now}).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "… [ 1/1] first snapshot\n"; s.shown != want {
		t.Errorf("shown before the change: %q, want %q", s.shown, want)
	}
}
