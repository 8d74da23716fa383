package doctor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ruleset is the appliance's table as nft prints it, libnftables-json(5).
type ruleset struct {
	there  bool
	chains map[string]chain
	rules  map[string][][]map[string]json.RawMessage // by chain
}

type chain struct {
	Family, Table, Name string
	Hook, Policy        string
}

func parseRuleset(data []byte) (*ruleset, error) {
	var all struct {
		NFTables []struct {
			Table *struct{ Family, Name string } `json:"table"`
			Chain *chain                         `json:"chain"`
			Rule  *struct {
				Family, Table, Chain string
				Expr                 []map[string]json.RawMessage
			} `json:"rule"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("an answer of another form: %w", err)
	}
	r := &ruleset{chains: map[string]chain{}, rules: map[string][][]map[string]json.RawMessage{}}
	ours := func(family, table string) bool { return family == "inet" && table == "strongroom" }
	for _, o := range all.NFTables {
		switch {
		case o.Table != nil && ours(o.Table.Family, o.Table.Name):
			r.there = true
		case o.Chain != nil && ours(o.Chain.Family, o.Chain.Table):
			r.chains[o.Chain.Name] = *o.Chain
		case o.Rule != nil && ours(o.Rule.Family, o.Rule.Table):
			r.rules[o.Rule.Chain] = append(r.rules[o.Rule.Chain], o.Rule.Expr)
		}
	}
	return r, nil
}

// faults compares the rules in force with what they are for.
func (r *ruleset) faults(allowed map[int]bool, vaultUID, frontUID int) []string {
	if !r.there {
		return []string{errNoRules.Error()}
	}
	var out []string
	if c := r.chains["input"]; c.Hook != "input" || c.Policy != "drop" {
		out = append(out, fmt.Sprintf("chain input has the hook %q and the policy %q, and must drop what comes in", c.Hook, c.Policy))
	}
	if c := r.chains["output"]; c.Hook != "output" {
		out = append(out, fmt.Sprintf("chain output has the hook %q, and so sees nothing", c.Hook))
	}
	for _, rule := range r.rules["input"] {
		if len(rule) == 1 && accepts(rule) {
			out = append(out, "chain input accepts everything")
		}
		if !accepts(rule) && !goesTo(rule, "ssh") {
			continue
		}
		for _, port := range tcpPorts(rule) {
			if !allowed[port] {
				out = append(out, fmt.Sprintf("chain input lets in port %d", port))
			}
		}
	}
	for chain, uid := range map[string]int{"vault_out": vaultUID, "front_out": frontUID} {
		bound := slices.ContainsFunc(r.rules["output"], func(rule []map[string]json.RawMessage) bool {
			return goesTo(rule, chain) && ofUser(rule, uid)
		})
		if !bound {
			out = append(out, fmt.Sprintf("uid %d may connect anywhere: nothing sends it to the chain %s", uid, chain))
			continue
		}
		rules := r.rules[chain]
		if len(rules) == 0 || !rejects(rules[len(rules)-1]) {
			out = append(out, fmt.Sprintf("chain %s does not end with a rejection", chain))
		}
	}
	slices.Sort(out)
	return out
}

// ports are those that may be reached, for the evidence.
func (r *ruleset) ports() string {
	var all []int
	for _, rule := range r.rules["input"] {
		if accepts(rule) || goesTo(rule, "ssh") {
			all = append(all, tcpPorts(rule)...)
		}
	}
	slices.Sort(all)
	var s []string
	for _, p := range slices.Compact(all) {
		s = append(s, strconv.Itoa(p))
	}
	return strings.Join(s, ", ")
}

func has(rule []map[string]json.RawMessage, verb string) bool {
	return slices.ContainsFunc(rule, func(m map[string]json.RawMessage) bool { _, ok := m[verb]; return ok })
}

func accepts(rule []map[string]json.RawMessage) bool { return has(rule, "accept") }
func rejects(rule []map[string]json.RawMessage) bool { return has(rule, "reject") || has(rule, "drop") }

func goesTo(rule []map[string]json.RawMessage, chain string) bool {
	for _, m := range rule {
		for _, verb := range []string{"goto", "jump"} {
			var to struct{ Target string }
			if raw, ok := m[verb]; ok && json.Unmarshal(raw, &to) == nil && to.Target == chain {
				return true
			}
		}
	}
	return false
}

type match struct {
	Op   string
	Left struct {
		Meta    struct{ Key string }
		Payload struct{ Protocol, Field string }
	}
	Right json.RawMessage
}

func matches(rule []map[string]json.RawMessage) []match {
	var out []match
	for _, m := range rule {
		raw, ok := m["match"]
		if !ok {
			continue
		}
		var x match
		// What is of another form is about something else.
		if err := json.Unmarshal(raw, &x); err == nil {
			out = append(out, x)
		}
	}
	return out
}

// ofUser says whether a rule is for a uid. nft prints a name where it knows one,
// unless it is asked for numbers.
func ofUser(rule []map[string]json.RawMessage, uid int) bool {
	for _, m := range matches(rule) {
		var n int
		if m.Left.Meta.Key == "skuid" && m.Op == "==" && json.Unmarshal(m.Right, &n) == nil && n == uid {
			return true
		}
	}
	return false
}

// tcpPorts are the ports that a rule names as the destination.
func tcpPorts(rule []map[string]json.RawMessage) []int {
	var out []int
	for _, m := range matches(rule) {
		if m.Left.Payload.Field != "dport" || m.Left.Payload.Protocol != "tcp" && m.Left.Payload.Protocol != "th" {
			continue
		}
		out = append(out, portsIn(m.Right)...)
	}
	return out
}

func portsIn(raw json.RawMessage) []int {
	var n int
	if json.Unmarshal(raw, &n) == nil {
		return []int{n}
	}
	var set struct {
		Set   []json.RawMessage
		Range []int
	}
	if json.Unmarshal(raw, &set) != nil {
		return nil
	}
	var out []int
	for _, e := range set.Set {
		out = append(out, portsIn(e)...)
	}
	if len(set.Range) == 2 && set.Range[1] >= set.Range[0] && set.Range[1]-set.Range[0] < 65536 {
		for p := set.Range[0]; p <= set.Range[1]; p++ {
			out = append(out, p)
		}
	}
	return out
}
