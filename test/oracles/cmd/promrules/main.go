// Command promrules runs a file of alert rules with Prometheus' own parser,
// storage, query engine and rule manager. The argument is the file; standard
// input a JSON request, standard output the answer to it.
//
// It is no promtool: time series come from a real scrape instead of being
// written by hand, and every alert that fires is told, instead of those that a
// test thought of.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// target is something that Prometheus scrapes.
type target struct {
	Labels map[string]string `json:"labels"` // job and instance
	Text   string            `json:"text"`   // as it answered at the start
}

// change is what is wrong for a while: exactly one of Set, PerSecond, Age and
// Gone. Times are seconds from the start.
type change struct {
	Series string `json:"series"` // a selector; one that matches nothing makes a series
	From   int64  `json:"from"`
	To     int64  `json:"to"` // 0: until the end

	Set       *float64 `json:"set,omitempty"`        // the value
	PerSecond *float64 `json:"per_second,omitempty"` // growth of a counter; it keeps what it grew to
	Age       *float64 `json:"age,omitempty"`        // a time that stands still, seconds before From
	Gone      bool     `json:"gone,omitempty"`       // the series is missing
	Down      bool     `json:"down,omitempty"`       // the target's scrapes fail; Series selects among up
}

type testCase struct {
	Until    int64    `json:"until"`    // seconds from the start
	Interval int64    `json:"interval"` // of scrapes and evaluations, seconds
	Changes  []change `json:"changes"`
}

type request struct {
	Start   int64      `json:"start"` // Unix time of the scrapes
	Times   string     `json:"times"` // metrics that are Unix times and keep pace with the clock: a regular expression
	Targets []target   `json:"targets"`
	Queries []string   `json:"queries"` // evaluated at the end of the first case
	Cases   []testCase `json:"cases"`
}

// firing is an alert that fired. Times are seconds from the start.
type firing struct {
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"` // when it began
	Began       int64             `json:"began"`
	Ended       int64             `json:"ended"` // -1: it still fires at the end
}

type rule struct {
	Name string `json:"name"`
	For  int64  `json:"for"` // seconds
}

// series is what a query finds.
type series struct {
	Labels map[string]string `json:"labels"`
	Value  string            `json:"value"` // also NaN and +Inf
}

type answer struct {
	// Problems are what promtool check rules would tell, and names that are in
	// no scrape.
	Problems []string   `json:"problems"`
	Rules    []rule     `json:"rules"`
	Cases    [][]firing `json:"cases"`
	Queries  [][]series `json:"queries"`
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: promrules RULES < request.json")
	}
	if err := run(context.Background(), os.Args[1], os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, file string, r io.Reader, w io.Writer) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	var req request
	if err := dec.Decode(&req); err != nil {
		return err
	}
	p := parser.NewParser(parser.Options{})
	a := answer{Problems: []string{}}
	exprs, problems := check(file, p)
	a.Problems = append(a.Problems, problems...)
	for _, q := range req.Queries {
		exprs = append(exprs, expression{"query", q})
	}
	base, err := scraped(req)
	if err != nil {
		return err
	}
	names, problems := base.check(exprs, p)
	a.Problems = append(a.Problems, problems...)
	if len(a.Problems) == 0 {
		base.keep(names)
		for i, c := range req.Cases {
			s, err := simulate(ctx, file, req, base, c, p)
			if err != nil {
				return err
			}
			if i == 0 {
				a.Rules = s.rules
				a.Queries, err = s.queries(ctx, req.Queries, time.Unix(req.Start+c.Until, 0))
			}
			if cerr := s.close(); err == nil {
				err = cerr
			}
			if err != nil {
				return err
			}
			a.Cases = append(a.Cases, s.fired)
		}
	}
	return json.NewEncoder(w).Encode(a)
}
