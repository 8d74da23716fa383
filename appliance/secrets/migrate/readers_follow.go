package migrate

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"strongroom.example/appliance/secrets/dotenv"
)

// following is whose reading of a file is followed, and why others count.
type following struct {
	dialect dotenv.Dialect
	// chosen by the person who migrates: what others read is a note.
	chosen  bool
	readers []Reader
}

// followingOf decides for one file: what was asked for; else the first of its
// readers that understands the file; else python-dotenv.
func (o *ScanOptions) followingOf(src source, readers []Reader) following {
	f := following{dialect: o.Dialect, chosen: o.Dialect != 0, readers: readers}
	if d, ok := o.Dialects[src.path]; ok {
		f.dialect, f.chosen = d, true
	}
	if f.dialect != 0 {
		return f
	}
	for _, r := range readers {
		d, err := dotenv.ParseDialect(r.Dialect)
		if err != nil || r.Own != "" {
			continue
		}
		if f.dialect == 0 {
			f.dialect = d
		}
		if _, faults := readEnv(src, d); len(faults) == 0 {
			f.dialect = d
			break
		}
	}
	if f.dialect == 0 {
		f.dialect = dotenv.Python
	}
	return f
}

// differences of the followed reading from those of the file's other readers.
// Where nothing shows a reader, python-dotenv's and docker-compose's are
// compared, for the reader of the report.
func (f following) differences(src source) []FileDifference {
	others := []dotenv.Dialect{f.dialect}
	where := map[dotenv.Dialect]Reader{}
	for _, r := range f.readers {
		if d, err := dotenv.ParseDialect(r.Dialect); err == nil && d != f.dialect && r.Own == "" {
			others = append(others, d)
			where[d] = r
		}
	}
	if len(f.readers) == 0 && !f.chosen {
		others = []dotenv.Dialect{dotenv.Python, dotenv.Compose}
	}
	other := src.path == OtherStore
	switch {
	case other && isJSONExport(src.data):
		return nil
	case other:
		others = []dotenv.Dialect{f.dialect, dotenv.Compose, dotenv.Node}
	}
	var out []FileDifference
	for _, d := range dotenv.Differences(src.data, others...) {
		fd := FileDifference{File: src.path, Line: d.Line, Name: d.Name, Why: d.Why}
		if r, ok := where[d.Dialects[1]]; ok {
			fd.Why += " (" + r.place() + ")"
			fd.Stops = !f.chosen
		}
		if other {
			fd.Stops = !f.chosen
			fd.Why += "; as JSON it can be read in one way only"
		}
		out = append(out, fd)
	}
	for _, r := range f.readers {
		if r.Own != "" {
			out = append(out, f.ownGrammar(src, r)...)
		}
		if !r.Expands {
			continue
		}
		vars, _ := readEnv(src, f.dialect)
		for _, v := range vars {
			if strings.Contains(v.Value, "$") {
				out = append(out, FileDifference{File: src.path, Line: v.Line, Name: v.Name, Stops: !f.chosen,
					Why: fmt.Sprintf("has a dollar, and what %s:%d names replaces references in values: whether this is one is not known here", r.File, r.Line)})
			}
		}
	}
	return out
}

// sameForAll is a value that every reader of .env files takes for the same: bare, or in
// quotes of either kind.
var sameForAll = regexp.MustCompile(`^[A-Za-z_]\w*=(?:[^\s"'\x60$\\#]*|'[^'"\\$\n#]*'|"[^"'\\$\n\x60#]*")$`)

// ownGrammar are the variables that a reader with a grammar of its own may read otherwise.
func (f following) ownGrammar(src source, r Reader) (out []FileDifference) {
	vars, faults := readEnv(src, f.dialect)
	if len(faults) > 0 {
		return nil
	}
	lines := bytes.Split(src.data, []byte("\n"))
	for _, v := range vars {
		if v.Line < 1 || v.Line > len(lines) || sameForAll.Match(lines[v.Line-1]) {
			continue
		}
		out = append(out, FileDifference{File: src.path, Line: v.Line, Name: v.Name, Stops: !f.chosen,
			Why: fmt.Sprintf("has a quote, a blank, a dollar, a backslash or a sharp, which %s (%s:%d) reads in a way of its own that is not followed here: see what the program gets", r.Own, r.File, r.Line)})
	}
	return out
}

// place is the reader in a message.
func (r Reader) place() string {
	d, err := dotenv.ParseDialect(r.Dialect)
	if err != nil {
		return r.Dialect
	}
	return fmt.Sprintf("%s reads it by %s:%d", d.Reader(), r.File, r.Line)
}

// because says whose reading a fault is, where that is shown.
func (f following) because() string {
	for _, r := range f.readers {
		if r.Dialect == f.dialect.String() && r.Own == "" {
			return " (" + r.place() + "; --dialect FILE=NAME follows another)"
		}
	}
	return ""
}
