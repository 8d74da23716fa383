package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"strongroom.example/config/machine"
)

// ruleset is the appliance's table, each chain, set and counter a list of lines: its head
// and its rules, in nft's own words, with what means nothing taken away. Two rulesets of
// the same lines do the same. Sets and counters have their names with that word before
// them.
type ruleset map[string][]string

const (
	setPrefix     = "set "
	counterPrefix = "counter "
	// asleep is where a table is that has no rule in force: it has flags, of which nft
	// knows dormant alone.
	asleep = "table"
)

// setHead is what of a set matters; dynamic is what nft 1.0 does not print.
func setHead(kind, size string, timeout time.Duration) []string {
	return []string{fmt.Sprintf("type %s size %s timeout %v", kind, size, timeout)}
}

// loadedRules reads what nft -j prints, libnftables-json(5).
func loadedRules(data []byte) (ruleset, error) {
	var all struct {
		NFTables []struct {
			Table *struct {
				Family, Name string
				Flags        any
			} `json:"table"`
			Set *struct {
				Family, Table, Name string
				Type                any
				Size, Timeout       int64
			} `json:"set"`
			Counter *struct{ Family, Table, Name string } `json:"counter"`
			Chain   *struct {
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
		switch c, rule, set := o.Chain, o.Rule, o.Set; {
		case o.Table != nil && ours(o.Table.Family, o.Table.Name) && o.Table.Flags != nil:
			r[asleep] = []string{"flags dormant"}
		case set != nil && ours(set.Family, set.Table):
			r[setPrefix+set.Name] = setHead(text(set.Type), fmt.Sprint(set.Size), time.Duration(set.Timeout)*time.Second)
		case o.Counter != nil && ours(o.Counter.Family, o.Counter.Table):
			r[counterPrefix+o.Counter.Name] = []string{"counter"}
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
	var set map[string]string // what of a set was read
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		name, opens := strings.CutSuffix(line, "{")
		switch {
		case opens:
			name = strings.TrimSpace(name)
			chain, _ = strings.CutPrefix(name, "chain ")
			switch {
			case strings.HasPrefix(name, setPrefix):
				r[name] = setHead("", "", 0)
				set = map[string]string{}
			case strings.HasPrefix(name, counterPrefix):
				r[name] = []string{"counter"}
			case chain == name:
				chain = "" // the table's
			default:
				r[chain] = []string{"chain"}
			}
		case line == "}":
			chain, set = "", nil
		case set != nil:
			key, value, _ := strings.Cut(line, " ")
			set[key] = value
			timeout, err := time.ParseDuration(set["timeout"])
			if err != nil {
				timeout = 0
			}
			r[chain] = setHead(set["type"], set["size"], timeout)
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
	hexNumber = regexp.MustCompile(`\b0x[0-9a-f]+\b`)
	bitsOf    = regexp.MustCompile(`\(([^()]*)\)`)
)

// plainRule takes from a rule in which versions of nft differ, or which says the
// same: the order in a set, quotes, a set of one, the number of a protocol, the family that an address has,
// the base of a number, the sign of equality.
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
	rule = hexNumber.ReplaceAllStringFunc(rule, func(n string) string {
		v, err := strconv.ParseUint(n, 0, 32)
		if err != nil {
			return n
		}
		return fmt.Sprint(v)
	})
	rule = bitsOf.ReplaceAllStringFunc(rule, func(bits string) string {
		in := strings.Split(strings.Trim(bits, "()"), " | ")
		slices.Sort(in)
		return "(" + strings.Join(in, " | ") + ")"
	})
	rule = strings.ReplaceAll(rule, " == ", " ")
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
		case "accept", "drop", "return":
			return verb
		case "counter":
			if name, ok := v.(string); ok {
				return "counter name " + name
			}
			return verb
		case "goto", "jump":
			return verb + " " + text(m["target"])
		case "ct count":
			if m["inv"] == true {
				return "ct count over " + valueWords(m["val"])
			}
		case "mangle":
			return valueWords(m["key"]) + " set " + valueWords(m["value"])
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
			if m["stmt"] == nil && text(m["op"]) == "update" {
				return "update " + text(m["set"]) + " { " + valueWords(m["elem"]) + " }"
			}
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
		return strconv.FormatFloat(v, 'f', -1, 64)
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
				// nft 1.0 prints several bits as a list, 1.1 as their union.
				for n, v := range list {
					if bits, ok := v.([]any); ok {
						list[n] = map[string]any{"|": bits}
					}
					if u, ok := list[n].(map[string]any); ok && u["|"] != nil {
						list[n] = "(" + valueWords(list[n]) + ")"
					}
				}
				return joinWords(list, " & ")
			case "|":
				return joinWords(list, " | ")
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

// chains counts them.
func (r ruleset) chains() int {
	n := 0
	for name := range r {
		if !strings.Contains(name, " ") && name != asleep {
			n++
		}
	}
	return n
}

// kindOf is what a list of lines is of, for messages.
func kindOf(name string) string {
	if strings.Contains(name, " ") {
		return name
	}
	return "chain " + name
}

// differences says in what r, which is in force, is another than want.
func (r ruleset) differences(want ruleset) []string {
	var out []string
	for _, chain := range slices.Sorted(maps.Keys(r)) {
		switch {
		case chain == asleep:
			out = append(out, "the table is dormant: none of its rules is in force")
		case want[chain] == nil:
			out = append(out, fmt.Sprintf("%s is in force, and is not of ours", kindOf(chain)))
		}
	}
	for _, chain := range slices.Sorted(maps.Keys(want)) {
		have, need := r[chain], want[chain]
		if have == nil {
			out = append(out, kindOf(chain)+" is not there")
			continue
		}
		before := len(out)
		for _, line := range have {
			if !slices.Contains(need, line) {
				out = append(out, fmt.Sprintf("%s has %q, which is not of ours", kindOf(chain), line))
			}
		}
		for _, line := range need {
			if !slices.Contains(have, line) {
				out = append(out, fmt.Sprintf("%s lacks %q", kindOf(chain), line))
			}
		}
		if len(out) == before && !slices.Equal(have, need) {
			out = append(out, kindOf(chain)+" has its rules in another order, or one twice")
		}
	}
	return out
}
