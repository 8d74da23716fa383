package migrate

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// uses are the places of a file that name a moved variable and that no patch
// covers: whatever the language, a whole word. Python code is the patch's, and
// prose uses nothing.
func (t *treeSearch) uses(src source) []Problem {
	if isEnvFile(src.path) || isPython(src) || isProse(src.path) || isOurs(src.path) || strings.HasPrefix(src.path, ".git/") || strings.Contains(src.path, "/.git/") {
		return nil
	}
	do := howToRead(src.path)
	var out []Problem
	byLine := map[int][]string{}
	line, at := 1, 0
	eachWord(src.data, func(from, to int) {
		if name := string(src.data[from:to]); t.names[name] {
			line += bytes.Count(src.data[at:from], []byte("\n"))
			at = from
			if !slices.Contains(byLine[line], name) {
				byLine[line] = append(byLine[line], name)
			}
		}
	})
	out = append(out, t.reads(src, byLine)...)
	lines := make([]int, 0, len(byLine))
	for l := range byLine {
		lines = append(lines, l)
	}
	slices.Sort(lines)
	for i, l := range lines {
		if i == maxPlaces {
			out = append(out, Problem{File: src.path, Line: l, Why: fmt.Sprintf("and %d more lines that name moved variables", len(lines)-i)})
			break
		}
		out = append(out, Problem{File: src.path, Line: l, Why: fmt.Sprintf("names %s: %s", strings.Join(byLine[l], ", "), do)})
	}
	return out
}

// reads are the places that hand on a .env file out of which variables are taken:
// a container or a unit would start without. A line that names one is listed
// already.
func (t *treeSearch) reads(src source, listed map[int][]string) (out []Problem) {
	if len(src.data) > maxSource {
		return nil
	}
	do := howToRead(src.path)
	if fileKind(src.path) == "compose" {
		do = "name them under environment: without a value, and " + do
	}
	told := map[string]bool{}
	for _, m := range mentionsIn(src) {
		for _, file := range m.files(t.envFiles) {
			names := t.movedFrom[file]
			key := fmt.Sprintf("%d %s", m.line, file)
			if len(names) == 0 || told[key] || len(listed[m.line]) > 0 {
				continue
			}
			told[key] = true
			out = append(out, Problem{File: src.path, Line: m.line, Why: fmt.Sprintf("reads %s from %s: %s", strings.Join(names, ", "), file, do)})
		}
	}
	return out
}

// eachWord visits what could be the name of a variable.
func eachWord(data []byte, visit func(from, to int)) {
	for i := 0; i < len(data); {
		if !isWord(data[i]) {
			i++
			continue
		}
		from := i
		for i < len(data) && isWord(data[i]) {
			i++
		}
		visit(from, i)
	}
}

// isPython says whether the patch for Python looks at a file.
func isPython(src source) bool {
	switch path.Ext(src.path) {
	case ".py", ".pyw":
		return true
	case "":
		return bytes.HasPrefix(src.data, []byte("#!")) && bytes.Contains(src.data[:lineEnd(src.data, 0)], []byte("python"))
	}
	return false
}

// isProse is a text for people.
func isProse(rel string) bool {
	base := strings.ToLower(path.Base(rel))
	switch path.Ext(base) {
	case ".md", ".rst", ".adoc", ".txt", ".html", ".log", ".csv", ".svg", ".po":
		return true
	}
	return strings.HasPrefix(base, "readme") || strings.HasPrefix(base, "changelog") || strings.HasPrefix(base, "license")
}

// isOurs is a file of the migration.
func isOurs(rel string) bool {
	base := path.Base(rel)
	return base == PlanFile || base == MappingFile || strings.HasPrefix(base, "strongroom-env.") && strings.HasSuffix(base, ".toml")
}

// howToRead says what becomes of a use, by what the file is.
func howToRead(rel string) string {
	ext := path.Ext(rel)
	switch kind := fileKind(rel); {
	case kind == "compose":
		return "start docker compose under strongroom env exec"
	case kind == "systemd":
		return "start the program under strongroom env exec"
	case kind == "dockerfile":
		return "a build must not hold a secret: hand it over with --mount=type=secret"
	case kind == "actions":
		return "this is GitHub's own store: keep it there, or log in to Vault"
	case ext == ".ipynb":
		return "in a notebook, read it by strongroom_dagster.env"
	case kind == "code", isCode[ext]:
		return "start the program under strongroom env exec, or have it read from Vault"
	}
	return "see who reads it, and start that under strongroom env exec"
}
