package operation

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"strongroom.example/config/machine"
)

func TestUnfinished(t *testing.T) {
	const run, begin, failed, done = `{"time":"2026-12-01T09:00:00Z","event":"run"}` + "\n", `{"time":"2026-12-01T09:00:01Z","event":"begin","step":"services","what":"vault.service"}` + "\n",
		`{"event":"failed"}` + "\n", `{"event":"done"}` + "\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  []string // each is said, with its command
		bad   bool
	}{
		"a machine of nothing":  {},
		"installed":             {files: map[string]string{machine.InstallJournal: run + begin + done}},
		"it has said why":       {files: map[string]string{machine.InstallJournal: run + begin + failed}},
		"killed":                {files: map[string]string{machine.InstallJournal: run + begin + done + run + begin}, want: []string{`in its step "services"`, "strongroom-installer install"}},
		"killed at once":        {files: map[string]string{machine.InstallJournal: run}, want: []string{"2026-12-01 09:00:00 was stopped", "strongroom-installer install"}},
		"killed while it wrote": {files: map[string]string{machine.InstallJournal: run + begin + `{"event":"do`}, want: []string{"strongroom-installer install"}},
		"run again":             {files: map[string]string{machine.InstallJournal: run + begin + "\n" + run + done}},
		"an upgrade, before it has changed anything": {files: map[string]string{machine.UpgradeRecord: `{"phase":"rehearsal"}`}},
		"an upgrade": {files: map[string]string{machine.UpgradeRecord: `{"started":"2026-12-01T08:00:00Z","phase":"storage"}`, machine.InstallJournal: run},
			want: []string{"the upgrade of 2026-12-01 08:00:00 was stopped while storage", "upgrade --rollback"}},
		"a restore":       {files: map[string]string{machine.RecoveryRecord: `{"began":"2026-12-01T08:00:00Z","id":"c/1"}`}, want: []string{"the restore of c/1", "strongroom-installer restore"}},
		"a restore, done": {files: map[string]string{machine.RecoveryRecord: `{"began":"2026-12-01T08:00:00Z","id":"c/1","finished":"2026-12-01T08:01:00Z"}`}},
		"a spoilt record": {files: map[string]string{machine.UpgradeRecord: `{`}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := Unfinished(func(p string) ([]byte, error) {
				text, ok := c.files[p]
				if !ok {
					return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
				}
				return []byte(text), nil
			})
			if (err != nil) != c.bad {
				t.Fatalf("error = %v", err)
			}
			said := ""
			for _, f := range found {
				said += f.What + ": " + f.Command + "\n"
			}
			if (len(c.want) == 0) != (said == "") {
				t.Errorf("%q", said)
			}
			for _, w := range c.want {
				if !strings.Contains(said, w) {
					t.Errorf("%q is not in %q", w, said)
				}
			}
		})
	}
}

// Who looks disturbs nobody, and writes nothing.
func TestHeld(t *testing.T) {
	path := t.TempDir() + "/lock"
	if held, err := Held(path); err != nil || held {
		t.Errorf("no lock at all: %t, %v", held, err)
	}
	end, err := Begin(path, "upgrade", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if held, err := Held(path); err != nil || !held {
		t.Errorf("held: %t, %v", held, err)
	}
	end()
	if held, err := Held(path); err != nil || held {
		t.Errorf("given back: %t, %v", held, err)
	}
}
