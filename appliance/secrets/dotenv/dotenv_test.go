package dotenv

import (
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
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
	Name string `json:"name"`
	Text string `json:"text"`
	// Reads is what A is by dialect; "✗" for a fault, "–" for no value.
	Reads map[string]string `json:"reads"`
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
		for _, d := range Dialects() {
			t.Run(tt.Name+"/"+d.String(), func(t *testing.T) {
				want, ok := tt.Reads[d.String()]
				if !ok {
					t.Fatal("the row says nothing of it")
				}
				if a, err := readsA(t, tt.Text, d); a != want {
					t.Errorf("%q is %q (%v), want %q", tt.Text, a, err, want)
				}
			})
		}
	}
}

// readsA is A in the form of the table.
func readsA(t *testing.T, text string, d Dialect) (string, error) {
	t.Helper()
	got, err := values(t, text, d)
	a, ok := got["A"]
	switch {
	case err != nil:
		return "✗", err
	case !ok:
		return "–", nil
	}
	return a, nil
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

// The largest file takes no longer than its size asks for: what is done again
// for each line from the file's start is seen here. What counts is the processor's time of
// this thread, which others on the machine do not lengthen.
func TestLinear(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const ofThread = 1 // RUSAGE_THREAD of getrusage(2)
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(ofThread, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	fastest := func(size int) time.Duration {
		least := time.Hour
		for range 5 {
			begin := used()
			for _, unit := range []string{"A=b\n", "A b\n", "A='b\nc'\n"} {
				data := []byte(strings.Repeat(unit, size/len(unit)))
				for _, d := range Dialects() {
					_, _ = Parse(data, d)
				}
			}
			least = min(least, used()-begin)
		}
		return least
	}
	if small, large := fastest(1<<13), fastest(1<<17); large > 64*max(small, time.Millisecond) {
		t.Errorf("16 times the lines take %d times as long", large/max(small, time.Millisecond))
	}
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
		{"continued", "; c\nX=1\\\n2\nB='3'\n", "; c\nB='3'\n", Systemd},
		{"CRLF", "A=1\r\nX=2\r\nB=3\r\n", "A=1\r\nB=3\r\n", Systemd},
		{"quotes of two lines", "A=1\n\n# c\nX='2\n2' # d\n\n# e\nB=3\n", "A=1\n\n# c\n\n# e\nB=3\n", Node},
		{"BOM", bom + "X=2\nB=3\n", bom + "B=3\n", Node},
		{"CRLF", "A=1\r\nX=\"2\r\n2\"\r\nB=3\r\n", "A=1\r\nB=3\r\n", NodeFile},
		{"line", "# c\n X=2 # d\nB=3\n", "# c\nB=3\n", Docker},
		{"BOM", bom + "X=2\nB=3", bom + "B=3", Docker},
		{"export", "# c\nexport X=2 # d\nB=3\n", "# c\nB=3\n", Bash},
		{"one of several", "export A=1 X='2' B=3\n", "export A=1  B=3\n", Bash},
		{"beside a semicolon", "A=1; X=2\nB=3\n", "A=1; \nB=3\n", Bash},
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
		name, text string
		with       Dialect
		want       string
	}{
		{"none", "A=1\nB='x y'\n", Compose, ""},
		{"value", "A=b\t# c", Compose, "A: python-dotenv reads 1 characters and docker-compose 5: alike up to character 1, where the first has its end and the second a blank"},
		{"one refuses", "A: b", Compose, "?: docker-compose reads the file and python-dotenv does not: a name must be followed"},
		{"dollar", "P=x\nA=$P", Compose, "A: python-dotenv reads 2 characters and docker-compose 1: alike up to character 0, where the first has a dollar and the second another character"},
		{"both refuse", "A='", Compose, ""},
		{"comment", "A=abc # prod", Systemd, "A: python-dotenv reads 3 characters and systemd 10: alike up to character 3, where the first has its end and the second a blank"},
		{"backslash", `A=pa\ss`, Systemd, "A: python-dotenv reads 5 characters and systemd 4: alike up to character 2, where the first has a backslash and the second another character"},
		{"end of line", `A="l1\nl2"`, Systemd, "A: python-dotenv reads 5 characters and systemd 6: alike up to character 2, where the first has an end of line and the second a backslash"},
		{"export", "export A=b", Systemd, "?: python-dotenv reads the file and systemd does not: a name that systemd passes over"},
		{"quotes", "A='b'", Docker, "A: python-dotenv reads 1 characters and docker 3: alike up to character 0, where the first has another character and the second a quote"},
		{"hash", "A=pa#ss", Node, "A: python-dotenv reads 5 characters and Node's dotenv 2: alike up to character 2, where the first has a \"#\" and the second its end"},
		{"hash", "A=pa#ss", NodeFile, "A: python-dotenv reads 5 characters and node --env-file 2"},
		{"hash", "A=pa#ss", Bash, ""},
		{"command", "A=b c", Bash, "?: python-dotenv reads the file and bash does not: a command"},
		{"half of a letter", "A=\"\u00e9\\n\"", Node, ""},
		{"letters of one beginning", "A=é #", Docker, "A: python-dotenv reads 1 characters and docker 3: alike up to character 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name+"/"+tt.with.String(), func(t *testing.T) {
			var got []string
			for _, d := range Differences([]byte(tt.text), Python, tt.with) {
				if d.Line == 0 || d.Dialects != [2]Dialect{Python, tt.with} {
					t.Errorf("incomplete: %+v", d)
				}
				if d.Name == "" {
					d.Name = "?"
				}
				got = append(got, d.Name+": "+d.Why)
			}
			all := strings.Join(got, "\n")
			if tt.want == "" && all != "" || !strings.HasPrefix(all, tt.want) {
				t.Errorf("got %q, want %q", all, tt.want)
			}
		})
	}
}

func TestParseDialect(t *testing.T) {
	for _, d := range Dialects() {
		if got, err := ParseDialect(d.String()); got != d || err != nil {
			t.Errorf("%v: %v, %v", d, got, err)
		}
	}
	if _, err := ParseDialect("ruby"); err == nil || !strings.Contains(err.Error(), `"ruby"`) {
		t.Errorf("got %v", err)
	}
}
