package migrate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// What each kind of file says of variables: those that it uses, as NAME:LINE,
// and those that it gives a value, as NAME=VALUE:LINE.
func TestExtractors(t *testing.T) {
	for name, tc := range map[string]struct {
		file, text string
		uses, defs []string
		problem    string
	}{
		"python": {
			file: "a.py",
			text: "import os\nA = os.environ['A_URL']\nB = os.getenv('B_KEY', 'fall-back')\n# os.environ['COMMENT']\nif 'C_FLAG' in os.environ: pass\n",
			uses: []string{"A_URL:2", "B_KEY:3", "C_FLAG:5"}, defs: []string{"B_KEY=fall-back:3"},
		},
		"decouple and environ": {
			file: "settings.py",
			text: "from decouple import config\nimport environ\nKEY = config('KEY_A', default='x')\nenv = environ.Env()\nD = env.str('KEY_B')\n",
			uses: []string{"KEY_A:3", "KEY_B:5"}, defs: []string{"KEY_A=x:3"},
		},
		"python by other names": {
			file: "b.py",
			text: "from os import environ as E, getenv as G\nE['A1']; E.get('A2', 'x2'); G('A3', default='x3')\nif (p := os.environ.get(key='A4')): pass\nos.environ.__getitem__('A5')\ngetattr(os, 'environ')['A6']\n",
			uses: []string{"A1:2", "A2:2", "A3:2", "A4:3", "A5:4", "A6:5"}, defs: []string{"A2=x2:2", "A3=x3:2"},
		},
		"settings by other names": {
			file: "c2.py",
			text: "from starlette.config import Config\nimport environ\nconf = Config('.env')\nX = conf('B1', cast=str, default='no')\ne2 = environ.Env(DEBUG=(bool, False))\nY = e2.db('B2', default='sqlite://x')\nother('B3')\n",
			uses: []string{"B1:4", "B2:6"}, defs: []string{"B2=sqlite://x:6"},
		},
		"dbt": {
			file: "profiles.yml",
			text: "a:\n  outputs:\n    x:\n      password: \"{{ env_var('C1') }}\"\n      token: \"{{ env_var('C2', 'x4') }}\"\n",
			uses: []string{"C1:4", "C2:5"}, defs: []string{"C2=x4:5"},
		},
		"compose by its content": {
			file: "deploy/db.yml",
			text: "services:\n  db:\n    environment:\n      D1: ${D2}\n      D3: x5\n",
			uses: []string{"D2:4"}, defs: []string{"D3=x5:5"},
		},
		"dagster": {file: "d.py", text: "from dagster import EnvVar\nr = R(key=EnvVar('D_KEY'), n=EnvVar.int('D_NUM'))\n", uses: []string{"D_KEY:2", "D_NUM:2"}},
		"pydantic": {
			file: "c.py",
			text: "from pydantic_settings import BaseSettings\nclass Settings(BaseSettings):\n    model_config = SettingsConfigDict(\n        env_prefix='app_',\n    )\n    db_password: str\n    port: int = 5432\n    greeting: str = 'hi'\n    key: str = Field(\n        validation_alias=AliasChoices('THE_KEY', 'OLD_KEY'),\n    )\n    other: str = Field(alias='OTHER')\n\n    def url(self) -> str:\n        inner: str = ''\n        return inner\n\nclass Plain:\n    not_a_setting: str\n",
			uses: []string{"APP_DB_PASSWORD:6", "APP_GREETING:8", "APP_PORT:7", "OLD_KEY:9", "OTHER:12", "THE_KEY:9"}, defs: []string{"APP_GREETING=hi:8"},
		},
		"javascript": {
			file: "a.ts",
			text: "const a = process.env.A_KEY;\nconst b = process.env['B_KEY'];\n// process.env.NOT\n/* process.env.NOR */\nconst { C_KEY, D_KEY: d } = process.env;\nconst e = import.meta.env.VITE_E;\nconst f = Deno.env.get('F_KEY') ?? process.env?.G;\nconst s = 'http://x // y';\n",
			uses: []string{"A_KEY:1", "B_KEY:2", "C_KEY:5", "D_KEY:5", "F_KEY:7", "G:7", "VITE_E:6"},
		},
		"go": {
			file: "a.go",
			text: "package a\nvar a = os.Getenv(\"A_KEY\")\n// os.Getenv(\"NOT\")\ntype c struct {\n\tB string `env:\"B_KEY,required\"`\n}\nfunc f() { viper.BindEnv(\"x\", \"C_KEY\"); os.LookupEnv(\"D_KEY\") }\n",
			uses: []string{"A_KEY:2", "B_KEY:5", "C_KEY:7", "D_KEY:7"},
		},
		"shell": {
			file: "run.sh",
			text: "#!/bin/sh\n# $NOT_USED\nexport OWN=\"text\"\nA_KEY='single'\necho $HOME $OWN ${FROM_OUTSIDE:-x} \"$ALSO_FROM\"\nB_KEY=$OTHER_KEY\n",
			uses: []string{"ALSO_FROM:5", "FROM_OUTSIDE:5", "OTHER_KEY:6"}, defs: []string{"A_KEY=single:4", "OWN=text:3"},
		},
		"make": {file: "Makefile", text: "TOKEN_A ?= abc\nrun:\n\techo $(X) $${TOKEN_B}\n", uses: []string{"TOKEN_B:3"}, defs: []string{"TOKEN_A=abc:1"}},
		"dockerfile": {
			file: "Dockerfile.prod",
			text: "FROM x\n# ENV NOT=1\nARG FROM_BUILD\nENV A_KEY=one B_KEY=\"two words\"\nENV OLD_FORM three four\nRUN echo $A_KEY $FROM_RUN\n",
			uses: []string{"FROM_BUILD:3", "FROM_RUN:6"}, defs: []string{"A_KEY=one:4", "B_KEY=two words:4", "OLD_FORM=three four:5"},
		},
		"systemd": {
			file: "a.service",
			text: "[Service]\n# Environment=NOT=1\nEnvironment=\"A_KEY=one two\" B_KEY=three 'C_KEY=four'\nEnvironmentFile=-/etc/app.env\nExecStart=/bin/x ${A_KEY} $FROM_FILE\n",
			uses: []string{"FROM_FILE:5"}, defs: []string{"A_KEY=one two:3", "B_KEY=three:3", "C_KEY=four:3"},
		},
		"systemd drop-in": {file: "x.service.d/10.conf", text: "[Service]\nEnvironment=A_KEY=v\n", defs: []string{"A_KEY=v:2"}},
		"another conf":    {file: "nginx.conf", text: "Environment=A_KEY=v\n"},
		"compose": {
			file: "compose.prod.yaml",
			text: "services:\n  a:\n    environment:\n      A_KEY: one\n      FROM_HOST:\n      B_URL: x${B_PART}\n    build:\n      args: [C_KEY=two, D_FROM]\n    env_file:\n      - path: a.env\n  b:\n    env_file: [b.env]\n",
			uses: []string{"B_PART:6", "D_FROM:8", "FROM_HOST:5"}, defs: []string{"A_KEY=one:4", "C_KEY=two:8"},
		},
		"compose that is no YAML": {file: "docker-compose.yml", text: "a: [\n  ${A_KEY}\n", uses: []string{"A_KEY:2"}, problem: "not well-formed YAML"},
		"actions": {
			file: ".github/workflows/ci.yml",
			text: "jobs:\n  t:\n    env:\n      A_KEY: plain\n      B_KEY: ${{ secrets.B_SECRET }}\n    steps:\n      - run: echo ${{ vars.C_VAR }}\n",
			uses: []string{"B_SECRET:5", "C_VAR:7"}, defs: []string{"A_KEY=plain:4"},
		},
		"dagster.yaml":         {file: "dagster.yaml", text: "storage:\n  postgres:\n    password:\n      env: PG_PASSWORD\n    other: {env: [no]}\n", uses: []string{"PG_PASSWORD:4"}},
		"a program of Python":  {file: "bin/run", text: "#!/usr/bin/env python3\nimport os\nos.environ['A_URL']\n", uses: []string{"A_URL:3"}},
		"a program of a shell": {file: "bin/go", text: "#!/bin/bash -eu\necho $A_URL\n", uses: []string{"A_URL:2"}},
		"a program of Node":    {file: "bin/x", text: "#!/usr/bin/env node\nprocess.env.A_URL\n", uses: []string{"A_URL:2"}},
		"no program":           {file: "bin/y", text: "echo $A_URL\n"},
		"Python with a window": {file: "a.pyw", text: "import os\nos.getenv('A_URL')\n", uses: []string{"A_URL:2"}},
		"no reader's":          {file: "notes.txt", text: "os.environ['A_KEY'] $B_KEY\n"},
		"another's YAML":       {file: "values.yaml", text: "password: x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tc.file, tc.text)
			r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Reveal: true})
			if err != nil {
				t.Fatal(err)
			}
			var uses, defs []string
			for _, v := range r.Variables {
				for _, u := range v.Uses {
					uses = append(uses, fmt.Sprintf("%s:%d", v.Name, u.Line))
				}
				for _, d := range v.Definitions {
					defs = append(defs, fmt.Sprintf("%s=%s:%d", v.Name, d.Value, d.Line))
				}
			}
			slices.Sort(uses)
			slices.Sort(defs)
			if !slices.Equal(uses, tc.uses) {
				t.Errorf("uses %q, want %q", uses, tc.uses)
			}
			if !slices.Equal(defs, tc.defs) {
				t.Errorf("definitions %q, want %q", defs, tc.defs)
			}
			said := ""
			for _, p := range r.Problems {
				said += p.Why
			}
			if tc.problem == "" && said != "" || !strings.Contains(said, tc.problem) {
				t.Errorf("problems %q, want %q", said, tc.problem)
			}
		})
	}
}
