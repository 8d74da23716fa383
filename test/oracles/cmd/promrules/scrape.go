package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
)

// sample is a series with its value at the start.
type sample struct {
	labels labels.Labels
	value  float64
	time   bool // a Unix time that keeps pace with the clock
}

// scrapes are what the targets told, with what Prometheus adds to it.
type scrapes struct{ samples []sample }

const up = "up"

// scraped reads the targets' answers as a scrape does.
func scraped(req request) (*scrapes, error) {
	times, err := regexp.Compile(req.Times)
	if err != nil {
		return nil, err
	}
	b := &scrapes{}
	for _, t := range req.Targets {
		of := labels.FromMap(t.Labels)
		add := func(l labels.Labels, v float64) {
			name := l.Get(model.MetricNameLabel)
			with := labels.NewBuilder(l)
			of.Range(func(o labels.Label) { with.Set(o.Name, o.Value) })
			b.samples = append(b.samples, sample{with.Labels(), v, times.MatchString(name)})
		}
		add(labels.FromStrings(model.MetricNameLabel, up), 1)
		p := textparse.NewPromParser([]byte(t.Text), labels.NewSymbolTable(), false)
		for {
			entry, err := p.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", of, err)
			}
			if entry == textparse.EntrySeries {
				var l labels.Labels
				p.Labels(&l)
				_, _, v := p.Series()
				add(l, v)
			}
		}
	}
	return b, nil
}

// keep drops all metrics but those named.
func (b *scrapes) keep(names map[string]bool) {
	b.samples = slices.DeleteFunc(b.samples, func(s sample) bool {
		name := s.labels.Get(model.MetricNameLabel)
		return name != up && !names[name]
	})
}

// labelsOf are the names of labels that a metric has, its name's included.
func (b *scrapes) labelsOf(metric string) map[string]bool {
	out := map[string]bool{}
	for _, s := range b.samples {
		if s.labels.Get(model.MetricNameLabel) == metric {
			s.labels.Range(func(l labels.Label) { out[l.Name] = true })
		}
	}
	return out
}

// some tells whether a series of a metric matches.
func (b *scrapes) some(metric string, m *labels.Matcher) bool {
	return slices.ContainsFunc(b.samples, func(s sample) bool {
		return s.labels.Get(model.MetricNameLabel) == metric && m.Matches(s.labels.Get(m.Name))
	})
}

// changed is a series and what happens to it.
type changed struct {
	sample
	changes []change
	born    bool // not in the scrape: it is there from its first change on
}

// with puts changes on the series that they select, and makes a series where
// there is none: another value of a label that the metric has, else an error.
func (b *scrapes) with(changes []change, p parser.Parser) ([]changed, error) {
	var out []changed
	for _, s := range b.samples {
		out = append(out, changed{sample: s})
	}
	for _, c := range changes {
		matchers, err := p.ParseMetricSelector(c.Series)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Series, err)
		}
		hit := false
		for i := range out {
			l := out[i].labels
			if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(l.Get(m.Name)) }) {
				out[i].changes = append(out[i].changes, c)
				hit = true
			}
		}
		if hit {
			if c.Down {
				out = down(out, matchers, c)
			}
			continue
		}
		s, err := b.another(matchers)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Series, err)
		}
		out = append(out, changed{s, []change{c}, true})
	}
	return out, nil
}

// down makes everything of the targets that are down missing.
func down(all []changed, matchers []*labels.Matcher, c change) []changed {
	gone := change{From: c.From, To: c.To, Gone: true}
	for i := range all {
		l := all[i].labels
		if l.Get(model.MetricNameLabel) != up && !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool {
			return m.Name != model.MetricNameLabel && !m.Matches(l.Get(m.Name))
		}) {
			all[i].changes = append(all[i].changes, gone)
		}
	}
	return all
}

// another is a new series of a metric: one that is there, with the labels that
// are asked for.
func (b *scrapes) another(matchers []*labels.Matcher) (sample, error) {
	var name string
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			name = m.Value
		}
	}
	has := b.labelsOf(name)
	for _, s := range b.samples {
		if s.labels.Get(model.MetricNameLabel) != name {
			continue
		}
		l := labels.NewBuilder(s.labels)
		for _, m := range matchers {
			if m.Type != labels.MatchEqual || !has[m.Name] {
				return sample{}, fmt.Errorf("%q has no label for %s", name, m)
			}
			l.Set(m.Name, m.Value)
		}
		return sample{l.Labels(), 0, s.time}, nil
	}
	return sample{}, errors.New("the scrapes have no such metric, or no rule and no query names it")
}

// at is the value at a time, in seconds from the start; false: there is none.
func (c changed) at(start, now int64) (float64, bool) {
	v, there := c.value, !c.born
	if c.time && v != 0 {
		v += float64(now)
	}
	for _, ch := range c.changes {
		if now < ch.From {
			continue
		}
		over := ch.To != 0 && now >= ch.To
		switch {
		case ch.PerSecond != nil:
			until := now
			if over {
				until = ch.To
			}
			v += *ch.PerSecond * float64(until-ch.From)
			there = true
		case over:
		case ch.Gone:
			there = false
		case ch.Down:
			v = 0
		case ch.Age != nil:
			v, there = float64(start+ch.From)-*ch.Age, true
		case ch.Set != nil:
			v, there = *ch.Set, true
		}
	}
	return v, there
}

// stale marks the end of a series, as a scrape does that misses it.
var stale = math.Float64frombits(value.StaleNaN)
