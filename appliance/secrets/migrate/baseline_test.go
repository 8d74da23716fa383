package migrate_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// A baseline stays true while lines move, and sees what is added: in a new
// place, under a new name, by another rule, or once more.
func TestBaseline(t *testing.T) {
	files := map[string]string{"a.py": "password = 'Fjord-77'\n", ".env": "DB_PASSWORD=Fjord-78\nPLAIN=1\n", "k.yaml": "token: q8Zr2Lw0Xv6Kt9Bn\n"}
	before := scanTree(t, files, migrate.ScanOptions{}).Findings()
	if len(before) != 3 {
		t.Fatalf("%+v", before)
	}
	data, err := migrate.NewBaseline(before).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "Fjord") || strings.Contains(string(data), "q8Zr") || strings.Contains(string(data), "line") {
		t.Errorf("the baseline tells too much: %s", data)
	}
	known, err := migrate.ParseBaseline("b", data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := known.Encode(); err != nil || string(again) != string(data) {
		t.Errorf("written again it is %s, %v", again, err)
	}
	for name, tc := range map[string]struct {
		file, text  string
		fresh, gone int
	}{
		"nothing":            {"x.txt", "", 0, 0},
		"lines before":       {"a.py", "# one\n# two\npassword = 'Fjord-77'\n", 0, 0},
		"another value":      {"a.py", "password = 'Fjord-99'\n", 0, 0},
		"taken out":          {"a.py", "password = os.environ['PW']\n", 0, 1},
		"another name":       {"a.py", "passphrase = 'Fjord-77'\n", 1, 1},
		"once more":          {"a.py", "password = 'Fjord-77'\nconnect(password='Fjord-77')\n", 1, 0},
		"another file":       {"b.py", "password = 'Fjord-77'\n", 1, 0},
		"another variable":   {".env", "DB_PASSWORD=Fjord-78\nAPI_KEY=Fjord-79\n", 1, 0},
		"a placeholder":      {".env", "DB_PASSWORD=change-me\n", 0, 1},
		"a secret by a part": {".env", "DB_PASSWORD=Fjord-78\nURL=postgres://u:Fjord-78@h/d\n", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			now := map[string]string{}
			for k, v := range files {
				now[k] = v
			}
			now[tc.file] = tc.text
			r := scanTree(t, now, migrate.ScanOptions{})
			c := known.Compare(r.Findings(), r.Tree(t.Context(), ""))
			if len(c.Fresh) != tc.fresh || len(c.Gone) != tc.gone || len(c.Moved) > 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// What is known stays so when its file is moved or renamed; a copy, another secret in the
// moved file and another file in its place are new.
func TestBaselineOfMovedFiles(t *testing.T) {
	const long = "# a file of settings\nA = 1\nB = 2\nC = 3\nD = 4\n"
	before := map[string]string{
		"api/settings.py": long + "password = 'Fjord-77'\n", "web/settings.py": long + "password = 'Fjord-78'\n", "k.yaml": "token: q8Zr2Lw0Xv6Kt9Bn\n",
		"README.md": "See postgres://app:q8Zr2Lw0Xv6Kt9Bn@db.example/shop\n",
	}
	for name, tc := range map[string]struct {
		now         map[string]string // names of today: those of before, or a text
		fresh, gone int
		moved       string
		git         string // "also", "only"
	}{
		"nothing":                   {map[string]string{}, 0, 0, "", "also"},
		"a folder":                  {map[string]string{"services/api/settings.py": "api/settings.py", "services/web/settings.py": "web/settings.py"}, 0, 0, "services/api/settings.py < api/settings.py, services/web/settings.py < web/settings.py", ""},
		"another name":              {map[string]string{"api/conf.py": "api/settings.py"}, 0, 0, "api/conf.py < api/settings.py", ""},
		"into the root, by content": {map[string]string{"x.yaml": "k.yaml"}, 0, 0, "x.yaml < k.yaml", ""},
		"without a name":            {map[string]string{"docs/README.md": "README.md"}, 0, 0, "docs/README.md < README.md", ""},
		"name and folder, by git":   {map[string]string{"lib/conf/base.py": "api/settings.py"}, 0, 0, "lib/conf/base.py < api/settings.py", "only"},
		"name and folder":           {map[string]string{"lib/conf/base.py": "api/settings.py"}, 1, 1, "", ""},
		"and one more in it":        {map[string]string{"api/conf.py": long + "password = 'Fjord-77'\napi_key = 'q8Zr2Lw0Xv6Kt9Bn'\n", "": "api/settings.py"}, 1, 0, "api/conf.py < api/settings.py", ""},
		"a copy":                    {map[string]string{"copy/settings.py": long + "password = 'Fjord-77'\n"}, 1, 0, "", ""},
		"two of one":                {map[string]string{"a/settings.py": "api/settings.py", "b/settings.py": long + "password = 'Fjord-77'\n"}, 1, 0, "a/settings.py < api/settings.py", ""},
		"another kind of file":      {map[string]string{"api/settings.toml": "password = 'Fjord-99'\n", "": "api/settings.py"}, 1, 1, "", ""},
		"each in the other's place": {map[string]string{"api/settings.py": "web/settings.py", "web/settings.py": "api/settings.py"}, 0, 0, "", ""},
	} {
		for _, git := range []bool{false, true} {
			if git && tc.git == "" || !git && tc.git == "only" {
				continue
			}
			t.Run(fmt.Sprintf("%s, git=%t", name, git), func(t *testing.T) {
				dir := t.TempDir()
				r := scanTree(t, before, migrate.ScanOptions{Root: dir})
				known := migrate.NewBaseline(r.Findings())
				if len(known.Findings) != 4 {
					t.Fatalf("%+v", known)
				}
				if git {
					write(t, dir, "baseline.json", "{}")
					gitRun(t, dir, "init", "-q")
					gitRun(t, dir, "add", ".")
					gitRun(t, dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "one")
				}
				for to, from := range tc.now {
					if text, ok := before[from]; ok {
						if tc.now[from] == "" {
							if err := os.Remove(filepath.Join(dir, from)); err != nil {
								t.Fatal(err)
							}
						}
						from = text
					}
					if to != "" {
						write(t, dir, to, from)
					}
				}
				if git {
					gitRun(t, dir, "add", "-A")
				}
				r = scanTree(t, nil, migrate.ScanOptions{Root: dir})
				c := known.Compare(r.Findings(), r.Tree(t.Context(), filepath.Join(dir, "baseline.json")))
				var moved []string
				for to, from := range c.Moved {
					moved = append(moved, to+" < "+from)
				}
				slices.Sort(moved)
				if got := strings.Join(moved, ", "); len(c.Fresh) != tc.fresh || len(c.Gone) != tc.gone || got != tc.moved {
					t.Errorf("%d new, %d gone, moved %q: %+v", len(c.Fresh), len(c.Gone), got, c)
				}
			})
		}
	}
}

// A secret that was moved from one file into another, and both stay, is the one that is
// known: its value stood there when the baseline was committed, and no longer does. Another
// value under that name, a copy and what is known by its name alone are new.
func TestBaselineOfMovedSecrets(t *testing.T) {
	const a, b = "X = 1\n", "Y = 2\n"
	before := map[string]string{"a.py": a + "password = 'Fjord-77-Xq'\n", "b.py": b, ".env": "DB_PASSWORD=\"Fjord-78-Xq\"\nP=1\n", "k.yaml": "token: q8Zr2Lw0Xv6Kt9Bn\ndb:\n  password: postgres\n", "empty.yaml": "a: 1\n"}
	for name, tc := range map[string]struct {
		now     map[string]string
		carried string
		fresh   int
	}{
		"nothing":                   {nil, "", 0},
		"into another file":         {map[string]string{"a.py": a, "b.py": b + "password = 'Fjord-77-Xq'\n"}, "b.py:2 < a.py password", 0},
		"into a new file":           {map[string]string{"a.py": a, "lib/c.py": "password = 'Fjord-77-Xq'\n"}, "lib/c.py:1 < a.py password", 0},
		"the file goes":             {map[string]string{"a.py": "", "k.yaml": "token: q8Zr2Lw0Xv6Kt9Bn\ndb:\n  password: postgres\npassword: Fjord-77-Xq\n"}, "k.yaml:4 < a.py password", 0},
		"and committed":             {map[string]string{"a.py": a, "b.py": b + "password = 'Fjord-77-Xq'\n"}, "b.py:2 < a.py password", 0},
		"another kind of file":      {map[string]string{".env": "P=1\n", "empty.yaml": "DB_PASSWORD: Fjord-78-Xq\n"}, "empty.yaml:1 < .env DB_PASSWORD", 0},
		"under another name":        {map[string]string{"a.py": a, "b.py": b + "secret_key = 'Fjord-77-Xq'\n"}, "b.py:2 < a.py password", 0},
		"each into the other":       {map[string]string{"a.py": a + "db_password = 'Fjord-78-Xq'\n", ".env": "PASSWORD=Fjord-77-Xq\nP=1\n"}, ".env:1 < a.py password, a.py:2 < .env DB_PASSWORD", 0},
		"another value":             {map[string]string{"a.py": a, "b.py": b + "password = 'Fjord-99-Xq'\n"}, "", 1},
		"a copy":                    {map[string]string{"b.py": b + "password = 'Fjord-77-Xq'\n"}, "", 1},
		"moved and copied":          {map[string]string{"a.py": a, "b.py": b + "password = 'Fjord-77-Xq'\n", "c.py": "password = 'Fjord-77-Xq'\n"}, "b.py:2 < a.py password", 1},
		"a common value":            {map[string]string{"k.yaml": "token: q8Zr2Lw0Xv6Kt9Bn\n", "a.py": a + "password = 'Fjord-77-Xq'\nadmin_password = 'postgres'\n"}, "", 1},
		"a common value, same name": {map[string]string{"k.yaml": "token: q8Zr2Lw0Xv6Kt9Bn\n", "empty.yaml": "db:\n  password: postgres\n"}, "empty.yaml:2 < k.yaml db.password", 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			known := migrate.NewBaseline(scanTree(t, before, migrate.ScanOptions{Root: dir}).Findings())
			if len(known.Findings) != 4 {
				t.Fatalf("%+v", known)
			}
			write(t, dir, "baseline.json", "{}")
			gitRun(t, dir, "init", "-q")
			commitAll(t, dir, "one")
			for file, text := range tc.now {
				if text == "" {
					if err := os.RemoveAll(filepath.Join(dir, file)); err != nil {
						t.Fatal(err)
					}
					continue
				}
				write(t, dir, file, text)
			}
			if strings.Contains(name, "committed") { // and the baseline was not
				commitAll(t, dir, "two")
			}
			r := scanTree(t, nil, migrate.ScanOptions{Root: dir, Compare: true})
			c := known.Compare(r.Findings(), r.Tree(t.Context(), filepath.Join(dir, "baseline.json")))
			var carried []string
			for _, f := range c.Carried {
				carried = append(carried, fmt.Sprintf("%s:%d < %s %s", f.File, f.Line, f.From.File, f.From.Name))
			}
			if got := strings.Join(carried, ", "); len(c.Fresh) != tc.fresh || got != tc.carried {
				t.Errorf("%d new, %q: %+v", len(c.Fresh), got, c)
			}
			shown, err := json.Marshal(c)
			sarif, sarifErr := migrate.SARIF("1", r.Findings(), &c, nil)
			if all := string(shown) + string(sarif); err != nil || sarifErr != nil || strings.Contains(all, "Fjord") || strings.Count(all, `"baselineState": "new"`) != tc.fresh {
				t.Errorf("%s, %v, %v", all, err, sarifErr)
			}
			for _, f := range c.Carried {
				if !strings.Contains(string(sarif), fmt.Sprintf("%q", f.From.File+":"+f.From.Name+":"+f.From.Rule+":1")) {
					t.Errorf("%s has another fingerprint: %s", f.File, sarif)
				}
			}
		})
	}
}

func TestBaselineFaults(t *testing.T) {
	for name, tc := range map[string][2]string{
		"syntax":        {"{", "unexpected EOF"},
		"unknown field": {`{"format":1,"findings":[],"colour":1}`, "colour"},
		"format":        {`{"format":2,"findings":[]}`, "format 2"},
		"outside":       {`{"format":1,"findings":[{"file":"../a","rule":"name","count":1}]}`, `"../a"`},
		"no rule":       {`{"format":1,"findings":[{"file":"a","count":1}]}`, "no rule"},
		"twice":         {`{"format":1,"findings":[{"file":"a","rule":"name","count":1},{"file":"a","rule":"name","count":1}]}`, "twice"},
		"a tail":        {`{"format":1,"findings":[]}{}`, "follows"},
	} {
		if _, err := migrate.ParseBaseline("B", []byte(tc[0])); err == nil || !strings.Contains(err.Error(), tc[1]) || !strings.Contains(err.Error(), `"B"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseBaseline(f *testing.F) {
	f.Add([]byte(`{"format":1,"findings":[{"file":"a","name":"b","rule":"name","count":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := migrate.ParseBaseline("b", data)
		if err != nil {
			return
		}
		text, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := migrate.ParseBaseline("b", text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	})
}

// What git ignores is not about to be shared.
func TestCommitted(t *testing.T) {
	needsGit(t)
	dir := t.TempDir()
	gitRun(t, dir, "init", "-q")
	files := map[string]string{".gitignore": ".env\nlocal/\n", ".env": "DB_PASSWORD=Fjord-77\n", ".env.production": "DB_PASSWORD=Fjord-77\n", "local/.env.test": "DB_PASSWORD=Fjord-77\n", "a.py": "password = 'Fjord-77'\n"}
	all := scanTree(t, files, migrate.ScanOptions{Root: dir}).Findings()
	var got []string
	for _, f := range migrate.Committed(t.Context(), dir, all) {
		got = append(got, f.File)
	}
	if len(all) != 4 || !slices.Equal(got, []string{".env.production", "a.py"}) {
		t.Errorf("%d in all, %v are git's", len(all), got)
	}
	// A file that git has all the same is shared.
	gitRun(t, dir, "add", "-f", ".env")
	if got := migrate.Committed(t.Context(), dir, all); len(got) != 3 {
		t.Errorf("%+v", got)
	}
	plain := scanTree(t, files, migrate.ScanOptions{})
	if got := migrate.Committed(t.Context(), plain.Root, plain.Findings()); len(got) != 4 {
		t.Errorf("without git: %+v", got)
	}
}

// SARIF has what version 2.1.0 requires, and no value.
func TestSARIF(t *testing.T) {
	r := scanTree(t, map[string]string{"a dir/a.py": "password = 'Fjord-77'\n", ".env": "DB_PASSWORD=Fjord-78\n", "x.env": "A='x\n"}, migrate.ScanOptions{})
	all := r.Findings()
	for name, with := range map[string]*migrate.Compared{"without a baseline": nil, "with one": {Fresh: all[:1]}, "all known": {}} {
		data, err := migrate.SARIF("1.2.3", all, with, r.Problems)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "Fjord") {
			t.Errorf("%s: a value shows", name)
		}
		var doc map[string]any
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		at := func(v any, path ...any) any {
			for _, p := range path {
				switch p := p.(type) {
				case string:
					m, ok := v.(map[string]any)
					if !ok || m[p] == nil {
						t.Fatalf("%s: no %v in %v", name, path, v)
					}
					v = m[p]
				case int:
					l, ok := v.([]any)
					if !ok || len(l) <= p {
						t.Fatalf("%s: no %v in %v", name, path, v)
					}
					v = l[p]
				}
			}
			return v
		}
		if at(doc, "version") != "2.1.0" || !strings.Contains(at(doc, "$schema").(string), "sarif") || at(doc, "runs", 0, "tool", "driver", "name") == "" {
			t.Errorf("%s: %s", name, data)
		}
		rules, _ := at(doc, "runs", 0, "tool", "driver", "rules").([]any)
		results, _ := at(doc, "runs", 0, "results").([]any)
		if len(results) != len(all) || len(rules) == 0 {
			t.Fatalf("%s: %d results, %d rules", name, len(results), len(rules))
		}
		for _, res := range results {
			i := int(at(res, "ruleIndex").(float64))
			if at(rules[i], "id") != at(res, "ruleId") || at(rules[i], "shortDescription", "text") == "" || at(res, "message", "text") == "" {
				t.Errorf("%s: %v", name, res)
			}
			if line := at(res, "locations", 0, "physicalLocation", "region", "startLine").(float64); line < 1 {
				t.Errorf("%s: line %v", name, line)
			}
			if uri := at(res, "locations", 0, "physicalLocation", "artifactLocation", "uri").(string); strings.ContainsAny(uri, " \\") || strings.HasPrefix(uri, "/") {
				t.Errorf("%s: %q is no relative URI", name, uri)
			}
			level := at(res, "level")
			state, has := res.(map[string]any)["baselineState"]
			if has != (with != nil) || (level == "error") != (with == nil || state == "new") || (level != "error" && level != "note") {
				t.Errorf("%s: level %v, baseline state %v", name, level, state)
			}
		}
		if at(doc, "runs", 0, "invocations", 0, "executionSuccessful") != true || at(doc, "runs", 0, "invocations", 0, "toolExecutionNotifications", 0, "message", "text") == "" {
			t.Errorf("%s: %s", name, data)
		}
	}
	empty, err := migrate.SARIF("1", nil, nil, nil)
	if err != nil || !strings.Contains(string(empty), `"results": []`) || !strings.Contains(string(empty), `"rules": []`) {
		t.Errorf("%s %v", empty, err)
	}
}
