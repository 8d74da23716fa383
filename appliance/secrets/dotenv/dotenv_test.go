package dotenv

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

// values resolves one file; an error is its text.
func values(t *testing.T, text string, d Dialect) (map[string]string, error) {
	t.Helper()
	vars, err := readAll([]byte(text), d)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, v := range vars {
		if v.Set {
			out[v.Name] = v.Value
		}
	}
	return out, nil
}

// grammar is the table of docs/migrate.md: what A is in each dialect. Test/e2e
// holds both columns against the programs themselves.
type grammarRow struct {
	Name    string `json:"name"`
	Text    string `json:"text"`
	Python  string `json:"python"` // "✗" for a fault, "–" for no value
	Compose string `json:"compose"`
}

func grammar(t testing.TB) []grammarRow {
	t.Helper()
	data, err := os.ReadFile("testdata/grammar.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []grammarRow
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

func TestGrammar(t *testing.T) {
	for _, tt := range grammar(t) {
		for d, want := range map[Dialect]string{Python: tt.Python, Compose: tt.Compose} {
			t.Run(tt.Name+"/"+d.String(), func(t *testing.T) {
				got, err := values(t, tt.Text, d)
				a, ok := got["A"]
				switch {
				case err != nil:
					a = "✗"
				case !ok:
					a = "–"
				}
				if a != want {
					t.Errorf("%q is %q (%v), want %q", tt.Text, a, err, want)
				}
			})
		}
	}
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name    string
		text    string
		dialect Dialect
		want    []string
	}{
		{"unclosed quote", "A=1\nB='secret-x\n", Python, []string{"line 2: a quoted value without"}},
		{"several", "=secret-x\nA=1\nB C\n\"D\" x\n", Python, []string{"line 1: ", "line 3: ", "line 4: "}},
		{"text after the quote", "A='1' secret-x", Python, []string{"line 1: text after"}},
		{"unclosed quote", "A=1\n\nB='secret-x", Compose, []string{"line 3: a quoted value"}},
		{"sign in a name", "A=1\nB/secret-x=2", Compose, []string{"line 2: a character"}},
		{"bad reference", "A=1\nB=${secret-x", Compose, []string{`line 2: B: "${"`}},
		{"NUL", "A=1\nB=\x00secret-x", Python, []string{"line 2: a NUL byte"}},
		{"Latin 1", "A=1\nB=secret-x\xe9\n", Python, []string{"line 2: not UTF-8"}},
		{"UTF-16", "\xff\xfeA\x00=\x00", Compose, []string{"line 1: the file is UTF-16"}},
		{"too large", strings.Repeat("A=secret-x\n", MaxSize/10), Python, []string{"more than a .env file may have"}},
	}
	for _, tt := range tests {
		t.Run(tt.name+"/"+tt.dialect.String(), func(t *testing.T) {
			_, err := values(t, tt.text, tt.dialect)
			if err == nil {
				t.Fatal("want an error")
			}
			if strings.Contains(err.Error(), "secret-x") {
				t.Errorf("the error quotes the file: %v", err)
			}
			at := 0
			for _, want := range tt.want {
				i := strings.Index(err.Error()[at:], want)
				if i < 0 {
					t.Fatalf("%q is not in its place in %q", want, err)
				}
				at += i + len(want)
			}
			var le *LineError
			if tt.name != "too large" && !errors.As(err, &le) {
				t.Errorf("%T is no LineError", err)
			}
		})
	}
	t.Run("many", func(t *testing.T) {
		_, err := Parse([]byte(strings.Repeat("=x\n", 1000)), Python)
		if err == nil || !strings.Contains(err.Error(), "and 980 more") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRefs(t *testing.T) {
	for _, d := range []Dialect{Python, Compose} {
		f, err := Parse([]byte("P=x\nU=a${P}b${Q:-c}\n"), d)
		if err != nil {
			t.Fatal(err)
		}
		vars, err := f.Resolve(func(name string) (string, bool) { return "env", name == "Q" })
		if err != nil {
			t.Fatal(err)
		}
		u := vars[1]
		if u.Value != "axbenv" || strings.Join(u.Refs, " ") != "P Q" || len(u.Unresolved) != 0 {
			t.Errorf("%v: %+v", d, u)
		}
		if vars, err = f.Resolve(nil); err != nil || strings.Join(vars[1].Unresolved, " ") != "Q" {
			t.Errorf("%v: %+v, %v", d, vars, err)
		}
	}
}

func TestRemove(t *testing.T) {
	tests := []struct {
		name, text, want string
		dialect          Dialect
	}{
		{"line", "# c\nA=1\nX=2\nB=3\n", "# c\nA=1\nB=3\n", Python},
		{"comment of its line", "X=2 # c\nB=3", "B=3", Python},
		{"last without an end", "A=1\nX=2", "A=1\n", Python},
		{"CRLF and BOM", bom + "A=1\r\nX=\"a\r\nb\"\r\nB=3\r\n", bom + "A=1\r\nB=3\r\n", Python},
		{"blank lines stay", "A=1\n\n  X=2\n\nB=3\n", "A=1\n\n\nB=3\n", Python},
		{"duplicates", "X=1\nA=1\nX=2\n", "A=1\n", Python},
		{"name alone", "X\nA=1\n", "A=1\n", Python},
		{"line", "# c\nA=1\nX='2' # c\nB=3\n", "# c\nA=1\nB=3\n", Compose},
		{"first of a line", "X='1' B=2\n", " B=2\n", Compose},
		{"last of a line", "B='1' X=2\nC=3\n", "B='1' \nC=3\n", Compose},
		{"quotes last of a line", "B='1' X='2' # c\nC=3\n", "B='1' \nC=3\n", Compose},
	}
	for _, tt := range tests {
		t.Run(tt.name+"/"+tt.dialect.String(), func(t *testing.T) {
			got, err := Remove([]byte(tt.text), tt.dialect, func(s Statement) bool { return s.Name == "X" })
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestDifferences(t *testing.T) {
	tests := []struct {
		name, text, want string
	}{
		{"none", "A=1\nB='x y'\n", ""},
		{"value", "A=1\nB=b\t# c", "B"},
		{"one refuses", "A: b", "?"},
		{"dollar", "P=x\nA=$P", "A"},
		{"both refuse", "A='", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			for _, d := range Differences([]byte(tt.text)) {
				if d.Line == 0 || d.Why == "" {
					t.Errorf("incomplete: %+v", d)
				}
				if got += d.Name; d.Name == "" {
					got += "?"
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseDialect(t *testing.T) {
	for _, d := range []Dialect{Python, Compose} {
		if got, err := ParseDialect(d.String()); got != d || err != nil {
			t.Errorf("%v: %v, %v", d, got, err)
		}
	}
	if _, err := ParseDialect("ruby"); err == nil || !strings.Contains(err.Error(), `"ruby"`) {
		t.Errorf("got %v", err)
	}
}
