package migrate_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
)

const aSecret = "q8Zr-2Lw0Xv6/Kt9+Bn3Y"

// gitRun runs git with no configuration but the repository's, and gives what it
// prints.
func gitRun(t testing.TB, dir string, args ...string) string {
	t.Helper()
	c := exec.Command("git", append([]string{
		"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", "-c", "safe.directory=*",
	}, args...)...)
	c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v: %s", args[0], err, out)
	}
	return strings.TrimSpace(string(out))
}

func needsGit(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
}

// commitAll gives the commit's name in twelve digits.
func commitAll(t testing.TB, dir, message string) string {
	t.Helper()
	gitRun(t, dir, "add", "-A", "-f")
	gitRun(t, dir, "commit", "-q", "--allow-empty", "-m", message)
	return gitRun(t, dir, "rev-parse", "--short=12", "HEAD")
}

func newRepository(t testing.TB) string {
	t.Helper()
	needsGit(t)
	dir := t.TempDir()
	gitRun(t, dir, "init", "-q")
	return dir
}

func scanHistory(t testing.TB, dir string) *migrate.Report {
	t.Helper()
	r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Dialect: dotenv.Python, History: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// inHistory are the commits of the secrets, by name.
func inHistory(r *migrate.Report) map[string]string {
	out := map[string]string{}
	for _, v := range r.Variables {
		for _, d := range v.Definitions {
			if len(d.InHistory) > 0 {
				out[v.Name] = strings.Join(d.InHistory, ",")
			}
		}
	}
	return out
}

// The commit that is named is the first that holds the value: not the one that
// takes it out, nor one that only moves it.
func TestFirstCommitWithAValue(t *testing.T) {
	env := "DB_PASSWORD=" + aSecret + "\n"
	for name, build := range map[string]func(t *testing.T, dir string) string{
		"the first one": func(t *testing.T, dir string) string {
			write(t, dir, "a.py", "p = '"+aSecret+"'\n")
			return commitAll(t, dir, "one")
		},
		"taken out, and elsewhere again": func(t *testing.T, dir string) string {
			write(t, dir, "a.py", "p = '"+aSecret+"'\n")
			first := commitAll(t, dir, "one")
			write(t, dir, "a.py", "p = ''\n")
			commitAll(t, dir, "two")
			write(t, dir, "b.py", "# "+aSecret+"\n")
			commitAll(t, dir, "three")
			return first
		},
		"changed around it": func(t *testing.T, dir string) string {
			write(t, dir, "a.py", "p = '"+aSecret+"'\n")
			first := commitAll(t, dir, "one")
			for i := range 5 {
				write(t, dir, "a.py", fmt.Sprintf("p = '%s'\n# %d\n", aSecret, i))
				commitAll(t, dir, "more")
			}
			return first
		},
		"in a deep folder": func(t *testing.T, dir string) string {
			write(t, dir, "a/b/c/d.txt", "x")
			commitAll(t, dir, "one")
			write(t, dir, "a/b/c/d.txt", aSecret)
			second := commitAll(t, dir, "two")
			write(t, dir, "a/b/c/e.txt", "x")
			commitAll(t, dir, "three")
			return second
		},
		"the file moved": func(t *testing.T, dir string) string {
			write(t, dir, "a.txt", aSecret)
			first := commitAll(t, dir, "one")
			gitRun(t, dir, "mv", "a.txt", "b.txt")
			commitAll(t, dir, "two")
			return first
		},
		"in a message": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			second := commitAll(t, dir, "the password is "+aSecret)
			write(t, dir, "a.txt", aSecret)
			commitAll(t, dir, "three")
			return second
		},
		"brought by a merge alone": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			gitRun(t, dir, "checkout", "-q", "-b", "side")
			write(t, dir, "s.txt", "s")
			commitAll(t, dir, "two")
			gitRun(t, dir, "checkout", "-q", "main")
			write(t, dir, "m.txt", "m")
			commitAll(t, dir, "three")
			gitRun(t, dir, "merge", "-q", "--no-commit", "side")
			write(t, dir, "evil.txt", aSecret)
			return commitAll(t, dir, "merged")
		},
		"on a branch that is gone": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			gitRun(t, dir, "checkout", "-q", "-b", "side")
			write(t, dir, "s.txt", aSecret)
			second := commitAll(t, dir, "two")
			gitRun(t, dir, "checkout", "-q", "main")
			gitRun(t, dir, "branch", "-q", "-D", "side")
			gitRun(t, dir, "reflog", "expire", "--expire=now", "--all")
			return second
		},
		"in a stash": func(t *testing.T, dir string) string {
			write(t, dir, "a.txt", "x")
			commitAll(t, dir, "one")
			write(t, dir, "a.txt", aSecret)
			gitRun(t, dir, "stash", "-q")
			return gitRun(t, dir, "rev-parse", "--short=12", "stash@{0}")
		},
		"a file of a stash that git did not know": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			write(t, dir, "a.txt", aSecret)
			gitRun(t, dir, "stash", "-q", "-u")
			return gitRun(t, dir, "rev-parse", "--short=12", "stash@{0}^3")
		},
		"a branch of an octopus": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			first := ""
			for _, b := range []string{"x", "y", "z"} {
				gitRun(t, dir, "checkout", "-q", "-b", b, "main")
				text := b
				if b == "y" {
					text = aSecret
				}
				write(t, dir, b+".txt", text)
				if id := commitAll(t, dir, b); b == "y" {
					first = id
				}
			}
			gitRun(t, dir, "checkout", "-q", "main")
			write(t, dir, "m.txt", "m")
			commitAll(t, dir, "two")
			gitRun(t, dir, "merge", "-q", "-m", "three", "x", "y", "z")
			return first
		},
		"only tagged": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			gitRun(t, dir, "checkout", "-q", "--detach")
			write(t, dir, "a.txt", aSecret)
			second := commitAll(t, dir, "two")
			gitRun(t, dir, "tag", "v1")
			gitRun(t, dir, "checkout", "-q", "main")
			gitRun(t, dir, "reflog", "expire", "--expire=now", "--all")
			gitRun(t, dir, "pack-refs", "--all")
			return second
		},
		"in a tag's message": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			gitRun(t, dir, "tag", "-a", "-m", "with "+aSecret, "v1")
			return "object-" + gitRun(t, dir, "rev-parse", "--short=12", "v1")
		},
		"in a note": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			gitRun(t, dir, "notes", "add", "-m", "with "+aSecret)
			return gitRun(t, dir, "rev-parse", "--short=12", "refs/notes/commits")
		},
		"by whom": func(t *testing.T, dir string) string {
			gitRun(t, dir, "commit", "-q", "--allow-empty", "-m", "one", "--author", aSecret+" <a@example.com>")
			return gitRun(t, dir, "rev-parse", "--short=12", "HEAD")
		},
		"the name of a file": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			write(t, dir, "d/"+url.PathEscape(aSecret), "x")
			second := commitAll(t, dir, "two")
			gitRun(t, dir, "rm", "-q", "-r", "d")
			commitAll(t, dir, "three")
			return second
		},
		"the name of a folder": func(t *testing.T, dir string) string {
			write(t, dir, url.PathEscape(aSecret)+".d/a/x", "x")
			return commitAll(t, dir, "one")
		},
		"in UTF-16, the high byte first": func(t *testing.T, dir string) string {
			text := ""
			for _, c := range []byte(aSecret) {
				text += "\x00" + string(rune(c))
			}
			write(t, dir, "a.reg", "\xfe\xff"+text)
			return commitAll(t, dir, "one")
		},
		"packed": func(t *testing.T, dir string) string {
			write(t, dir, "a.txt", aSecret)
			first := commitAll(t, dir, "one")
			write(t, dir, "a.txt", strings.Repeat("more\n", 100)+aSecret)
			commitAll(t, dir, "two")
			gitRun(t, dir, "gc", "-q")
			return first
		},
		"names of SHA-256": func(t *testing.T, dir string) string {
			if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
				t.Fatal(err)
			}
			gitRun(t, dir, "init", "-q", "--object-format=sha256")
			write(t, dir, "d/a.txt", aSecret)
			return commitAll(t, dir, "one")
		},
		"the name of a branch": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			gitRun(t, dir, "branch", "fix-"+url.PathEscape(aSecret))
			return "refs"
		},
		"the name of a tag, packed": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			gitRun(t, dir, "tag", aSecret)
			gitRun(t, dir, "pack-refs", "--all")
			return "refs"
		},
		"the name of a branch that is gone": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			gitRun(t, dir, "checkout", "-q", "-b", aSecret)
			gitRun(t, dir, "checkout", "-q", "main")
			gitRun(t, dir, "branch", "-q", "-D", aSecret)
			return "reflog"
		},
		"in a compressed file": func(t *testing.T, dir string) string {
			write(t, dir, "dump.sql.gz", pack(t, "gzip", "INSERT '"+aSecret+"'"))
			return commitAll(t, dir, "one")
		},
		"in a zip in a zip": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			write(t, dir, "all.zip", pack(t, "zip", pack(t, "zip", strings.Repeat("x\n", 9000)+aSecret)))
			return commitAll(t, dir, "two")
		},
		"the name of a file in a zip": func(t *testing.T, dir string) string {
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			if _, err := z.Create("d/" + url.PathEscape(aSecret)); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "a.jar", b.String())
			return commitAll(t, dir, "one")
		},
		"staged alone": func(t *testing.T, dir string) string {
			commitAll(t, dir, "one")
			write(t, dir, "a.txt", aSecret)
			gitRun(t, dir, "add", "a.txt")
			id := gitRun(t, dir, "rev-parse", "--short=12", ":a.txt")
			return "object-" + id
		},
		"the environment of a hook": func(t *testing.T, dir string) string {
			write(t, dir, "a.txt", aSecret)
			first := commitAll(t, dir, "one")
			other := newRepository(t)
			t.Setenv("GIT_DIR", filepath.Join(other, ".git"))
			t.Setenv("GIT_INDEX_FILE", filepath.Join(other, "index"))
			t.Setenv("GIT_OBJECT_DIRECTORY", filepath.Join(other, ".git", "objects"))
			return first
		},
		"configuration that runs programs": func(t *testing.T, dir string) string {
			write(t, dir, "a.txt", aSecret)
			first := commitAll(t, dir, "one")
			for _, key := range []string{"core.fsmonitor", "core.sshCommand", "core.pager", "diff.external", "core.alternateRefsCommand", "core.askPass"} {
				gitRun(t, dir, "config", key, "touch "+filepath.Join(dir, "ran"))
			}
			t.Cleanup(func() {
				if _, err := os.Lstat(filepath.Join(dir, "ran")); err == nil {
					t.Error("the repository's configuration was run")
				}
			})
			return first
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newRepository(t)
			want := build(t, dir)
			write(t, dir, ".env", env)
			r := scanHistory(t, dir)
			if got := inHistory(r)["DB_PASSWORD"]; got != want {
				t.Errorf("named %q, want %q (%s, %q)", got, want, r.History, r.HistoryNotes)
			}
			if len(r.HistoryNotes) > 0 {
				t.Errorf("notes: %q", r.HistoryNotes)
			}
			p, err := migrate.NewPlan(r, "a")
			if err != nil {
				t.Fatal(err)
			}
			if why := p.Variable[0].Why; !strings.HasSuffix(why, "stands in git's history since "+want+": rotate it") {
				t.Errorf("the plan says %q", why)
			}
		})
	}
}

// pack compresses a text by a format of packed.go.
func pack(t *testing.T, format, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch format {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zlib":
		w = zlib.NewWriter(&b)
	case "zip":
		z := zip.NewWriter(&b)
		in, err := z.Create("in")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(in, text); err != nil {
			t.Fatal(err)
		}
		w, text = struct {
			io.Writer
			io.Closer
		}{io.Discard, z}, ""
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// However a value was written, it is found.
func TestForms(t *testing.T) {
	long := "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\nq8Zr2Lw0Xv6Kt9Bn3YhG7fD5sA1pO0iU8yTr\n", 4) + "-----END PRIVATE KEY-----\n"
	wrapped := func(width int) string {
		s, out := base64.StdEncoding.EncodeToString([]byte(long)), ""
		for ; len(s) > width; s = s[width:] {
			out += s[:width] + "\n"
		}
		return out + s
	}
	utf16 := func(s string) string { return strings.Join(strings.Split(s, ""), "\x00") + "\x00" }
	for name, tt := range map[string]struct {
		value, text string
		not         bool
	}{
		"as it is":               {value: aSecret, text: "x " + aSecret + "."},
		"in a longer word":       {value: "canary-4711", text: "xcanary-4711x"},
		"JSON":                   {value: `a"b\c-4711`, text: `{"x":"a\"b\\c-4711"}`},
		"JSON of Go":             {value: `a<b&c-4711`, text: `{"x":"a\u003cb\u0026c-4711"}`},
		"YAML in single quotes":  {value: "it's-4711", text: "x: 'it''s-4711'"},
		"the shell":              {value: "it's-4711", text: `x='it'\''s-4711'`},
		"the shell's dollars":    {value: "a$b-4711", text: `x="a\$b-4711"`},
		"compose":                {value: "a$b-4711", text: `x: a$$b-4711`},
		"systemd":                {value: "a%b-4711", text: `Environment=X=a%%b-4711`},
		"XML":                    {value: "a&b<c-4711", text: `<x>a&amp;b&lt;c-4711</x>`},
		"lines by name":          {value: "one-4711\ntwo-4711", text: `"one-4711\ntwo-4711"`},
		"lines of Windows":       {value: "one-4711\ntwo-4711", text: "\"one-4711\r\ntwo-4711\""},
		"a query":                {value: "a/b+c=d-4711", text: "?x=" + url.QueryEscape("a/b+c=d-4711")},
		"a query in small":       {value: "a/b+c=d-4711", text: "?x=a%2fb%2bc%3dd-4711"},
		"a query with blanks":    {value: "a b c d-4711", text: "?x=a%20b%20c%20d-4711"},
		"the user of a URL":      {value: "a@b:c/d-4711", text: "https://u:a%40b%3Ac%2Fd-4711@h"},
		"base64":                 {value: "canary-4711", text: "data: " + base64.StdEncoding.EncodeToString([]byte("canary-4711"))},
		"base64 behind a user":   {value: "canary-4711", text: "Basic " + base64.StdEncoding.EncodeToString([]byte("u:canary-4711"))},
		"base64 behind two":      {value: "canary-4711", text: "Basic " + base64.StdEncoding.EncodeToString([]byte("me:canary-4711\n"))},
		"base64 of URLs":         {value: "\xc3\xbf\xc3\xbf?>canary", text: base64.RawURLEncoding.EncodeToString([]byte("\xc3\xbf\xc3\xbf?>canary"))},
		"base64 of a long value": {value: strings.Repeat(aSecret, 5), text: base64.StdEncoding.EncodeToString([]byte("x" + strings.Repeat(aSecret, 5)))},
		"hex":                    {value: "canary-4711", text: hex.EncodeToString([]byte("canary-4711"))},
		"UTF-16":                 {value: "canary-4711", text: utf16("x=canary-4711\n")},
		"a password of a URL":    {value: "postgres://u:canary-4711@h/db", text: "POSTGRES_PASSWORD: canary-4711"},
		"of a URL, decoded":      {value: "postgres://u:canary%2F4711@h/db", text: "POSTGRES_PASSWORD: canary/4711"},
		"of a query":             {value: "jdbc:postgresql://h/db?user=u&password=canary-4711&ssl=1", text: "canary-4711"},
		"of a connection string": {value: "Server=db;User Id=u;Password=canary-4711;Encrypt=true", text: "<canary-4711>"},
		"of libpq":               {value: "host=db user=u password='canary 4711' sslmode=require", text: "canary 4711"},
		"of Azure":               {value: "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=q8Zr2Lw0Xv6Kt9==;EndpointSuffix=x", text: "key: q8Zr2Lw0Xv6Kt9=="},
		"of JSON":                {value: `{"conn_type":"postgres","password":"canary-4711"}`, text: "canary-4711"},
		"a key, indented":        {value: long, text: "key: |\n  " + strings.ReplaceAll(long, "\n", "\n  ")},
		"a key in base64":        {value: long, text: wrapped(1 << 20)},
		"a key in lines of 64":   {value: long, text: wrapped(64)},
		"a key in lines of 76":   {value: long, text: wrapped(76)},
		"seven bytes":            {value: "s3cr3t7", text: `x="s3cr3t7"`},
		"seven bytes in a URL":   {value: "s3cr3t7", text: "x://u:s3cr3t7@h"},
		"seven bytes in a word":  {value: "s3cr3t7", text: "xs3cr3t7x", not: true},
		"another key":            {value: long, text: "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcx\n", not: true},
		"another URL":            {value: "postgres://u:canary-4711@h/db", text: "postgres://u:canary-4712@h/db", not: true},
		"the user of a string":   {value: "Server=db.example;User Id=canary-user;Password=x-4711-y", text: "db.example canary-user", not: true},
		"half of it":             {value: "canary-4711", text: "canary-471", not: true},
		"another case":           {value: "canary-4711", text: "CANARY-4711", not: true},
	} {
		if got := migrate.Finds(tt.value, []byte(tt.text)); got == tt.not {
			t.Errorf("%s: found %v", name, got)
		}
	}
}

// What would be found everywhere is not searched for, and that is said.
func TestNotSearched(t *testing.T) {
	for value, want := range map[string]string{
		"postgres": "a common word", "Password": "a common word", "CHANGEME": "a common word", "changeme123": "a common word", "p@ssw0rd": "a common word",
		"12345678": "a number", "8712": "shorter than 6 bytes", "x7-Q": "shorter than 6 bytes", "xxxxxxxxxx": "one character", "": "shorter than 6 bytes",
		"hunter2": "", "TrueGrit-2024!": "", "kGhTzQwPbXmL": "", "qzjxkwvbpmt": "", "abcdefghijklmnop": "", "/9j4AAQSkZJRg": "", "123456789012": "",
	} {
		if got := migrate.WhyNotSearched(value); (got == "") != (want == "") || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
	dir := newRepository(t)
	write(t, dir, ".env", "# the database\nDB_PASSWORD=postgres\n")
	commitAll(t, dir, "one")
	r := scanHistory(t, dir)
	if want := (migrate.NotSearched{Name: "DB_PASSWORD", File: ".env", Line: 2, Why: "a common word"}); len(r.NotSearched) != 1 || r.NotSearched[0] != want {
		t.Errorf("not searched: %v", r.NotSearched)
	}
}

// A repository that is not whole, or not ours, is searched as far as it goes,
// and what was not is said.
func TestHistoryOfOddRepositories(t *testing.T) {
	withHistory := func(t *testing.T) (dir, first string) {
		dir = newRepository(t)
		write(t, dir, "old.txt", aSecret)
		first = commitAll(t, dir, "one")
		write(t, dir, "old.txt", "gone")
		write(t, dir, "new.txt", "n")
		commitAll(t, dir, "two")
		return dir, first
	}
	for name, build := range map[string]func(t *testing.T) (dir, want, note string){
		"no repository": func(t *testing.T) (string, string, string) { needsGit(t); return t.TempDir(), "", "" },
		"an empty one":  func(t *testing.T) (string, string, string) { return newRepository(t), "", "" },
		"a folder of one": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			return filepath.Join(dir, "below"), first, ""
		},
		"shallow": func(t *testing.T) (string, string, string) {
			from, _ := withHistory(t)
			dir := filepath.Join(t.TempDir(), "c")
			gitRun(t, from, "clone", "-q", "--depth", "1", "file://"+from, dir)
			return dir, "", "shallow clone"
		},
		"partial": func(t *testing.T) (string, string, string) {
			from, _ := withHistory(t)
			gitRun(t, from, "config", "uploadpack.allowFilter", "true")
			dir := filepath.Join(t.TempDir(), "c")
			gitRun(t, from, "clone", "-q", "--filter=blob:none", "file://"+from, dir)
			before := gitRun(t, dir, "count-objects", "-v")
			t.Cleanup(func() {
				if after := gitRun(t, dir, "count-objects", "-v"); after != before {
					t.Errorf("objects were fetched:\n%s\n%s", before, after)
				}
			})
			return dir, "", "partial clone"
		},
		"without trees": func(t *testing.T) (string, string, string) {
			from, _ := withHistory(t)
			gitRun(t, from, "config", "uploadpack.allowFilter", "true")
			dir := filepath.Join(t.TempDir(), "c")
			gitRun(t, from, "clone", "-q", "--filter=tree:0", "file://"+from, dir)
			return dir, "", "partial clone"
		},
		"a blob is missing": func(t *testing.T) (string, string, string) {
			dir, _ := withHistory(t)
			lose(t, dir, gitRun(t, dir, "rev-parse", "HEAD~1:old.txt"))
			return dir, "", "lacks 1 objects"
		},
		"a tree is missing": func(t *testing.T) (string, string, string) {
			dir, _ := withHistory(t)
			lose(t, dir, gitRun(t, dir, "rev-parse", "HEAD~1^{tree}"))
			return dir, "object-", "lacks"
		},
		"a commit is missing": func(t *testing.T) (string, string, string) {
			dir, _ := withHistory(t)
			lose(t, dir, gitRun(t, dir, "rev-parse", "HEAD~1"))
			return dir, "object-", "not whole"
		},
		"an object is damaged": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			id := gitRun(t, dir, "rev-parse", "HEAD:new.txt")
			f := filepath.Join(dir, ".git", "objects", id[:2], id[2:])
			lose(t, dir, id)
			if err := os.WriteFile(f, []byte("x\x9cdamaged"), 0o444); err != nil {
				t.Fatal(err)
			}
			return dir, first, "lacks 1 objects|cannot read"
		},
		"HEAD is damaged": func(t *testing.T) (string, string, string) {
			dir, _ := withHistory(t)
			if err := os.WriteFile(filepath.Join(dir, ".git", "HEAD"), []byte("?"), 0o644); err != nil {
				t.Fatal(err)
			}
			return dir, "", "was not looked at"
		},
		"the configuration is damaged": func(t *testing.T) (string, string, string) {
			dir, _ := withHistory(t)
			if err := os.WriteFile(filepath.Join(dir, ".git", "config"), []byte("[core\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			return dir, "", "was not looked at: fatal: bad config"
		},
		"of another user": func(t *testing.T) (string, string, string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give files away")
			}
			dir, first := withHistory(t)
			if err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Lchown(p, 65534, 65534)
			}); err != nil {
				t.Fatal(err)
			}
			return dir, first, "belongs to another user (uid 65534)"
		},
		"a worktree": func(t *testing.T) (string, string, string) {
			from, first := withHistory(t)
			dir := filepath.Join(t.TempDir(), "w")
			gitRun(t, from, "worktree", "add", "-q", dir)
			return dir, first, ""
		},
		"a worktree below": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			gitRun(t, dir, "worktree", "add", "-q", filepath.Join(dir, "trees", "w"))
			return dir, first, ""
		},
		"bare": func(t *testing.T) (string, string, string) {
			from, first := withHistory(t)
			dir := filepath.Join(t.TempDir(), "b.git")
			gitRun(t, from, "clone", "-q", "--bare", from, dir)
			return dir, first, ""
		},
		"a submodule": func(t *testing.T) (string, string, string) {
			from, first := withHistory(t)
			dir := newRepository(t)
			gitRun(t, dir, "submodule", "--quiet", "add", from, "libs/sub")
			commitAll(t, dir, "one")
			return dir, "libs/sub@" + first, ""
		},
		"a submodule that is not checked out": func(t *testing.T) (string, string, string) {
			from, _ := withHistory(t)
			up := newRepository(t)
			gitRun(t, up, "submodule", "--quiet", "add", from, "libs/sub")
			commitAll(t, up, "one")
			dir := filepath.Join(t.TempDir(), "c")
			gitRun(t, up, "clone", "-q", up, dir)
			return dir, "", `submodule "libs/sub" is not checked out`
		},
		"a clone below": func(t *testing.T) (string, string, string) {
			from, first := withHistory(t)
			dir := newRepository(t)
			gitRun(t, from, "clone", "-q", from, filepath.Join(dir, "c"))
			return dir, "c@" + first, ""
		},
		"a clone below no repository": func(t *testing.T) (string, string, string) {
			from, first := withHistory(t)
			dir := t.TempDir()
			gitRun(t, from, "clone", "-q", from, filepath.Join(dir, "c"))
			return dir, "c@" + first, ""
		},
		"a .git that points nowhere": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			write(t, dir, "sub/.git", "gitdir: ../nowhere\n")
			return dir, first, `"sub", a repository of its own, was not looked at`
		},
		"objects of another one": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			clone := filepath.Join(t.TempDir(), "c")
			gitRun(t, ".", "clone", "-q", "--shared", dir, clone)
			return clone, first, ""
		},
		"objects of another one that has gone": func(t *testing.T) (string, string, string) {
			dir, _ := withHistory(t)
			clone := filepath.Join(t.TempDir(), "c")
			gitRun(t, ".", "clone", "-q", "--shared", dir, clone)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			return clone, "", "is not whole"
		},
		"a commit is replaced": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			gitRun(t, dir, "replace", "HEAD~1", "HEAD")
			return dir, first, ""
		},
		"a blob is replaced": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			gitRun(t, dir, "replace", "HEAD~1:old.txt", "HEAD:new.txt")
			return dir, first, ""
		},
		"grafted": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			write(t, dir, ".git/info/grafts", gitRun(t, dir, "rev-parse", "HEAD")+"\n")
			return dir, first, ""
		},
		"a path that is not UTF-8": func(t *testing.T) (string, string, string) {
			dir := newRepository(t)
			write(t, dir, "a\xff\xfe\n\"b/\xe9.txt", aSecret)
			return dir, commitAll(t, dir, "one"), ""
		},
		"HEAD on no branch": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			gitRun(t, dir, "checkout", "-q", "--detach", "HEAD~1")
			return dir, first, ""
		},
		"two roots": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			gitRun(t, dir, "checkout", "-q", "--orphan", "other")
			write(t, dir, "other.txt", "o")
			commitAll(t, dir, "another beginning")
			gitRun(t, dir, "merge", "-q", "--allow-unrelated-histories", "-X", "ours", "-m", "both", "main")
			return dir, first, ""
		},
		"the name of a branch is a commit's": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			gitRun(t, dir, "branch", gitRun(t, dir, "rev-parse", "HEAD~1"), "HEAD")
			return dir, first, ""
		},
		"an index that is damaged": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			write(t, dir, ".git/index", "DIRC nothing")
			return dir, first, ""
		},
		"a large file": func(t *testing.T) (string, string, string) {
			dir, first := withHistory(t)
			write(t, dir, "large", strings.Repeat(aSecret+"\n", 1<<20))
			commitAll(t, dir, "three")
			return dir, first, "holds 1 files of more than 16 MiB"
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, want, note := build(t)
			write(t, dir, ".env", "DB_PASSWORD="+aSecret+"\n")
			r := scanHistory(t, dir)
			if got := inHistory(r)["DB_PASSWORD"]; got != want && !(strings.HasSuffix(want, "-") && strings.HasPrefix(got, want)) {
				t.Errorf("named %q, want %q (%s)", got, want, r.History)
			}
			all, said := strings.Join(r.HistoryNotes, "\n"), note == ""
			for n := range strings.SplitSeq(note, "|") {
				said = said || strings.Contains(all, n)
			}
			if !said || note == "" && all != "" {
				t.Errorf("notes %q, want %q", all, note)
			}
			if strings.Contains(all+r.History, aSecret) {
				t.Error("the value shows")
			}
			if name == "no repository" && !strings.Contains(r.History, "no git repository") {
				t.Error(r.History)
			}
		})
	}
}

// lose removes a loose object.
func lose(t *testing.T, dir, id string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, ".git", "objects", id[:2], id[2:])); err != nil {
		t.Fatal(err)
	}
}

// A search that is stopped by its limit says so, and keeps what it has found.
func TestHistoryLimit(t *testing.T) {
	dir := newRepository(t)
	write(t, dir, "a.txt", aSecret)
	commitAll(t, dir, "one")
	write(t, dir, ".env", "DB_PASSWORD="+aSecret+"\n")
	r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Dialect: dotenv.Python, History: true, HistoryLimit: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(r.HistoryNotes, "\n"); !strings.Contains(notes, "1ns") {
		t.Errorf("notes %q", notes)
	}
}

// Progress goes up to everything there is.
func TestHistoryProgress(t *testing.T) {
	dir := newRepository(t)
	write(t, dir, "a.txt", aSecret)
	commitAll(t, dir, "one")
	write(t, dir, ".env", "DB_PASSWORD="+aSecret+"\n")
	var last migrate.HistoryProgress
	calls := 0
	_, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Dialect: dotenv.Python, History: true, Progress: func(p migrate.HistoryProgress) { last = p; calls++ }})
	if err != nil {
		t.Fatal(err)
	}
	if calls != 3 || last.Objects != last.AllObjects || last.Bytes != last.AllBytes || last.Objects != 3 { // file, tree, commit
		t.Errorf("%d calls, %+v", calls, last)
	}
}

// manyCommits is a repository with n commits, each of a file that changes and of
// one that is new.
func manyCommits(tb testing.TB, n int) string {
	tb.Helper()
	dir := newRepository(tb)
	var in bytes.Buffer
	filler := strings.Repeat("def f(x):\n    return {'a': x, \"b\": [1, 2, 3]}  # a line of code\n", 60)
	data := func(s string) { fmt.Fprintf(&in, "data %d\n%s\n", len(s), s) }
	for i := range n {
		fmt.Fprintf(&in, "commit refs/heads/main\nauthor t <t@example.com> %d +0000\ncommitter t <t@example.com> %d +0000\n", 1600000000+i, 1600000000+i)
		data(fmt.Sprintf("commit %d", i))
		fmt.Fprintf(&in, "M 100644 inline src/d%d/f%d.py\n", i%40, i%400)
		data(fmt.Sprintf("# %d\n%s# %d\n", i, filler, i*7))
		fmt.Fprintf(&in, "M 100644 inline config/%d.env\n", i%100)
		extra := ""
		if i >= n/2 {
			extra = "OLD=" + aSecret + "\n"
		}
		data(fmt.Sprintf("A=%d\nPOSTGRES_PASSWORD=postgres\n%s", i, extra))
	}
	c := exec.Command("git", "-C", dir, "fast-import", "--quiet")
	c.Stdin = &in
	if out, err := c.CombinedOutput(); err != nil {
		tb.Fatalf("git fast-import: %v: %s", err, out)
	}
	env := "POSTGRES_PASSWORD=postgres\nDB_PASSWORD=" + aSecret + "\n"
	for i := range 50 {
		env += fmt.Sprintf("API_KEY_%d=https-Zk%dq8Zr2Lw0Xv6Kt9\n", i, i)
	}
	write(tb, dir, ".env", env)
	return dir
}

// A history of 10,000 commits; how long it takes is BenchmarkHistory's to say (the
// goal is 20 s on two cores with nothing else to do).
func TestHistoryOfManyCommits(t *testing.T) {
	n := 10000
	if testing.Short() {
		n = 200
	}
	dir := manyCommits(t, n)
	r := scanHistory(t, dir)
	want := gitRun(t, dir, "rev-list", "--abbrev-commit", "--abbrev=12", "--skip", fmt.Sprint(n-n/2-1), "-n", "1", "main")
	if got := inHistory(r); len(got) != 1 || got["DB_PASSWORD"] != want {
		t.Errorf("found %v, want %q", got, want)
	}
	if len(r.NotSearched) != 1 || r.NotSearched[0].Name != "POSTGRES_PASSWORD" {
		t.Errorf("not searched: %v", r.NotSearched)
	}
}

func BenchmarkHistory(b *testing.B) {
	dir := manyCommits(b, 10000)
	for b.Loop() {
		scanHistory(b, dir)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/10000commits")
}
