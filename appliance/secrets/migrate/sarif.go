package migrate

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// SARIF writes findings in the form that code scanners exchange, version 2.1.0.
// with is what a baseline says of them; nil without one. No value is in it.
// Source: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
func SARIF(version string, all []Finding, with *Compared, notes []Problem) ([]byte, error) {
	type message struct {
		Text string `json:"text"`
	}
	type region struct {
		StartLine int `json:"startLine"`
	}
	type artifact struct {
		URI string `json:"uri"`
	}
	type physical struct {
		Artifact artifact `json:"artifactLocation"`
		Region   *region  `json:"region,omitempty"`
	}
	type location struct {
		Physical physical `json:"physicalLocation"`
	}
	type descriptor struct {
		ID    string  `json:"id"`
		Short message `json:"shortDescription"`
	}
	type result struct {
		RuleID       string            `json:"ruleId"`
		RuleIndex    int               `json:"ruleIndex"`
		Level        string            `json:"level"`
		Message      message           `json:"message"`
		Locations    []location        `json:"locations"`
		Baseline     string            `json:"baselineState,omitempty"`
		Fingerprints map[string]string `json:"partialFingerprints"`
	}
	type notification struct {
		Level     string     `json:"level"`
		Message   message    `json:"message"`
		Locations []location `json:"locations"`
	}
	type invocation struct {
		Successful    bool           `json:"executionSuccessful"`
		Notifications []notification `json:"toolExecutionNotifications"`
	}
	type driver struct {
		Name    string       `json:"name"`
		Version string       `json:"version"`
		Rules   []descriptor `json:"rules"`
	}
	type tool struct {
		Driver driver `json:"driver"`
	}
	type run struct {
		Tool        tool         `json:"tool"`
		Invocations []invocation `json:"invocations"`
		Results     []result     `json:"results"`
	}
	place := func(file string, line int) []location {
		l := location{physical{Artifact: artifact{(&url.URL{Path: file}).EscapedPath()}}}
		if line > 0 {
			l.Physical.Region = &region{line}
		}
		return []location{l}
	}
	r := run{Tool: tool{driver{Name: "strongroom migrate scan", Version: version, Rules: []descriptor{}}}, Results: []result{}}
	inv := invocation{Successful: true, Notifications: []notification{}}
	for _, p := range notes {
		level := "note"
		if p.Fatal {
			level, inv.Successful = "error", false
		}
		inv.Notifications = append(inv.Notifications, notification{level, message{p.Why}, place(p.File, p.Line)})
	}
	r.Invocations = []invocation{inv}
	isFresh, compared := map[string]bool{}, with != nil
	if !compared {
		with = &Compared{}
	}
	for _, f := range with.Fresh {
		isFresh[definitionKey(f.File, f.Line, f.Name+"\x00"+f.Rule)] = true
	}
	index, alike := map[string]int{}, map[string]int{}
	for _, f := range all {
		if _, ok := index[f.Rule]; !ok {
			index[f.Rule] = len(r.Tool.Driver.Rules)
			r.Tool.Driver.Rules = append(r.Tool.Driver.Rules, descriptor{f.Rule, message{ruleText(f.Rule)}})
		}
		what := f.Name
		if what == "" {
			what = "A text"
		}
		res := result{
			RuleID: f.Rule, RuleIndex: index[f.Rule], Level: "error", Locations: place(f.File, f.Line),
			Message: message{fmt.Sprintf("%s %s. What to do: %s.", what, strings.Join(f.Secret, "; "), f.Advice)},
		}
		k := with.known(f) // a file that was moved keeps its fingerprints
		alike[k.key()]++
		res.Fingerprints = map[string]string{"strongroomFinding/v1": fmt.Sprintf("%s:%s:%s:%d", k.File, k.Name, k.Rule, alike[k.key()])}
		if compared {
			res.Baseline = "new"
			if !isFresh[definitionKey(f.File, f.Line, f.Name+"\x00"+f.Rule)] {
				res.Baseline, res.Level = "unchanged", "note"
			}
		}
		r.Results = append(r.Results, res)
	}
	return json.MarshalIndent(struct {
		Schema  string `json:"$schema"`
		Version string `json:"version"`
		Runs    []run  `json:"runs"`
	}{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []run{r}}, "", "  ")
}

// ruleText says what a rule of a Judgment, or of a file's kind, goes by.
func ruleText(rule string) string {
	if id, ok := strings.CutPrefix(rule, "token-"); ok {
		return "The value has the form of a " + id + "."
	}
	texts := [][2]string{
		{"name", "The name says that it is a secret."},
		{"part", "A part of the value is a secret."},
		{"random", "The value looks random."},
		{"private-key", "A private key."},
		{"hash", "A hash of a password, which is guessed at offline."},
		{"reference", "The value takes another secret."},
		{"kubernetes", "An entry of a Secret of Kubernetes."},
	}
	if i := slices.IndexFunc(texts, func(t [2]string) bool { return t[0] == rule }); i >= 0 {
		return texts[i][1]
	}
	return "A secret."
}
