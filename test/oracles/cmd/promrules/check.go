package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
)

// expression is PromQL, and who says it.
type expression struct{ where, text string }

// check does what promtool check rules does, its lint included, and returns the
// rules' expressions.
func check(file string, p parser.Parser) (exprs []expression, problems []string) {
	groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, p, promslog.NewNopLogger())
	for _, err := range errs {
		problems = append(problems, err.Error())
	}
	if groups == nil {
		return nil, problems
	}
	seen := map[string]bool{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				problems = append(problems, fmt.Sprintf("%s: %q is no alert", g.Name, r.Record))
			}
			key := r.Alert + rules.FromMaps(g.Labels, r.Labels).String()
			if seen[key] {
				problems = append(problems, fmt.Sprintf("%s: a second rule with its labels", r.Alert))
			}
			seen[key] = true
			exprs = append(exprs, expression{r.Alert, r.Expr})
		}
	}
	return exprs, problems
}

// check wants each metric that an expression names to be in the scrapes, with
// the labels that it is asked for and grouped by; and it says which metrics
// these are.
func (b *scrapes) check(exprs []expression, p parser.Parser) (names map[string]bool, problems []string) {
	names = map[string]bool{}
	for _, e := range exprs {
		found := func(format string, args ...any) {
			problems = append(problems, fmt.Sprintf("%s: %s: %s", e.where, e.text, fmt.Sprintf(format, args...)))
		}
		expr, err := p.ParseExpr(e.text)
		if err != nil {
			found("%v", err)
			continue
		}
		all := map[string]bool{}
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			s, ok := node.(*parser.VectorSelector)
			if !ok {
				return nil
			}
			names[s.Name] = true
			has := b.labelsOf(s.Name)
			if len(has) == 0 {
				found("%q is in no scrape", s.Name)
				return nil
			}
			maps.Copy(all, has)
			for _, m := range s.LabelMatchers {
				switch {
				case !has[m.Name]:
					found("%q has no label %q", s.Name, m.Name)
				case m.Type == labels.MatchEqual && m.Name != model.MetricNameLabel && !b.some(s.Name, m):
					found("%q has nothing with %s", s.Name, m)
				}
			}
			return nil
		})
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			var used []string
			switch n := node.(type) {
			case *parser.AggregateExpr:
				used = n.Grouping
			case *parser.BinaryExpr:
				if n.VectorMatching != nil {
					used = slices.Concat(n.VectorMatching.MatchingLabels, n.VectorMatching.Include)
				}
			}
			for _, label := range used {
				if !all[label] {
					found("nothing in it has the label %q", label)
				}
			}
			return nil
		})
	}
	slices.SortFunc(problems, strings.Compare)
	return names, problems
}
