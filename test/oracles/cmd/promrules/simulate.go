package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// simulation is one case: a storage, the rules over it, and what fired.
type simulation struct {
	dir    string
	db     *tsdb.DB
	engine *promql.Engine
	groups []*rules.Group
	rules  []rule
	fired  []firing
	open   map[string]int // in fired, by name and labels
}

// simulate lets scrapes and evaluations follow each other until the case's end.
func simulate(ctx context.Context, file string, req request, base *scrapes, c testCase, p parser.Parser) (s *simulation, err error) {
	if c.Interval <= 0 {
		return nil, fmt.Errorf("interval %d", c.Interval)
	}
	all, err := base.with(c.Changes, p)
	if err != nil {
		return nil, err
	}
	s = &simulation{open: map[string]int{}, fired: []firing{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "promrules-"); err != nil {
		return s, err
	}
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	o.MinBlockDuration = 100 * 24 * time.Hour.Milliseconds() // all of it stays in the head
	o.MaxBlockDuration = o.MinBlockDuration
	o.WALSegmentSize = -1 // none
	if s.db, err = tsdb.Open(s.dir, promslog.NewNopLogger(), nil, o, nil); err != nil {
		return s, err
	}
	s.engine = promql.NewEngine(promql.EngineOpts{
		MaxSamples: 10_000_000, Timeout: time.Hour, EnableAtModifier: true, EnableNegativeOffset: true, Parser: p,
	})
	m := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(s.engine, s.db), AppendableV2: s.db, Queryable: s.db, Context: ctx,
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, Logger: promslog.NewNopLogger(), Parser: p, ExternalURL: &url.URL{},
	})
	loaded, errs := m.LoadGroups(time.Duration(c.Interval)*time.Second, labels.EmptyLabels(), "", nil, false, file)
	if err = errors.Join(errs...); err != nil {
		return s, err
	}
	for _, key := range slices.Sorted(maps.Keys(loaded)) {
		g := loaded[key]
		s.groups = append(s.groups, g)
		for _, r := range g.AlertingRules() {
			r.SetRestored(true) // nothing is left of an earlier run
			s.rules = append(s.rules, rule{r.Name(), int64(r.HoldDuration().Seconds())})
		}
	}
	there := make([]bool, len(all))
	for now := int64(0); now <= c.Until; now += c.Interval {
		if err = s.scrape(ctx, req.Start, now, all, there); err != nil {
			return s, err
		}
		if err = s.evaluate(ctx, req.Start, now); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *simulation) scrape(ctx context.Context, start, now int64, all []changed, there []bool) error {
	app := s.db.AppenderV2(ctx)
	for i, c := range all {
		v, ok := c.at(start, now)
		if !ok && !there[i] {
			continue
		}
		there[i] = ok
		if !ok {
			v = stale
		}
		if _, err := app.Append(0, c.labels, 0, (start+now)*1000, v, nil, nil, storage.AppendV2Options{}); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", c.labels, err), app.Rollback())
		}
	}
	return app.Commit()
}

// evaluate runs every rule, and notes which alerts begin and end to fire.
func (s *simulation) evaluate(ctx context.Context, start, now int64) error {
	ended := maps.Clone(s.open)
	for _, g := range s.groups {
		g.Eval(ctx, time.Unix(start+now, 0))
		for _, r := range g.AlertingRules() {
			if err := r.LastError(); err != nil {
				return fmt.Errorf("%s: %w", r.Name(), err)
			}
			for _, a := range r.ActiveAlerts() {
				if a.State != rules.StateFiring {
					continue
				}
				key := a.Labels.String()
				delete(ended, key)
				if _, ok := s.open[key]; !ok {
					s.open[key] = len(s.fired)
					s.fired = append(s.fired, firing{r.Name(), a.Labels.Map(), a.Annotations.Map(), now, -1})
				}
			}
		}
	}
	for key, i := range ended {
		s.fired[i].Ended = now
		delete(s.open, key)
	}
	return nil
}

// queries are evaluated at one time.
func (s *simulation) queries(ctx context.Context, texts []string, at time.Time) ([][]series, error) {
	var out [][]series
	for _, text := range texts {
		q, err := s.engine.NewInstantQuery(ctx, s.db, nil, text, at)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		res := q.Exec(ctx)
		vector, err := res.Vector()
		if err != nil {
			q.Close()
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		found := []series{}
		for _, v := range vector {
			found = append(found, series{v.Metric.Map(), strconv.FormatFloat(v.F, 'g', -1, 64)})
		}
		q.Close()
		out = append(out, found)
	}
	return out, nil
}

func (s *simulation) close() error {
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
