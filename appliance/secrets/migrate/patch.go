package migrate

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const (
	patchModule = "strongroom_dagster.env"
	patchName   = "strongroom_env"
	patchImport = "import " + patchModule + " as " + patchName + "\n"
)

var (
	patchable = regexp.MustCompile(`(?:\bos\s*\.\s*)?\b(environ|getenv)\s*(\[|\.\s*get\s*\(|\()\s*` + quotedName + `(\s*\])?`)
	readOnly  = regexp.MustCompile(`(?:\bos\s*\.\s*)?\benviron\s*\.\s*(?:pop|setdefault|update)\s*\(\s*` + quotedName)
	membering = regexp.MustCompile(quotedName + `\s+(?:not\s+)?in\s+((?:os\s*\.\s*)?environ)\b`)
	anImport  = regexp.MustCompile(`(?m)^(?:import|from)[ \t]+([\w.]+)`)
	assigned  = regexp.MustCompile(`^\s*(?:[-+*/|&^]|\*\*|//|<<|>>)?=[^=]`)
)

// patchPython makes reads of the named variables go through the Python client's
// stand-in for os.environ, and says in byHand what it leaves alone.
func patchPython(src []byte, names map[string]bool) (patched []byte, byHand []string) {
	code := blankPython(src)
	var cuts [][2]int // what becomes patchName.WORD, by its last word
	note := func(at int, why string) {
		byHand = append(byHand, fmt.Sprintf("line %d: %s", 1+bytes.Count(src[:at], []byte("\n")), why))
	}
	for _, m := range patchable.FindAllSubmatchIndex(code, -1) {
		word, bracket, name := string(code[m[2]:m[3]]), string(code[m[4]:m[5]]), string(code[m[6]:m[7]])
		if !names[name] || (word == "environ") == (bracket == "(") {
			continue
		}
		before := strings.TrimRight(string(code[:m[0]]), " \t")
		switch {
		case strings.HasSuffix(before, "."):
			// The environ of something else, or what was patched before.
		case bracket == "[" && (assigned.Match(code[m[1]:]) || strings.HasSuffix(before, "del")):
			note(m[0], name+" is written, and Vault's variables are read-only")
		default:
			cuts = append(cuts, [2]int{m[0], m[3]})
		}
	}
	for _, m := range membering.FindAllSubmatchIndex(code, -1) {
		if names[string(code[m[2]:m[3]])] {
			cuts = append(cuts, [2]int{m[4], m[5]})
		}
	}
	for _, m := range readOnly.FindAllSubmatchIndex(code, -1) {
		if name := string(code[m[2]:m[3]]); names[name] {
			note(m[0], name+" is changed by pop, setdefault or update, and Vault's variables are read-only")
		}
	}
	for _, m := range dagsterVar.FindAllSubmatchIndex(code, -1) {
		if name := string(code[m[2]:m[3]]); names[name] {
			note(m[0], "EnvVar("+name+") reads the process's environment: give the resource VaultSecretsResource, or run under strongroom env exec")
		}
	}
	if len(cuts) == 0 {
		return src, byHand
	}
	return splice(src, code, cuts), byHand
}

func splice(src, code []byte, cuts [][2]int) []byte {
	slices.SortFunc(cuts, func(a, b [2]int) int { return a[0] - b[0] })
	insert := -1
	if !bytes.Contains(code, []byte(strings.TrimSuffix(patchImport, "\n"))) {
		insert = importPlace(code)
	}
	var out []byte
	at := 0
	if insert >= 0 {
		out = append(out, src[:insert]...)
		out = append(out, patchImport...)
		at = insert
	}
	for _, c := range cuts {
		out = append(out, src[at:c[0]]...)
		word := "environ"
		if bytes.HasSuffix(src[c[0]:c[1]], []byte("getenv")) {
			word = "getenv"
		}
		out = append(out, patchName+"."+word...)
		at = c[1]
	}
	return append(out, src[at:]...)
}

// importPlace is in front of the first import at the top level, which is never
// in the middle of a statement; behind those of __future__, which must be
// first. Code without any gets it in front of its first line of code.
func importPlace(code []byte) int {
	future := -1
	for _, m := range anImport.FindAllSubmatchIndex(code, -1) {
		if string(code[m[2]:m[3]]) != "__future__" {
			return m[0]
		}
		future = min(lineEnd(code, m[0])+1, len(code))
	}
	if future >= 0 {
		return future
	}
	for at := 0; at < len(code); {
		end := lineEnd(code, at)
		if len(bytes.TrimSpace(code[at:end])) > 0 {
			return at
		}
		at = end + 1
	}
	return 0
}
