package metrics

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"strongroom.example/config"
	"strongroom.example/plugin/condition"
)

// ruleFile is Prometheus' form of alert rules.
type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			For         string            `yaml:"for"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

var metricName = regexp.MustCompile(`\b(?:strongroom|vault)_[a-z0-9_]+\b`)

// ours wants every metric with our prefix that an expression names to be one
// that this package emits. The front's, the engine's and Vault's own are looked
// for in a real scrape, by test/e2e.
func ours(t *testing.T, where, expr string) {
	t.Helper()
	found := metricName.FindAllString(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s: %q names no metric", where, expr)
	}
	for _, n := range found {
		if strings.HasPrefix(n, prefix) && !strings.HasPrefix(n, frontPrefix) && !slices.Contains(names(), n) {
			t.Errorf("%s: %q is not told by anybody", where, n)
		}
	}
}

func TestAlertRules(t *testing.T) {
	var rules ruleFile
	dec := yaml.NewDecoder(strings.NewReader(string(config.AlertRules())))
	dec.KnownFields(true)
	if err := dec.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || seen[r.Alert] || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: %q has no name of its own, or doesn't say what is wrong and what to do", g.Name, r.Alert)
			}
			seen[r.Alert] = true
			if !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
				t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
			}
			ours(t, r.Alert, r.Expr)
			if strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")") || strings.Count(r.Expr, "{") != strings.Count(r.Expr, "}") {
				t.Errorf("%s: brackets of %q", r.Alert, r.Expr)
			}
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d rules", len(seen))
	}
}

// Each condition of a key that needs somebody fires the rule that the table names,
// and no other; so does a word that nobody knows yet.
func TestConditionsFireTheirAlert(t *testing.T) {
	var rules ruleFile
	if err := yaml.Unmarshal(config.AlertRules(), &rules); err != nil {
		t.Fatal(err)
	}
	selector := regexp.MustCompile(`strongroom_keys\{condition(=~|!~|=|!=)"([^"]*)"\}`)
	for _, c := range append(condition.All(), condition.Of("a word of tomorrow")) {
		var fired []string
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				for _, m := range selector.FindAllStringSubmatch(r.Expr, -1) {
					// Prometheus' patterns match the whole value.
					matches := regexp.MustCompile("^(?:" + m[2] + ")$").MatchString(string(c.Name))
					if matches != strings.HasPrefix(m[1], "!") {
						fired = append(fired, r.Alert)
					}
				}
			}
		}
		if got := strings.Join(fired, " "); got != c.Alert {
			t.Errorf("%s fires %q, want %q", c.Name, got, c.Alert)
		}
	}
}

func TestDashboard(t *testing.T) {
	var d struct {
		UID    string `json:"uid"`
		Panels []struct {
			ID      int    `json:"id"`
			Type    string `json:"type"`
			Title   string `json:"title"`
			GridPos struct{ X, Y, W, H int }
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(config.GrafanaDashboard(), &d); err != nil {
		t.Fatal(err)
	}
	ids, fields := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := fields[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("panel %q lies on %q, or outside", p.Title, other)
				}
				fields[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			ours(t, p.Title, target.Expr)
		}
	}
}
