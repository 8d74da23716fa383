package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"strongroom.example/appliance/secrets/appenv"
	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/test/vaulttest"
)

// readAnswer is what a reader makes of a file.
type readAnswer struct {
	Values map[string]string `json:"values"`
	Error  bool              `json:"error"`
	// Dropped assignments: systemd warns of them and goes on.
	Dropped int `json:"dropped"`
}

// readers are the programs that the dialects follow, python-dotenv and
// compose-go apart, which have tests of their own.
func readers(t *testing.T) map[dotenv.Dialect]func(texts []string) []readAnswer {
	testdata := filepath.Join(vaulttest.Root(t), "appliance", "secrets", "dotenv", "testdata")
	program := func(name string, args ...string) func([]string) []readAnswer {
		return func(texts []string) []readAnswer { return oracle[readAnswer](t, exec.Command(name, args...), texts) }
	}
	docker := sync.OnceValue(func() string { return goOracle(t, "docker-envfile") })
	npm := sync.OnceValue(func() string { return npmPackages(t, filepath.Join(testdata, "npm")) })
	all := map[dotenv.Dialect]func([]string) []readAnswer{
		dotenv.Docker: func(texts []string) []readAnswer { return program(docker())(texts) },
		dotenv.Bash:   func(texts []string) []readAnswer { return bashReads(t, texts) },
	}
	if library, err := filepath.Glob("/usr/lib/*/systemd/libsystemd-shared-*.so"); err == nil && len(library) > 0 {
		all[dotenv.Systemd] = program("python3", filepath.Join(testdata, "systemd_oracle.py"), library[0])
	}
	if _, err := exec.LookPath("npm"); err == nil { // with its node
		script := filepath.Join(testdata, "node_oracle.js")
		all[dotenv.Node] = func(texts []string) []readAnswer {
			return program("node", script, dotenv.Node.String(), npm())(texts)
		}
		if exec.Command("node", "-e", "process.exit(require('util').parseEnv ? 0 : 1)").Run() == nil {
			all[dotenv.NodeFile] = program("node", script, dotenv.NodeFile.String())
		}
	}
	return all
}

// noReader says why a reader is not there.
func noReader(t *testing.T, d dotenv.Dialect) {
	t.Helper()
	_, err := exec.LookPath("npm")
	switch {
	case d == dotenv.NodeFile && err == nil:
		t.Skip("this Node does not read files as the dialect does: 20.12 is the first that does")
	case d == dotenv.NodeFile || d == dotenv.Node:
		missing(t, "Node with npm")
	}
	t.Skipf("%s is not installed", d.Reader())
}

// npmPackages installs what a lock file pins, by hash, into a folder of its own.
func npmPackages(t *testing.T, from string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", dir).CombinedOutput(); err != nil {
		skipUnlessReal(t, "what %s pins is not to be had: %v %s", from, err, out)
	}
	return dir
}

// bashReads sources only what the dialect takes, as everything else might run
// something; the rest counts as an error.
func bashReads(t *testing.T, texts []string) []readAnswer {
	t.Helper()
	dir := t.TempDir()
	answers := make([]readAnswer, len(texts))
	var sourced []int
	for i, text := range texts {
		if _, err := dotenv.Parse([]byte(text), dotenv.Bash); err != nil {
			answers[i].Error = true
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(len(sourced))), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sourced = append(sourced, i)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/bin/bash", filepath.Join(vaulttest.Root(t), "appliance", "secrets", "dotenv", "testdata", "bash_oracle.sh"), dir)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		t.Fatalf("bash: %v %s", err, errOut.String())
	}
	n := 0
	values := map[string]string{}
	for _, pair := range strings.Split(strings.TrimSuffix(out.String(), "\x00"), "\x00") {
		if pair == "" {
			if n == len(sourced) {
				t.Fatalf("bash answers more than %d times", n)
			}
			answers[sourced[n]].Values = values
			values = map[string]string{}
			n++
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "PWD", "OLDPWD", "SHLVL", "_":
		default:
			values[name] = value
		}
	}
	if n != len(sourced) {
		t.Fatalf("bash answers %d of %d times", n, len(sourced))
	}
	return answers
}

// Each dialect reads every file that it takes as its reader does; what it does
// not take is counted, and is never the most.
func TestDotenvAgreesWithReaders(t *testing.T) {
	cases := map[bool]int{false: 2000, true: 20000}[os.Getenv("STRONGROOM_SOAK") == "1"]
	available := readers(t)
	for _, d := range dotenv.Dialects() {
		if d == dotenv.Python || d == dotenv.Compose {
			continue
		}
		t.Run(d.String(), func(t *testing.T) {
			read, ok := available[d]
			if !ok {
				noReader(t, d)
			}
			seed := uint64(oracleSeed + 10 + int(d))
			n := cases
			if d == dotenv.Bash {
				n /= 4 // a process for each
			}
			texts := append(envTexts(seed, n), readerTexts()...)
			for _, row := range grammarTable(t) {
				texts = append(texts, row.Text)
			}
			taken := 0
			for i, a := range read(texts) {
				got, err := readerValues(texts[i], d)
				if err != nil {
					// A blank of Unicode in a name is refused by later versions only.
					if d == dotenv.Docker && !a.Error && !strings.Contains(err.Error(), "a blank in a name") {
						t.Fatalf("case %d %q: %v, and docker reads it", i, texts[i], err)
					}
					continue
				}
				taken++
				if a.Error || a.Dropped > 0 || !maps.Equal(got, a.Values) {
					t.Fatalf("case %d %q: read as %q, %s has %q (error %t, dropped %d)", i, texts[i], got, d.Reader(), a.Values, a.Error, a.Dropped)
				}
			}
			if taken < len(texts)/10 {
				t.Errorf("%d of %d texts are taken: too few to compare", taken, len(texts))
			}
			t.Logf("%d of %d texts read as %s reads them, the others refused (seed %d)", taken, len(texts), d.Reader(), seed)
		})
	}
}

// printedValues are what env print has to write.
func printedValues() []string {
	r := rand.New(rand.NewPCG(oracleSeed, 7))
	signs := []string{"a", "B", "7", " ", "\t", "\n", "\r", "'", `"`, "`", `\`, "$", "${A}", "$B", "#", " #", ";", "&", "~", "=", "{", "é", "\u00a0", `\n`, "!", "*", "x y"}
	values := []string{"", " ", "\n", "-----BEGIN X-----\nab+/=\n-----END X-----\n", "it's", `say "x"`, `a\`, "a$b", "abc # prod", strings.Repeat("x", 70<<10), "~", "`id`", "$(id)"}
	for range 300 {
		var b strings.Builder
		for range 1 + r.IntN(8) {
			b.WriteString(signs[r.IntN(len(signs))])
		}
		values = append(values, b.String())
	}
	return values
}

// printed is what env print writes of each value that the format holds, and
// those values.
func printed(t *testing.T, format string) (texts, values []string) {
	t.Helper()
	for _, v := range printedValues() {
		data, err := appenv.Render([]appenv.Pair{{Name: "A", Value: v}, {Name: "B", Value: "b"}}, format)
		var cannot *appenv.CannotHoldError
		if errors.As(err, &cannot) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		texts, values = append(texts, string(data)), append(values, v)
	}
	return texts, values
}

// What env print writes reads back, by each program that the format is for.
// python-dotenv and compose-go read it in their own tests.
func TestDotenvPrintedIsRead(t *testing.T) {
	available := readers(t)
	for format, by := range map[string][]dotenv.Dialect{
		"dotenv": {dotenv.Node}, "node": {dotenv.Node, dotenv.NodeFile}, "systemd": {dotenv.Systemd}, "docker": {dotenv.Docker}, "shell": {dotenv.Bash}, "python": nil, "compose": nil,
	} {
		texts, want := printed(t, format)
		all := len(printedValues())
		if holdsAll := format == "python" || format == "compose" || format == "shell" || format == "systemd"; len(texts) < all/5 || holdsAll && len(texts) != all {
			t.Errorf("%s holds %d of %d values", format, len(texts), all)
		}
		for _, d := range by {
			t.Run(format+" by "+d.String(), func(t *testing.T) {
				read, ok := available[d]
				if !ok {
					noReader(t, d)
				}
				for i, a := range read(texts) {
					if a.Error || len(a.Values) != 2 || a.Values["A"] != want[i] || a.Values["B"] != "b" {
						t.Fatalf("%q reads as %q (error %t), want %q", texts[i], a.Values, a.Error, want[i])
					}
				}
			})
		}
	}
}

// readerTexts are cases that people wrote for these readers.
func readerTexts() []string {
	long := strings.Repeat("x", 64<<10)
	return []string{
		"A=abc # prod", `A=pa\ss`, `A="l1\nl2"`, "A=pa#ss", "A=b;c", "; c\nA=b", "A='b'c", `A=b"c"`, `A="b" "c"`, "A=b\\\nc", "A=\\", "A=\"b\\\nc\"",
		`A="\$B"`, "A=\"\\`\"", "A = b", "A\t=\tb", "A=b \\\n", "A= \\ b", "A=b\\ ", "A='b\nc'", "# c\\\nA=b", "A=b\r\n\r\nB=c\r\n", "A='b'\r\nB=c", "A=\x01b", "A=b\x7f",
		"A=b\tc", "A=\v", "\fA=b", "A=b\f", "A=" + long, "A=" + long[:len(long)-3], "A=" + long[:len(long)-3] + "\nB=c", "A=" + long[:len(long)-2] + "\nB=c", "A=\"b\x1fc\"",
		"A=b c", "A=b B=c", "export A=b B=c", "export A", "export A B=c", "A=b; B=c", "A=b;", "export A=b # c", "A=$'b\\nc\\x41\\101\\e'", "A=$'b'\"$B\"'$C'", "B=x\nA=${B:-y}${C:-z}${C-}${B:+w}",
		"A=b:~", "A=~", "A='~'", "A=b~", `A=\~`, "A=*", "A={b,c}", "export A={b,c}", "A=[b]", "A=a[b]*?", "export A=*", "A=b!c", "A=\"b!c\"", `A="b\!c"`, "A+=b", "A=(b)", "A=b&", "A=b|c",
		"A=$", "A=$.", "A=\"$\"", "A=\"$.\"", "A=b#c", "A=#b", "A= b", "\\\nA=b", "A=b\\\nB=c", "export  A='b'", "export\tA=b", "A=''", "A=\"\"b''", `A="\""`, `A="b\c"`, `A="\\"`,
		"A=`b`", "A=`b`\nB=c", "A='b' # c", "A=\"b\" # c", "A=\"b\"c", "A='b", "A=b'c", "A=b 'c'", "A=\n\"b\"", "A=\n\nB=c", "A= \nB=c", "A=\nB=c", "A: b", "A:b", "A.B-C=d",
		"A=b\n# c\nB=d", "A=b\n\n\nB=d", "  A=b", "A=b  ", "export A = b", "'A'=b", "A=\"b\\\"c\"", `A='b\'c'`, "A=\"b\nc\"\nB=d", "A=\"b\nc\" d\nB=e", "A=b\\nc", "A=\"b\\rc\"", "A=\"b\\tc\"",
		"A={\"b\": \"c\"}", "A=https://u:p@h/?x=y#z", "A=b=c", "A==", "\ufeffA=b\nB=c", "A=b\u00a0", "\u00a0A=b", "A=\u3000b", "A=b\u0085",
	}
}

func readerValues(text string, d dotenv.Dialect) (map[string]string, error) {
	file, err := dotenv.Parse([]byte(text), d)
	if err != nil {
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
