package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/cli"
	"strongroom.example/appliance/secrets/appenv"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/config"
)

const canary = "PLANTED-canary-value"

// told is what a program says when it is given this file.
type told func(t *testing.T, file string) string

func library[T any](load func(string) (T, error)) told {
	return func(_ *testing.T, file string) string {
		_, err := load(file)
		return fmt.Sprint(err)
	}
}

// command runs strongroom on a configuration that names the file.
func command(conf string, args ...string) told {
	return func(t *testing.T, file string) string {
		t.Helper()
		dir := t.TempDir()
		toml := filepath.Join(dir, "appliance.toml")
		if err := os.WriteFile(toml, []byte(strings.NewReplacer("FILE", file, "DIR", dir).Replace(conf)), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		c := cli.New("test")
		c.SetOut(&out)
		c.SetErr(&out)
		c.SetArgs(append(args, "--config", toml))
		err := c.ExecuteContext(t.Context())
		cli.Report(&out, err)
		return out.String()
	}
}

// Whichever file it is: an unknown key says file, line and key and what is known
// there, the nearest first; a wrong type and a fault of syntax say file and line;
// and a value, which may be a secret in the wrong place, is never quoted.
func TestConfigurationFilesAreStrict(t *testing.T) {
	mapping := func(file string) (struct{}, error) {
		_, err := appenv.ReadMapping(file)
		return struct{}{}, err
	}
	files := map[string]struct {
		read  told
		lines string // right ones, before the fault
		table string // in which the fault is
		key   string // a string there
		typo  string
		first string // of what is known there
	}{
		"appliance.toml":  {library(config.Load), "domain = \"vault.example.com\"\n", "tls", "cert_file", "cert_fiel", "cert_file"},
		"apps.toml":       {library(config.LoadApps), "# apps\n", "", "manifest", "manifset", "manifest"},
		"front.toml":      {library(config.LoadFront), "names = [\"vault.example.org\"]\n", "vault", "key_file", "kye_file", "key_file"},
		"a plan":          {library(migrate.LoadPlan), "format = 1\n", "", "dialect", "dialcet", "dialect"},
		"a mapping":       {library(mapping), "format = 1\n", "variables.DATABASE_URL", "path", "paht", "path"},
		"a pair of keys":  {command("[backup]\n[[backup.to]]\ntype = \"s3\"\nendpoint = \"https://s3.example.com\"\nregion = \"eu\"\nbucket = \"b\"\ncredentials = \"FILE\"\n", "snapshot", "list"), "access_key = \"a\"\n", "", "secret_key", "secret_kye", "secret_key"},
		"a login at mail": {command("[alert.mail]\nserver = \"mail.example.com:587\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\ncredentials = \"FILE\"\n", "alert", "x.service", "--lines", "0", "--state", t.TempDir()), "username = \"a\"\n", "", "password", "pasword", "password"},
	}
	if len(files) < 7 {
		t.Fatal("there are seven files")
	}
	for name, f := range files {
		head := f.lines
		if f.table != "" {
			head += "[" + f.table + "]\n"
		}
		at := strings.Count(head, "\n") + 1
		for fault, c := range map[string]struct {
			line string
			says []string
		}{
			"an unknown key":  {f.typo + " = \"" + canary + "\"", []string{f.typo, "unknown key; known here: " + f.first}},
			"a wrong type":    {f.key + " = 12345678987654321", []string{f.key, "a text in quotes is wanted"}},
			"a table nowhere": {"[nowhere.deep]\nkey = \"" + canary + "\"", []string{"unknown key; known here: "}},
			"no quotes":       {f.key + " = " + canary, nil},
			"a lone word":     {canary, nil},
			"no end":          {f.key + " = \"" + canary, nil},
		} {
			t.Run(name+"/"+fault, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "file.toml")
				if err := os.WriteFile(file, []byte(head+c.line+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				got := f.read(t, file)
				for _, want := range append(c.says, fmt.Sprintf("%s:%d: ", file, at)) {
					if !strings.Contains(got, want) {
						t.Errorf("%q is not in:\n%s", want, got)
					}
				}
				if strings.Contains(got, canary) || strings.Contains(got, "12345678987654321") {
					t.Errorf("it quotes a value:\n%s", got)
				}
			})
		}
	}
}

// A key that is spelt with dots, or a table of a table that has no head of its
// own, has a line, too; and no file is read for ever.
func TestConfigurationFilesSayTheLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "appliance.toml")
	for text, want := range map[string]string{
		"domain = \"vault.example.com\"\ntls.mode = \"acme\"\ntls.acme.foo = 1\n":  ":3: tls.acme.foo: unknown key",
		"domain = \"vault.example.com\"\n\ntls.foo.bar = 1\n":                      ":3: tls.foo: unknown key",
		"domain = \"vault.example.com\"\n[tls.foo.bar]\nbaz = 1\n":                 ":2: tls.foo: unknown key",
		"domain = \"vault.example.com\"\n[[backup.from.to]]\n[[backup.from.to]]\n": ":2: backup.from: unknown key",
		"domain = \"vault.example.com\"\n[tls.acme]\n[tls]\nmode = 1\n":            ":4: tls.mode: a text in quotes is wanted",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(file); err == nil || !strings.Contains(err.Error(), file+want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for name, load := range map[string]func(string) error{
		"appliance.toml": func(f string) error { _, err := config.Load(f); return err },
		"[backup]":       func(f string) error { _, err := config.LoadBackup(f); return err },
		"[alert]":        func(f string) error { _, err := config.LoadAlert(f); return err },
		"[audit]":        func(f string) error { _, err := config.LoadAudit(f); return err },
		"apps.toml":      func(f string) error { _, err := config.LoadApps(f); return err },
		"front.toml":     func(f string) error { _, err := config.LoadFront(f); return err },
	} {
		if err := load("/dev/zero"); err == nil || !strings.Contains(err.Error(), `"/dev/zero" has more than`) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
