package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strongroom.example/test/vaulttest"
)

// What promrules answers; its source says what each is.
type (
	firing struct {
		Name                string
		Labels, Annotations map[string]string
		Began, Ended        int64
	}
	found struct {
		Labels map[string]string
		Value  string
	}
	promAnswer struct {
		Problems []string
		Rules    []struct {
			Name string
			For  int64
		}
		Cases   [][]firing
		Queries [][]found
	}
	simulated struct {
		Until    int64    `json:"until"`
		Interval int64    `json:"interval"`
		Changes  []change `json:"changes"`
	}
	panelQuery struct{ Panel, Expr, Legend string }
)

// promrules has Prometheus' own code run rules over scrapes that change.
func promrules(t *testing.T, program, rules string, m *monitored, queries []string, cases []simulated) promAnswer {
	t.Helper()
	target := func(job, text string) map[string]any {
		return map[string]any{"labels": map[string]string{"job": job, "instance": "127.0.0.1:9468"}, "text": text}
	}
	in, err := json.Marshal(map[string]any{
		"start":   m.at.Unix(),
		"times":   `^strongroom_.*_(time|not_after|not_before|rotation)_seconds$`,
		"targets": []any{target("strongroom", m.metrics), target("strongroom-vault", m.vault)},
		"queries": queries, "cases": cases,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program, rules)
	var out, errOut bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), &out, &errOut
	if err := c.Run(); err != nil {
		t.Fatalf("promrules: %v\n%s", err, errOut.String())
	}
	var a promAnswer
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// written is what the program writes to standard output, in a file.
func written(t *testing.T, name string, args ...string) (path, text string) {
	t.Helper()
	code, out := strongroom(t.Context(), args...)
	if code != 0 {
		t.Fatalf("strongroom %v: exit code %d\n%s", args, code, out)
	}
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, out
}

// The times of a case, in seconds from its start.
const (
	interval = 60
	rarely   = 5 * interval // for a case of days
	breaks   = 2 * rarely
	after    = rarely
)

// Prometheus' own code reads the rules and runs them over real scrapes: a sound
// appliance makes no alert, and each thing that breaks makes its own and no
// other, not before its time, in words that are whole, until it is repaired. The
// dashboard's queries are of the form that Grafana's schema wants, and find
// something.
func TestAlertsAndDashboard(t *testing.T) {
	t.Parallel()
	prom, grafana := goOracle(t, "promrules"), goOracle(t, "grafana")
	m := monitoredVault(t)
	// The firewall is looked at on an installed machine alone.
	m.metrics += fmt.Sprintf("# TYPE strongroom_firewall_faults gauge\nstrongroom_firewall_faults 0\n"+
		"# TYPE strongroom_firewall_watch_time_seconds gauge\nstrongroom_firewall_watch_time_seconds %d\n", m.at.Unix())
	rules, _ := written(t, "strongroom.rules.yml", "metrics", "rules")
	_, dashboard := written(t, "strongroom.json", "metrics", "dashboard")

	panels, queries := dashboardQueries(t, grafana, dashboard)
	read := promrules(t, prom, rules, m, queries, []simulated{{Interval: interval}})
	for _, p := range read.Problems {
		t.Error(p)
	}
	holds := map[string]int64{}
	for _, r := range read.Rules {
		holds[r.Name] = r.For
		if !slices.ContainsFunc(alertCases, func(c alertCase) bool { return c.alert == r.Name }) {
			t.Errorf("alertCases: no row for %s", r.Name)
		}
	}
	if t.Failed() {
		return
	}

	// The tests' own disk may be as full as it likes, and people ask.
	sound := []change{
		set("strongroom_audit_disk_used_ratio", 0.5), set("strongroom_audit_failed", 0),
		grows(`strongroom_front_requests_total{code="2xx"}`, 1), grows("strongroom_front_request_duration_seconds_bucket", 1),
	}
	// First all that the dashboard shows, then more than a day of peace.
	cases := []simulated{
		{Until: breaks, Interval: interval, Changes: append(slices.Clone(sound), set(`strongroom_doctor_item_failed{item="swap"}`, 1))},
		{Until: day + 2*hour, Interval: rarely, Changes: sound},
	}
	repaired := make([]int64, len(alertCases))
	for i, c := range alertCases {
		hold := holds[c.alert]
		for _, name := range c.also {
			hold = max(hold, holds[name])
		}
		if c.alert == "" {
			hold = hour
		}
		repaired[i] = breaks + hold + c.slack + after
		s := simulated{Until: repaired[i] + c.lasts + after, Interval: interval, Changes: slices.Clone(sound)}
		if s.Until > day {
			s.Interval = rarely
		}
		for _, b := range c.bad {
			b.From, b.To = breaks, repaired[i]
			s.Changes = append(s.Changes, b)
		}
		cases = append(cases, s)
	}
	a := promrules(t, prom, rules, m, queries, cases)
	if len(a.Cases) != len(cases) || len(a.Queries) != len(queries) {
		t.Fatalf("%d of %d cases, %d of %d queries; %q", len(a.Cases), len(cases), len(a.Queries), len(queries), a.Problems)
	}
	for _, f := range slices.Concat(a.Cases[0], a.Cases[1]) {
		t.Errorf("a sound appliance: %s %v", f.Name, f.Labels)
	}
	for i, c := range alertCases {
		name := c.alert
		if name == "" {
			name = "none/" + c.bad[0].Series
		}
		t.Run(name, func(t *testing.T) { c.judge(t, a.Cases[i+2], holds, repaired[i]) })
	}
	for i, p := range panels {
		p.judge(t, a.Queries[i])
	}
}

var (
	broken = regexp.MustCompile(`\{\{|\}\}|<no value>|<error|%!|NaN|Inf`)
	page   = regexp.MustCompile(`docs/[a-z-]+\.md`)
)

// judge holds what fired against a row.
func (c alertCase) judge(t *testing.T, fired []firing, holds map[string]int64, repaired int64) {
	var names, want []string
	if c.alert != "" {
		want = append(slices.Clone(c.also), c.alert)
	}
	for _, f := range fired {
		names = append(names, f.Name)
		for key, text := range f.Annotations {
			if text == "" || broken.MatchString(text) {
				t.Errorf("%s: %s: %q", f.Name, key, text)
			}
			for _, file := range page.FindAllString(text, -1) {
				if _, err := os.Stat(filepath.Join(vaulttest.Root(t), file)); err != nil {
					t.Errorf("%s: %v", f.Name, err)
				}
			}
		}
		if f.Ended < repaired || f.Ended > repaired+c.lasts {
			t.Errorf("%s ends at %d s, repaired at %d s", f.Name, f.Ended, repaired)
		}
		begins := breaks + holds[f.Name]
		if f.Began < begins || f.Name == c.alert && f.Began > begins+c.slack {
			t.Errorf("%s fires at %d s, wanted from %d s on, %d s at most after", f.Name, f.Began, begins, c.slack)
		}
		if f.Name != c.alert {
			continue
		}
		if summary := os.Expand(c.summary, func(label string) string { return f.Labels[label] }); f.Annotations["summary"] != summary {
			t.Errorf("%s says %q, wanted %q", f.Name, f.Annotations["summary"], summary)
		}
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("%q fired, wanted %q", names, want)
	}
}

// dashboardQueries are a dashboard's queries with its variables filled in, once
// Grafana's own types have read it.
func dashboardQueries(t *testing.T, program, dashboard string) ([]panelQuery, []string) {
	t.Helper()
	type answer struct {
		Problems, Variables []string
		Queries             []panelQuery
	}
	// The strictness is real: each of these is seen.
	spoilt := []string{dashboard}
	for _, s := range [][2]string{
		{`"title": "Strongroom",`, `"title": "Strongroom", "tittle": "",`},
		{`"type": "stat",`, `"type": "stat", "colour": 1,`},
		{`"type": "stat",`, `"type": "sat",`},
		{`"refId": "A"`, `"refId": "A", "ref": 1`},
		{`"graphMode": "none"`, `"graphMode": 1`},
		{`"showLegend": true,`, ``},
		{`"unit": "short",`, `"units": "short",`},
		{`"w": 3`, `"w": 25`},
	} {
		text := strings.Replace(dashboard, s[0], s[1], 1)
		if text == dashboard {
			t.Fatalf("%s is not in the dashboard", s[0])
		}
		spoilt = append(spoilt, text)
	}
	answers := oracle[answer](t, exec.Command(program), spoilt)
	for i, a := range answers[1:] {
		if len(a.Problems) == 0 {
			t.Errorf("spoilt dashboard %d passes", i)
		}
	}
	a := answers[0]
	for _, p := range a.Problems {
		t.Error(p)
	}
	if !slices.Equal(a.Variables, []string{"datasource", "instance"}) || len(a.Queries) < 30 {
		t.Fatalf("variables %q, %d queries", a.Variables, len(a.Queries))
	}
	var queries []string
	for _, q := range a.Queries {
		// "All", which is chosen at first.
		text := strings.ReplaceAll(q.Expr, "$instance", ".*")
		if strings.Contains(text, "$") {
			t.Errorf("%s: an unknown variable in %s", q.Panel, q.Expr)
		}
		queries = append(queries, text)
	}
	return a.Queries, queries
}

var legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// judge wants a query to find something, numbers, and a legend that tells its
// series from each other.
func (p panelQuery) judge(t *testing.T, series []found) {
	if len(series) == 0 {
		t.Errorf("%s: %s finds nothing", p.Panel, p.Expr)
	}
	legends := map[string]bool{}
	for _, s := range series {
		if v, err := strconv.ParseFloat(s.Value, 64); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("%s: %s is %s", p.Panel, p.Expr, s.Value)
		}
		legend := legendLabel.ReplaceAllStringFunc(p.Legend, func(in string) string {
			label := legendLabel.FindStringSubmatch(in)[1]
			if s.Labels[label] == "" {
				t.Errorf("%s: the legend names %q, and %s has %v", p.Panel, label, p.Expr, s.Labels)
			}
			return s.Labels[label]
		})
		if legends[legend] {
			t.Errorf("%s: two series of %s are both called %q", p.Panel, p.Expr, legend)
		}
		legends[legend] = true
	}
}
