package migrate_test

import (
	"encoding/json"
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
			fresh, gone := known.Compare(scanTree(t, now, migrate.ScanOptions{}).Findings())
			if len(fresh) != tc.fresh || len(gone) != tc.gone {
				t.Errorf("new %+v, gone %+v", fresh, gone)
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
	for name, fresh := range map[string][]migrate.Finding{"without a baseline": nil, "with one": all[:1], "all known": {}} {
		data, err := migrate.SARIF("1.2.3", all, fresh, r.Problems)
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
			if has != (fresh != nil) || (level == "error") != (fresh == nil || state == "new") || (level != "error" && level != "note") {
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
