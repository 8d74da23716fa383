package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/test/vaulttest"
)

// pythonDotenv is the release that the Python reading follows.
const pythonDotenv = "python-dotenv==1.2.4"

// oracle feeds each text to a program, one JSON text a line, and decodes its
// answers.
func oracle[T any](t *testing.T, c *exec.Cmd, texts []string) []T {
	t.Helper()
	var in, out, errOut bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, text := range texts {
		if err := enc.Encode(text); err != nil {
			t.Fatal(err)
		}
	}
	c.Stdin, c.Stdout, c.Stderr = &in, &out, &errOut
	if err := c.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", c.Path, err, errOut.String())
	}
	answers := make([]T, 0, len(texts))
	dec := json.NewDecoder(bufio.NewReader(&out))
	for dec.More() {
		var a T
		if err := dec.Decode(&a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(texts) {
		t.Fatalf("%s answered %d of %d times: %s", c.Path, len(answers), len(texts), errOut.String())
	}
	return answers
}

// goOracle builds a program of test/oracles.
func goOracle(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	c := exec.Command("go", "build", "-o", path, "./cmd/"+name)
	c.Dir = filepath.Join(vaulttest.Root(t), "test", "oracles")
	if out, err := c.CombinedOutput(); err != nil {
		skipUnlessReal(t, "the modules of test/oracles are not to be had: %s", out)
	}
	return path
}

// pythonWith makes a virtual environment that holds packages.
func pythonWith(t *testing.T, packages ...string) string {
	t.Helper()
	venv := filepath.Join(t.TempDir(), "venv")
	if out, err := exec.Command("python3", "-m", "venv", venv).CombinedOutput(); err != nil {
		skipUnlessReal(t, "no virtual environment: %v %s", err, out)
	}
	pip := exec.Command(filepath.Join(venv, "bin", "pip"), append([]string{"install", "--quiet", "--disable-pip-version-check"}, packages...)...)
	if out, err := pip.CombinedOutput(); err != nil {
		skipUnlessReal(t, "%s is not to be had: %s", packages, out)
	}
	return filepath.Join(venv, "bin", "python")
}

// skipUnlessReal skips, or fails under make test as vaulttest.Bin does.
func skipUnlessReal(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("STRONGROOM_REAL") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// envTexts are the cases that people wrote, and random ones made of what
// matters to either grammar.
func envTexts(seed uint64, n int) []string {
	texts := []string{
		"", "\n", "#", "A", "A\n", "A=", "export A=1", "export\tA=1", "export", "export =1", "exportA=1", "export A", "export 'A'=1",
		"A='b'#c", "A='b' #c", "A=b #c #d", "A=#b", "A= #b", "A=\t#b", "A= b", "A=\u00a0b", "A=b\u00a0#c", "A='b\\'c'", `A="b\"c"`, `A="\\"`, `A='\\'`,
		"A=\"b\nc\" # d\nB=1", "A='b\nB=1", "A: b\nB=1", "A.B-C=1", "A[0]=1", "1=2", "A B=1", "A\tB=1", "Ä=1", "A=1\rB=2\r\nC=3", "A=\"1\r2\"",
		"A=${B}${C:-d}\nB=1", "B=1\nA=${B}x$B", "A=$", "A=$$", "A=$$B", "A=${", "A=${}", "A=${B", "A=${B:-", "A=${B:-}", "A=${B:-c}d}",
		"A=${B:-${C:-d}}", "A=${B-${C}}x${D:+y}", "A=${B:+c}", "A=${B+c}", "A=${B?c}", "A=${B:?c}", "B=\nA=${B:?c}", "B=1\nA=${B:+${B}}${B+x}",
		"A=${B:c}", "A=${B.C}", "A=${:-x}", "A='${B:-c}'", `A="\$B"`, `A="$$B"`, `A=\$B`, `A="\0101\0\012\0777\08"`, `A="\a\b\f\n\r\t\v\c\q"`,
		"\ufeffA=1", "\ufeff", " \ufeffA=1", "A=1\u2028B=2", "A=1\x1cB=2", "A=1\x0bB=2", "A='1' B=2", "A='1'B=2", "A='1'\tb", "A=`b c`",
		"A=b\\\nc", "A=1\nA\nB=${A:-x}", "A=1\nA=2\nB=$A", "A = 'b' ", "'A'=1", "'A B'=1", "''=1", "'A=1", `"A"=1`, "A==b", "=b", "A=\"\"", "A=''",
		"A={\"j\": \"s\"}", "A=[1, 2]", "A=https://u:p@h:1/x?y=z#f", "A=-----BEGIN KEY-----\nxx\n-----END KEY-----\n", "A=\"-----BEGIN\nx\n-----END\"",
	}
	tokens := []string{
		"A", "B", "C", "A=", "B=", "=", "=", "\n", "\n", "\n", "\r\n", "\r", " ", " ", "\t", "#", " #", "'", "'", `"`, `"`, `\`, `\n`, `\'`, `\"`, `\$`, `\\`,
		"$", "$$", "${", "}", "${A}", "$A", "${B:-", "${B-", "${A:+", "${A+", "${C:?", "${C?", ":", "export ", "export", "x", "y z", "1", "_", "-", ".", "[", "/", "é", "\u00a0", "\u2028", "\x1f", `\0101`, `\0`,
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for range n {
		var b strings.Builder
		if r.IntN(2) == 0 {
			b.WriteString([]string{"A=", "B=x\nA=", "A=\"", "A='"}[r.IntN(4)])
		}
		for range 1 + r.IntN(14) {
			b.WriteString(tokens[r.IntN(len(tokens))])
		}
		texts = append(texts, b.String())
	}
	return texts
}

type grammarRow struct {
	Name, Text string
	Reads      map[string]string // by dialect
}

// grammarTable is the table of docs/migrate.md. The unit tests hold our reading
// against it, and these tests our reading against the programs.
func grammarTable(t *testing.T) []grammarRow {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "appliance", "secrets", "dotenv", "testdata", "grammar.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []grammarRow
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

const (
	oracleSeed  = 20261124
	oracleCases = 20000
)

func TestDotenvAgreesWithPython(t *testing.T) {
	python := pythonWith(t, pythonDotenv)
	texts := envTexts(oracleSeed, oracleCases)
	for _, row := range grammarTable(t) {
		texts = append(texts, row.Text)
	}
	for _, format := range []string{"python", "dotenv"} {
		out, _ := printed(t, format)
		texts = append(texts, out...)
	}
	c := exec.Command(python, filepath.Join(vaulttest.Root(t), "appliance", "secrets", "dotenv", "testdata", "python_oracle.py"))
	type answer struct {
		Statements [][3]any           `json:"statements"`
		Values     map[string]*string `json:"values"`
	}
	faulty := 0
	for i, a := range oracle[answer](t, c, texts) {
		file, err := dotenv.Parse([]byte(texts[i]), dotenv.Python)
		wantFaults := 0
		for _, s := range a.Statements {
			if s[2].(bool) {
				wantFaults++
			}
		}
		if faults := countFaults(err); faults != wantFaults {
			t.Fatalf("case %d %q: %d faults (%v), python-dotenv warns of %d", i, texts[i], faults, err, wantFaults)
		}
		if wantFaults > 0 {
			faulty++
			continue
		}
		vars, err := file.Resolve(nil)
		if err != nil {
			t.Fatalf("case %d %q: %v", i, texts[i], err)
		}
		if len(vars) != len(a.Values) {
			t.Fatalf("case %d %q: %d variables, python-dotenv has %d", i, texts[i], len(vars), len(a.Values))
		}
		for _, v := range vars {
			want, ok := a.Values[v.Name]
			if !ok || (want != nil) != v.Set || want != nil && *want != v.Value {
				t.Fatalf("case %d %q: %s is %q (set %t), python-dotenv has %s", i, texts[i], v.Name, v.Value, v.Set, show(want))
			}
		}
	}
	t.Logf("%d texts read as %s reads them, %d of them faulty (seed %d)", len(texts), pythonDotenv, faulty, oracleSeed)
}

func show(s *string) string {
	if s == nil {
		return "nothing"
	}
	return fmt.Sprintf("%q", *s)
}

func countFaults(err error) int {
	if err == nil {
		return 0
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return len(many.Unwrap())
	}
	return 1
}

func TestDotenvAgreesWithCompose(t *testing.T) {
	texts := envTexts(oracleSeed+1, oracleCases)
	for _, row := range grammarTable(t) {
		texts = append(texts, row.Text)
	}
	for _, format := range []string{"compose", "dotenv"} {
		out, _ := printed(t, format)
		texts = append(texts, out...)
	}
	type answer struct {
		Values map[string]string `json:"values"`
		Error  bool              `json:"error"`
	}
	faulty := 0
	for i, a := range oracle[answer](t, exec.Command(goOracle(t, "compose-dotenv")), texts) {
		got, err := composeValues(texts[i])
		if _, nameless := a.Values[""]; nameless && !a.Error {
			// compose-go takes a value without a name, or the last line without
			// its end as a value: we refuse the first and read the second as the
			// same line with an end.
			continue
		}
		if errors.Is(err, errNameless) {
			continue
		}
		if (err != nil) != a.Error {
			t.Fatalf("case %d %q: error %v, compose-go fails: %t", i, texts[i], err, a.Error)
		}
		if err != nil {
			faulty++
			continue
		}
		if len(got) != len(a.Values) {
			t.Fatalf("case %d %q: %q, compose-go has %q", i, texts[i], got, a.Values)
		}
		for name, want := range a.Values {
			if v, ok := got[name]; !ok || v != want {
				t.Fatalf("case %d %q: %s is %q, compose-go has %q", i, texts[i], name, v, want)
			}
		}
	}
	t.Logf("%d texts read as compose-go reads them, %d of them faulty (seed %d)", len(texts), faulty, oracleSeed+1)
}

var errNameless = errors.New("no name")

func composeValues(text string) (map[string]string, error) {
	file, err := dotenv.Parse([]byte(text), dotenv.Compose)
	if err != nil {
		if strings.Contains(err.Error(), "no name before") {
			err = errNameless
		}
		return nil, err
	}
	vars, err := file.Resolve(nil)
	if err != nil {
		return nil, err
	}
	got := map[string]string{}
	for _, v := range vars {
		if v.Set {
			got[v.Name] = v.Value
		}
	}
	return got, nil
}
