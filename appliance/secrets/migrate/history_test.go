package migrate_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
)

func commit(t *testing.T, dir string) {
	t.Helper()
	for _, args := range [][]string{{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "first"}} {
		c := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		c.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args[0], err, out)
		}
	}
}

// History holds a value as its file writes it: with quotes and escapes.
func TestHistoryOfValuesWithEscapes(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	tests := []struct {
		name, committed, now string
		dialect              dotenv.Dialect
		want                 bool
	}{
		{"plain", "A_SECRET=canary-4711\n", "", dotenv.Python, true},
		{"escaped quotes", `A_SECRET="canary \"4711\" \\ end"  # ours` + "\n", "", dotenv.Python, true},
		{"escaped in single quotes", `A_SECRET='canary it\'s 4711'` + "\n", "", dotenv.Python, true},
		{"line ends by name", `A_SECRET="canary\n4711\n"` + "\n", "", dotenv.Python, true},
		{"lines of Windows", "A_SECRET=\"canary\r\n4711\"\r\n", "", dotenv.Python, true},
		{"dollars of compose", "A_SECRET=canary$$4711\n", "", dotenv.Compose, true},
		{"out of its quotes since", `A_SECRET="canary-\\4711"` + "\n", `A_SECRET='canary-\\4711'` + "\n", dotenv.Python, true},
		{"another value since", `A_SECRET="canary \"4711\""` + "\n", `A_SECRET="canary \"4712\""` + "\n", dotenv.Python, false},
		{"taken together from others", "B=canary-\nC=4711\nA_SECRET=${B}${C}\n", "", dotenv.Python, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, ".env", tt.committed)
			commit(t, dir)
			if tt.now != "" {
				write(t, dir, ".env", tt.now)
			}
			r, err := migrate.Scan(t.Context(), migrate.ScanOptions{Root: dir, Dialect: tt.dialect, History: true})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, v := range r.Variables {
				for _, d := range v.Definitions {
					if v.Name == "A_SECRET" {
						found = true
						if got := len(d.InHistory) > 0; got != tt.want {
							t.Errorf("in history: %v, want %v (%s)", got, tt.want, r.History)
						}
					}
				}
			}
			if !found {
				t.Fatal("A_SECRET was not found")
			}
			if !strings.Contains(r.History, "searched for 1 values") {
				t.Errorf("history: %s", r.History)
			}
		})
	}
}

// The history is searched for what is not moved, too: in the same pass, and with
// the same bounds.
func TestHistoryOfWhatIsNotMoved(t *testing.T) {
	dir := newRepository(t)
	files := map[string]string{
		"settings.py":     "SECRET_KEY = 'Fjord-77-settings'\nOTHER_PASSWORD = 'x4711'\n",
		"prod.tfvars":     "db_password = \"Fjord-77-tfvars\"\n",
		"config.yml":      "db:\n  password: Fjord-77-yaml\n",
		"Dockerfile":      "FROM x\nENV API_TOKEN=Fjord-77-image\n",
		".pgpass":         "h:5432:*:app:Fjord-77-pgpass\n",
		".netrc":          "machine h login u password Fjord-77-netrc\n",
		"k8s/secret.yml":  "apiVersion: v1\nkind: Secret\nstringData:\n  any: Fjord-77-cluster\n",
		"conn.ini":        "[db]\nurl = mysql://u:Fjord-77-url@h/d\n",
		"secrets/db_pass": "Fjord-77-whole\n",
		"README.md":       "Use gh" + "p_8wHk3VzYq0LmN5RbTxJc7GdFuPsEa2QiXo91 here.\n",
	}
	for name, text := range files {
		write(t, dir, name, text)
	}
	first := commitAll(t, dir, "one")
	files["late.yml"] = "password: Fjord-78-late\n"
	write(t, dir, "late.yml", files["late.yml"])
	r := scanHistory(t, dir)
	seen := map[string]bool{}
	for _, f := range r.NotMoved {
		want := first
		if f.File == "late.yml" || f.Name == "OTHER_PASSWORD" {
			want = ""
		}
		if f.InHistory != want {
			t.Errorf("%s:%d %s: in history %q, want %q", f.File, f.Line, f.Name, f.InHistory, want)
		}
		seen[f.File] = true
	}
	for name := range files {
		if !seen[name] {
			t.Errorf("%s: nothing was found", name)
		}
	}
	if want := []string{"of the secrets that this tool does not move, some were not searched for: 1 are short or common"}; !slices.Equal(r.HistoryNotes, want) {
		t.Errorf("notes: %q", r.HistoryNotes)
	}
	if shown, err := json.Marshal(r); err != nil || strings.Contains(string(shown), "Fjord") {
		t.Errorf("a value shows: %v", err)
	}
}
