package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"strongroom.example/config/machine"
)

// ruleset is the appliance's table, each chain a list of lines: its head and its
// rules, in nft's own words, with what means nothing taken away. Two rulesets of
// the same lines do the same.
type ruleset map[string][]string

// loadedRules reads what nft -j prints, libnftables-json(5).
func loadedRules(data []byte) (ruleset, error) {
	var all struct {
		NFTables []struct {
			Table *struct{ Family, Name string } `json:"table"`
			Chain *struct {
				Family, Table, Name, Type, Hook, Policy string
				Prio                                    any
			} `json:"chain"`
			Rule *struct {
				Family, Table, Chain string
				Expr                 []map[string]any
			} `json:"rule"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("an answer of another form: %w", err)
	}
	if len(all.NFTables) == 0 {
		return nil, errNothing
	}
	ours := func(family, table string) bool { return family == "inet" && table == machine.FirewallTable }
	r := ruleset{}
	for _, o := range all.NFTables {
		switch c, rule := o.Chain, o.Rule; {
		case c != nil && ours(c.Family, c.Table):
			head := "chain"
			if c.Hook != "" {
				head = fmt.Sprintf("type %s hook %s priority %v policy %s", c.Type, c.Hook, c.Prio, c.Policy)
			}
			r[c.Name] = append([]string{head}, r[c.Name]...)
		case rule != nil && ours(rule.Family, rule.Table):
			var words []string
			for _, statement := range rule.Expr {
				words = append(words, statementWords(statement))
			}
			r[rule.Chain] = append(r[rule.Chain], plainRule(strings.Join(words, " ")))
		}
	}
	return r, nil
}

// writtenRules reads a file for nft -f, as the installer writes it.
func writtenRules(text string) ruleset {
	r := ruleset{}
	chain := ""
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		name, opens := strings.CutSuffix(line, "{")
		switch {
		case opens:
			chain, _ = strings.CutPrefix(strings.TrimSpace(name), "chain ")
			if chain == strings.TrimSpace(name) {
				chain = "" // a set's, or the table's
				continue
			}
			r[chain] = []string{"chain"}
		case line == "}":
			chain = ""
		case line == "" || chain == "":
		case strings.HasPrefix(line, "type "):
			line = strings.NewReplacer(";", "", "priority filter", "priority 0").Replace(line)
			r[chain][0] = strings.Join(strings.Fields(line), " ")
		default:
			r[chain] = append(r[chain], plainRule(line))
		}
	}
	return r
}

var (
	setOf   = regexp.MustCompile(`\{ ([^{}]*) \}`)
	flagsOf = regexp.MustCompile(`[a-z]+(?:,[a-z]+)+`)
	// protocols are what a rule names after l4proto, one or a set.
	protocols = regexp.MustCompile(`meta l4proto (?:\{ [^{}]* \}|\d+)`)
	protocol  = regexp.MustCompile(`\b(?:6|17)\b`)
	hostMask  = regexp.MustCompile(`(\d\.\d+\.\d+\.\d+)/32\b|(:[0-9a-f]*)/128\b`)
	nfproto   = regexp.MustCompile(`meta nfproto ipv[46] `)
)

// plainRule takes from a rule in which versions of nft differ, or which says the
// same: the order in a set, quotes, a set of one, the number of a protocol, the family that an address has.
func plainRule(rule string) string {
	rule = strings.Join(strings.Fields(strings.ReplaceAll(rule, `"`, "")), " ")
	// Without /etc/protocols nft knows no names of them.
	rule = protocols.ReplaceAllStringFunc(rule, func(list string) string {
		return protocol.ReplaceAllStringFunc(list, func(n string) string { return map[string]string{"6": "tcp", "17": "udp"}[n] })
	})
	rule = setOf.ReplaceAllStringFunc(rule, func(set string) string {
		in := strings.Split(strings.Trim(set, "{} "), ", ")
		if len(in) == 1 && !strings.Contains(in[0], " ") {
			return in[0]
		}
		slices.Sort(in)
		return "{ " + strings.Join(in, ", ") + " }"
	})
	rule = flagsOf.ReplaceAllStringFunc(rule, func(flags string) string {
		in := strings.Split(flags, ",")
		slices.Sort(in)
		return strings.Join(in, ",")
	})
	return nfproto.ReplaceAllString(hostMask.ReplaceAllString(rule, "$1$2"), "")
}

// statementWords is one statement in nft's own words, nft(8). What the appliance
// never writes stays JSON, and so equals nothing.
func statementWords(statement map[string]any) string {
	if len(statement) != 1 {
		return asJSON(statement)
	}
	for verb, v := range statement {
		m, _ := v.(map[string]any)
		switch verb {
		case "accept", "drop", "counter":
			return verb
		case "goto":
			return "goto " + text(m["target"])
		case "match":
			op := ""
			switch text(m["op"]) {
			case "==", "in":
			case "!=":
				op = "!= "
			default:
				return asJSON(statement)
			}
			return valueWords(m["left"]) + " " + op + valueWords(m["right"])
		case "reject":
			switch {
			case text(m["type"]) == "tcp reset":
				return "reject with tcp reset"
			case text(m["expr"]) != "":
				return "reject with " + text(m["type"]) + " type " + text(m["expr"])
			}
		case "limit":
			return limitWords(m)
		case "set":
			in, _ := m["stmt"].([]any)
			if len(in) == 1 && text(m["op"]) == "update" {
				only, _ := in[0].(map[string]any)
				return "update " + text(m["set"]) + " { " + valueWords(m["elem"]) + " " + statementWords(only) + " }"
			}
		}
	}
	return asJSON(statement)
}

func limitWords(m map[string]any) string {
	over := ""
	if m["inv"] == true {
		over = "over "
	}
	return fmt.Sprintf("limit rate %s%v/%v burst %v packets", over, m["rate"], m["per"], m["burst"])
}

func valueWords(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return fmt.Sprint(v)
	case []any:
		return joinWords(v, ",")
	case map[string]any:
		if len(v) != 1 {
			break
		}
		for kind, in := range v {
			m, _ := in.(map[string]any)
			list, _ := in.([]any)
			switch kind {
			case "meta":
				// nft(8): these two may go without the word.
				if key := text(m["key"]); key == "iifname" || key == "oifname" {
					return key
				}
				return "meta " + text(m["key"])
			case "ct":
				return "ct " + text(m["key"])
			case "payload":
				return text(m["protocol"]) + " " + text(m["field"])
			case "prefix":
				return fmt.Sprintf("%v/%v", m["addr"], m["len"])
			case "set":
				return "{ " + joinWords(list, ", ") + " }"
			case "&":
				return joinWords(list, " and ")
			}
		}
	}
	return asJSON(v)
}

func joinWords(list []any, with string) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = valueWords(v)
	}
	return strings.Join(words, with)
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%v", v)
	}
	return string(b)
}

// rules counts them.
func (r ruleset) rules() int {
	n := 0
	for _, lines := range r {
		n += len(lines) - 1
	}
	return n
}

// differences says in what r, which is in force, is another than want.
func (r ruleset) differences(want ruleset) []string {
	var out []string
	for _, chain := range slices.Sorted(maps.Keys(r)) {
		if want[chain] == nil {
			out = append(out, fmt.Sprintf("chain %s is in force, and is not of ours", chain))
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(want)) {
		have, need := r[chain], want[chain]
		if have == nil {
			out = append(out, fmt.Sprintf("chain %s is not there", chain))
			continue
		}
		before := len(out)
		for _, line := range have {
			if !slices.Contains(need, line) {
				out = append(out, fmt.Sprintf("chain %s has %q, which is not of ours", chain, line))
			}
		}
		for _, line := range need {
			if !slices.Contains(have, line) {
				out = append(out, fmt.Sprintf("chain %s lacks %q", chain, line))
			}
		}
		if len(out) == before && !slices.Equal(have, need) {
			out = append(out, fmt.Sprintf("chain %s has its rules in another order, or one twice", chain))
		}
	}
	return out
}
