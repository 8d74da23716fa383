package migrate_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/secrets/migrate"
)

const patchImp = "import strongroom_dagster.env as strongroom_env\n"

func needsPython(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
}

// What becomes of a file: an empty want is that it stays. By hand are the
// beginnings of what is said, each of one.
func TestPatchPython(t *testing.T) {
	needsPython(t)
	const (
		isDefault = ": the default of A is a secret in the code"
		dynamic   = ": reads a variable whose name is not in the text"
		whole     = ": takes the whole environment"
		named     = ": A is named"
		written   = ": A is written"
		changed   = ": A is changed by pop, setdefault or update"
		asBytes   = ": A is read as bytes"
		twice     = ": A is read by a name that is something else"
		pydantic  = ": A is read by pydantic"
	)
	patch := migrate.PatchPython(t.Context())
	names := map[string]bool{"A": true, "APP_KEY": true}
	for _, tt := range []struct{ name, src, want, byHand string }{
		{"index", "import os\nx = os.environ['A']\n", patchImp + "import os\nx = strongroom_env.environ['A']\n", ""},
		{"bare", "from os import environ\nx = environ[\"A\"]\n", patchImp + "from os import environ\nx = strongroom_env.environ[\"A\"]\n", ""},
		{"get", "import os\nos.environ.get('A', 1)\n", patchImp + "import os\nstrongroom_env.environ.get('A', 1)\n", ""},
		{"getenv", "import os\nos.getenv('A', default=None)\n", patchImp + "import os\nstrongroom_env.getenv('A', default=None)\n", ""},
		{"in", "import os\n'A' in os.environ, 'A' not in os.environ\n", patchImp + "import os\n'A' in strongroom_env.environ, 'A' not in strongroom_env.environ\n", ""},
		{"another variable", "import os\nos.environ['B'], os.getenv('B'), 'B' in os.environ, os.environ.pop('B')\n", "", ""},
		{"comment", "import os\n# os.environ['A']\n", "", ""},
		{"string", "import os\nx = '''os.environ[\"A\"]'''\n", "", "2: A is named in a text that looks like code"},
		{"docstring", "\"\"\"os.environ['A']\"\"\"\ndef f():\n    'A'\n", "", ""},
		{"string beside a read", "import os\nx = \"os.environ['A']\"; y = os.environ['A']\n", patchImp + "import os\nx = \"os.environ['A']\"; y = strongroom_env.environ['A']\n", "2: A is named in a text"},
		{"written", "import os\nos.environ['A'] = 'x'\n", "", "2" + written},
		{"augmented", "import os\nos.environ['A'] += 'x'\n", "", "2" + written},
		{"compared", "import os\nos.environ['A'] == 'x'\n", patchImp + "import os\nstrongroom_env.environ['A'] == 'x'\n", ""},
		{"deleted", "import os\ndel os.environ['A']\n", "", "2" + written},
		{"popped", "import os\nos.environ.pop('A')\n", "", "2" + changed},
		{"updated", "import os\nos.environ.update(A='x')\nos.environ.update({'A': 1})\nos.environ.setdefault('A', 'x')\nos.putenv('A', 'x')\n", "", "2" + changed + "|2: A is named|3" + changed + "|4" + changed + "|5" + written},
		{"future", "from __future__ import annotations\nimport os\nos.getenv('A')\n", "from __future__ import annotations\n" + patchImp + "import os\nstrongroom_env.getenv('A')\n", ""},
		{"future of several lines", "from __future__ import (\n    annotations,\n    division,\n)\nimport os\nos.getenv('A')\n", "from __future__ import (\n    annotations,\n    division,\n)\n" + patchImp + "import os\nstrongroom_env.getenv('A')\n", ""},
		{"future with a backslash", "from __future__ import annotations, \\\n    division\nimport os\nos.getenv('A')\n", "from __future__ import annotations, \\\n    division\n" + patchImp + "import os\nstrongroom_env.getenv('A')\n", ""},
		{"futures, one line", "from __future__ import annotations; import os; x = os.getenv('A')\n", "from __future__ import annotations; " + strings.TrimSpace(patchImp) + "; import os; x = strongroom_env.getenv('A')\n", ""},
		{"future behind a docstring", "'''d\n'''\nfrom __future__ import annotations\nx = __import__\nimport os\nos.getenv('A')\n", "'''d\n'''\nfrom __future__ import annotations\nx = __import__\n" + patchImp + "import os\nstrongroom_env.getenv('A')\n", ""},
		{"a text with from in it", "'''\nfrom x import y\nimport z\n'''\nimport os\nos.getenv('A')\n", "'''\nfrom x import y\nimport z\n'''\n" + patchImp + "import os\nstrongroom_env.getenv('A')\n", ""},
		{"nested import", "def f():\n    import os\n    return os.getenv('A')\n", patchImp + "def f():\n    import os\n    return strongroom_env.getenv('A')\n", ""},
		{"decorated", "@d\ndef f():\n    import os\n    return os.getenv('A')\n", patchImp + "@d\ndef f():\n    import os\n    return strongroom_env.getenv('A')\n", ""},
		{"a read before the imports", "try:\n    import os\n    x = os.environ['A']\nexcept KeyError:\n    pass\nimport sys\n", patchImp + "try:\n    import os\n    x = strongroom_env.environ['A']\nexcept KeyError:\n    pass\nimport sys\n", ""},
		{"tabs", "import os\nif 1:\n\tx = os.environ['A']\n", patchImp + "import os\nif 1:\n\tx = strongroom_env.environ['A']\n", ""},
		{"form feed", "import os\n\x0c\nx = os.environ['A']\n", patchImp + "import os\n\x0c\nx = strongroom_env.environ['A']\n", ""},
		{"shebang and coding", "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n# ours\nimport os\nx = 'é', os.environ['A']\n", "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n# ours\n" + patchImp + "import os\nx = 'é', strongroom_env.environ['A']\n", ""},
		{"mark", "\ufeffimport os\nx = os.environ['A']\n", "\ufeff" + patchImp + "import os\nx = strongroom_env.environ['A']\n", ""},
		{"mark and coding", "\ufeff# coding: utf-8\nimport os\nx = os.environ['A']\n", "\ufeff# coding: utf-8\n" + patchImp + "import os\nx = strongroom_env.environ['A']\n", ""},
		{"line ends of Windows", "import os\r\nx = '''a\r\nb''', os.environ['A']\r\n", strings.TrimSpace(patchImp) + "\r\nimport os\r\nx = '''a\r\nb''', strongroom_env.environ['A']\r\n", ""},
		{"old line ends of Macs", "import os\rx = os.environ['A']\r", strings.TrimSpace(patchImp) + "\rimport os\rx = strongroom_env.environ['A']\r", ""},
		{"Latin-1", "# coding: latin-1\nimport os\nx = '\xe9\xe9', os.environ['A']\n", "# coding: latin-1\n" + patchImp + "import os\nx = '\xe9\xe9', strongroom_env.environ['A']\n", ""},
		{"no Latin-1 that is said", "import os\nx = '\xe9', os.environ['A']\n", "", "2: the file is left alone: its text is not in the encoding|2" + named},
		{"an encoding of nobody", "# coding: nobody\nimport os\nx = os.environ['A']\n", "", "3: the file is left alone: its text is not in the encoding|3" + named},
		{"wide characters before", "import os\nx = {'🔑é': os.environ['A'], '🔑': os.getenv('A')}\n", patchImp + "import os\nx = {'🔑é': strongroom_env.environ['A'], '🔑': strongroom_env.getenv('A')}\n", ""},
		{"a line separator in a text", "import os\nx = '\u2028\u0085', os.environ['A']\n", patchImp + "import os\nx = '\u2028\u0085', strongroom_env.environ['A']\n", ""},
		{"over several lines", "import os\nx = (os\n     . environ  # here\n     ['A'])\n", patchImp + "import os\nx = (strongroom_env.environ  # here\n     ['A'])\n", ""},
		{"in brackets", "import os\nx = (os).environ['A'], (os.environ)['A']\n", patchImp + "import os\nx = strongroom_env.environ['A'], (strongroom_env.environ)['A']\n", ""},
		{"no line end", "import os; x = os.environ['A']", patchImp + "import os; x = strongroom_env.environ['A']", ""},
		{"module by another name", "import os as _os\n_os.environ['A'], _os.getenv('A')\n", patchImp + "import os as _os\nstrongroom_env.environ['A'], strongroom_env.getenv('A')\n", ""},
		{"os.path alone", "import os.path\nos.environ['A']\n", patchImp + "import os.path\nstrongroom_env.environ['A']\n", ""},
		{"function by another name", "from os import getenv as ge, environ as e\nge('A'), e['A'], e.get('A')\n", patchImp + "from os import getenv as ge, environ as e\nstrongroom_env.getenv('A'), strongroom_env.environ['A'], strongroom_env.environ.get('A')\n", ""},
		{"star", "from os import *\nenviron['A']\n", patchImp + "from os import *\nstrongroom_env.environ['A']\n", ""},
		{"of something else", "x = request.environ['A']\n", "", "1" + named},
		{"a parameter called environ", "def app(environ, start):\n    return environ['A']\n", "", "2" + named},
		{"a name of two things", "from os import environ\ndef app(environ): return environ['A']\n", "", "2" + twice},
		{"os of two things", "import os\ndef f(os): return os.environ['A']\n", "", "2" + twice},
		{"whole", "import os, subprocess\nsubprocess.run(['x'], env={**os.environ})\ndict(os.environ)\nos.environ.copy()\nfor k in os.environ: pass\nenv = os.environ\nget = os.environ.get\n", "", "2" + whole + "|3" + whole + "|4" + whole + "|5" + whole + "|6" + whole + "|7" + whole},
		{"dynamic", "import os\nn = 'B'\nos.environ[n], os.getenv(f'{n}')\nos.environ.get('A' + n)\nn in os.environ\n", "", "3" + dynamic + "|4" + named + "|4" + dynamic + "|5" + dynamic},
		{"a constant's name", "import os\nNAME = 'A'\nos.environ[NAME]\n", "", "2" + named + "|3" + dynamic},
		{"bytes", "import os\nos.environb[b'A']\nos.getenvb(b'A')\nb'A' in os.environb\nos.environb[b'B']\nos.environb.get(b'A')\n", "", "2" + asBytes + "|3" + asBytes + "|4" + asBytes + "|6" + asBytes},
		{"keyword key", "import os\nos.getenv(key='A')\n", "", "2: A is read with keywords"},
		{"keywords twice", "import os\nos.getenv('A', **k)\n", "", "2: A is read with keywords"},
		{"getattr", "import os\ngetattr(os, 'environ')['A']\n", "", "2" + named + "|2: takes os.environ by its name"},
		{"handed on", "import os\nx = map(os.getenv, y)\n", "", "2: getenv is handed on"},
		{"by its method", "import os\nos.environ.__getitem__('A')\n", "", "2: A is read by __getitem__"},
		{"monkeypatch", "def test(monkeypatch):\n    monkeypatch.setenv('A', 'x')\n", "", "2" + named},
		{"others' readers", "from decouple import config\nconfig('A')\nenv.str('A')\n", "", "2" + named + "|3" + named},
		{"a text with a dollar", "import os\nos.path.expandvars('$A/x'), '${A}', '$AB'\n", "", "2: A is taken out of the environment by a text"},
		{"Dagster", "from dagster import EnvVar\nx = EnvVar('A'), EnvVar.int('A'), dg.EnvVar(name='A')\n", "", "2: EnvVar(A) reads the process's environment"},
		{"pydantic", "class S(BaseSettings):\n    a: str\n    b: str\nclass T(pydantic_settings.BaseSettings):\n    model_config = SettingsConfigDict(env_prefix='APP_')\n    key: str\nclass U(BaseSettings):\n    x: str = Field(validation_alias=AliasChoices('a', 'B'))\n    class Config:\n        env_prefix = 'app_'\nclass V(U):\n    y: str\n",
			"", "2" + pydantic + "|6: APP_KEY is read by pydantic|8" + pydantic},
		{"default", "import os\nx = os.getenv('A', 'fallback-Secret-77')\n", patchImp + "import os\nx = strongroom_env.getenv('A', 'fallback-Secret-77')\n", "2" + isDefault},
		{"default by or", "import os\nx = os.environ.get('A') or 'fallback-Secret-77'\n", patchImp + "import os\nx = strongroom_env.environ.get('A') or 'fallback-Secret-77'\n", "2" + isDefault},
		{"default by if", "import os\nx = os.environ['A'] if 'A' in os.environ else 'fallback-Secret-77'\n", patchImp + "import os\nx = strongroom_env.environ['A'] if 'A' in strongroom_env.environ else 'fallback-Secret-77'\n", "2" + isDefault},
		{"default of several", "import os\nx = os.environ.get('A', 'one' 'two' + f'three{y}')\n", patchImp + "import os\nx = strongroom_env.environ.get('A', 'one' 'two' + f'three{y}')\n", "2" + isDefault},
		{"default that is a number", "import os\nx = int(os.environ.get('A', 871265))\n", patchImp + "import os\nx = int(strongroom_env.environ.get('A', 871265))\n", "2" + isDefault},
		{"default that is read", "import os\nx = os.environ.get('A', os.environ['A'])\n", patchImp + "import os\nx = strongroom_env.environ.get('A', strongroom_env.environ['A'])\n", ""},
		{"empty default", "import os\nx = os.environ.get('A', '') or os.environ.get('A', None)\n", patchImp + "import os\nx = strongroom_env.environ.get('A', '') or strongroom_env.environ.get('A', None)\n", ""},
		{"our name taken", "import os\nstrongroom_env = 1\nx = os.environ['A']\n", "", "3: a variable is read here, and strongroom_env is something else"},
		{"no Python", "def f(:\n    os.environ['A']\n", "", "2: the file is left alone: line 1 is not what Python|2" + named},
		{"Python 2", "import os\nprint os.environ['A']\n", "", "2: the file is left alone: line 2 is not what Python|2" + named},
		{"no Python that names nothing", "def f(:\n    os.environ['B']\n", "", ""},
		{"a return of no function", "import os\nreturn os.environ['A']\n", "", "2: the file is left alone: line 2 is not|2" + named},
		{"NUL", "import os\nx = os.environ['A']\x00\n", "", "2: the file is left alone: |2" + named},
		{"nested too deeply", "x = os.environ['A'] + " + strings.Repeat("(", 300) + "1" + strings.Repeat(")", 300) + "\n", "", "1: the file is left alone: |1" + named},
		{"empty", "", "", ""},
		{"only a comment", "# A\n", "", ""},
		{"by hand before", "from strongroom_dagster.env import environ, getenv\nenviron['A'], getenv('A', 'fallback-Secret-77'), environ.get('A'), 'A' in environ\n", "", "2" + isDefault},
		{"again", patchImp + "import os\nx = strongroom_env.environ['A'], os.getenv('A')\n", patchImp + "import os\nx = strongroom_env.environ['A'], strongroom_env.getenv('A')\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == "" {
				tt.want = tt.src
			}
			got, byHand, shown := patch("a.py", []byte(tt.src), names)
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			var want []string
			if tt.byHand != "" {
				want = strings.Split(tt.byHand, "|")
			}
			ok := len(want) == len(byHand)
			for i := range min(len(want), len(byHand)) {
				ok = ok && strings.HasPrefix(byHand[i], "line "+want[i])
			}
			if !ok {
				t.Errorf("by hand %q, want %q", byHand, want)
			}
			if again, _, _ := patch("a.py", got, names); string(again) != string(got) {
				t.Errorf("patched twice it is %q", again)
			}
			for _, s := range append(shown, byHand...) {
				if strings.Contains(s, "fallback") || strings.Contains(s, "871265") || strings.Contains(s, "# ours") {
					t.Errorf("shows %q", s)
				}
			}
		})
	}
}

// In an f-string a read is patched where Python knows its place, and listed
// elsewhere; never is anything else changed.
func TestPatchFString(t *testing.T) {
	needsPython(t)
	patch := migrate.PatchPython(t.Context())
	for _, src := range []string{
		"import os\nx = f\"{os.environ['A']}\"\n",
		"import os\nx = f\"os.environ {os.environ['A']} os.environ\"\n",
		"import os\nx = f'''\n{os.environ[\"A\"]}\n{os.getenv(\"A\")!r:>{os.getenv(\"A\")}}'''\n",
		"import os\nx = f\"{os.environ['A']}\" f\"{os.environ['A']}\", os.environ['A']\n",
		"import os\nx = f\"é{os.environ['A']}\"\n",
		"import os\nx = f\"{{os.environ['A']}} {os.environ['A']=}\"\n",
	} {
		got, byHand, _ := patch("a.py", []byte(src), map[string]bool{"A": true})
		plain := strings.NewReplacer(patchImp, "", "strongroom_env.", "os.").Replace(string(got))
		if plain != src {
			t.Errorf("%q became %q", src, got)
		}
		if string(got) == src && len(byHand) == 0 {
			t.Errorf("%q is neither patched nor listed", src)
		}
	}
}

// A Python that ends, or says something else, leaves files alone.
func TestPatchWithoutPython(t *testing.T) {
	needsPython(t)
	real, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	src := []byte("import os\nx = os.environ['A']\n")
	for name, program := range map[string]string{
		"ends":         "exit 1",
		"another":      "echo '{}'; cat >/dev/null",
		"no JSON":      "echo hello; cat >/dev/null",
		"ends later":   "head -c 100 >/dev/null; echo '{\"version\":\"3.11\"}'; exit 0",
		"the real one": "exec " + real + ` "$@"`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "python3"), []byte("#!/bin/sh\n"+program+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			patch := migrate.PatchPython(t.Context())
			for range 8 {
				got, byHand, _ := patch("a.py", src, map[string]bool{"A": true})
				left := bytes.Equal(got, src) && len(byHand) == 2 && strings.HasPrefix(byHand[0], "line 2: the file is left alone: ")
				if patched := bytes.Contains(got, []byte(patchImp)); !left && !patched || name == "the real one" && !patched {
					t.Errorf("got %q, %q", got, byHand)
				}
			}
		})
	}
}

// A program is Python by its first line as well, and keeps its mode.
func TestPatchedPrograms(t *testing.T) {
	needsPython(t)
	p, s := newProject(t), newFake()
	read := "import os\nos.environ['DB_PASSWORD']\n"
	for file, text := range map[string]string{"bin/load": "#!/usr/bin/env python3\n" + read, "a.pyw": read, "bin/other": "#!/bin/sh\n# " + read} {
		write(t, p.dir, file, text)
	}
	if err := os.Chmod(filepath.Join(p.dir, "bin", "load"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := p.apply(t, s); err != nil {
		t.Fatal(err)
	}
	if _, err := migrate.Cutover(t.Context(), migrate.CutoverOptions{Root: p.dir, Plan: p.plan, Store: s, Recipients: []age.Recipient{p.key.Recipient()}, PatchCode: true}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{"bin/load": true, "a.pyw": true, "bin/other": false} {
		data, err := os.ReadFile(filepath.Join(p.dir, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(data, []byte(patchImp)); got != want {
			t.Errorf("%s is patched: %v", file, got)
		}
	}
	if st, err := os.Stat(filepath.Join(p.dir, "bin", "load")); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// The helper has an environment of its own, and the code that it reads is in
// no argument.
func TestPythonIsAlone(t *testing.T) {
	needsPython(t)
	real, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte(fmt.Sprintf("#!/bin/sh\nenv >%s\necho \"$@\" >>%s\nexec %s \"$@\"\n", said, said, real)), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, v := range []string{"PYTHONPATH", "PYTHONSTARTUP", "VAULT_TOKEN", "LD_PRELOAD_X"} {
		t.Setenv(v, "planted")
	}
	got, _, _ := migrate.PatchPython(t.Context())("a.py", []byte("import os\nx = os.environ['A']  # canary-4711\n"), map[string]bool{"A": true})
	if !bytes.Contains(got, []byte(patchImp)) {
		t.Error("not patched")
	}
	text, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "planted") || strings.Contains(string(text), "canary") || strings.Contains(string(text), "class Finder") {
		t.Errorf("the helper was started with\n%s", text)
	}
	var set []string
	for l := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(l, "="); ok && !strings.HasPrefix(l, "-I") && strings.ToUpper(name) == name {
			set = append(set, name)
		}
	}
	slices.Sort(set)
	set = slices.DeleteFunc(set, func(n string) bool { return n == "PWD" || n == "OLDPWD" || n == "SHLVL" || n == "_" })
	if want := []string{"HOME", "LC_ALL", "PATH"}; !slices.Equal(set, want) {
		t.Errorf("its environment is %q, want %q", set, want)
	}
}
