// Command grafana reads dashboards with the types that Grafana generates from
// its own schema, strictly: what the schema does not know, or knows in another
// form, is a problem. Standard input: a JSON text per line, a dashboard.
// Standard output for each: its panels and problems.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"

	"strongroom.example/test/oracles/lines"
)

type query struct {
	Panel  string `json:"panel"`
	Expr   string `json:"expr"`
	Legend string `json:"legend"`
}

type answer struct {
	Problems  []string `json:"problems"`
	Variables []string `json:"variables"`
	Queries   []query  `json:"queries"`
}

func main() {
	r := cog.NewRuntime()
	for _, panel := range []variants.PanelcfgConfig{stat.VariantConfig(), timeseries.VariantConfig(), bargauge.VariantConfig(), table.VariantConfig()} {
		r.RegisterPanelcfgVariant(panel)
	}
	r.RegisterDataqueryVariant(prometheus.VariantConfig())
	if err := lines.Answer(os.Stdin, os.Stdout, read); err != nil {
		log.Fatal(err)
	}
}

func read(text string) answer {
	a := answer{Problems: []string{}}
	found := func(format string, args ...any) { a.Problems = append(a.Problems, fmt.Sprintf(format, args...)) }
	// The strict reading gives an error without content where it finds nothing
	// wrong, and forgets its queries for it: what it finds counts, and the
	// ordinary reading has the dashboard.
	//lint:ignore SA1019 files are of this form, which every Grafana imports
	if err := new(dashboard.Dashboard).UnmarshalJSONStrict([]byte(text)); err != nil {
		var all cog.BuildErrors
		if !errors.As(err, &all) {
			found("%v", err)
			return a
		}
		for _, e := range all {
			found("%v", e)
		}
	}
	//lint:ignore SA1019 as above
	var d dashboard.Dashboard
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		found("%v", err)
		return a
	}
	var invalid cog.BuildErrors
	if err := d.Validate(); err != nil && (!errors.As(err, &invalid) || len(invalid) > 0) {
		found("%v", err)
	}
	for _, err := range fieldConfigs(text) {
		found("%v", err)
	}
	for _, v := range d.Templating.List {
		a.Variables = append(a.Variables, v.Name)
	}
	for _, p := range d.Panels {
		if p.Panel == nil {
			continue // a row, which has no queries
		}
		title := ""
		if p.Panel.Title != nil {
			title = *p.Panel.Title
		}
		if _, ok := cog.ConfigForPanelcfgVariant(p.Panel.Type); !ok {
			found("%s: the form of panels of type %q is not looked at", title, p.Panel.Type)
		}
		for _, t := range p.Panel.Targets {
			switch q := t.(type) {
			case *prometheus.Dataquery:
				a.Queries = append(a.Queries, asked(title, *q))
			case prometheus.Dataquery:
				a.Queries = append(a.Queries, asked(title, q))
			default:
				found("%s: a query of type %T", title, t)
			}
		}
	}
	return a
}

func asked(panel string, q prometheus.Dataquery) query {
	out := query{Panel: panel, Expr: q.Expr}
	if q.LegendFormat != nil {
		out.Legend = *q.LegendFormat
	}
	return out
}

// fieldConfigs are read on their own: the strict reading of a panel looks at no
// more than their custom part.
func fieldConfigs(text string) []error {
	var d struct {
		Panels []struct {
			Title       string          `json:"title"`
			FieldConfig json.RawMessage `json:"fieldConfig"`
		} `json:"panels"`
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return []error{err}
	}
	var out []error
	for _, p := range d.Panels {
		var all cog.BuildErrors
		if err := new(dashboard.FieldConfigSource).UnmarshalJSONStrict(p.FieldConfig); err != nil && !errors.As(err, &all) {
			out = append(out, fmt.Errorf("%s: %w", p.Title, err))
		}
		for _, e := range all {
			out = append(out, fmt.Errorf("%s: fieldConfig.%w", p.Title, e))
		}
	}
	return out
}
