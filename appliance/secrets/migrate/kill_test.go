package migrate_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/secrets/migrate"
)

// killVariable tells this program, run again, what to kill itself in: the verb,
// the number of the write, the tree and the identity.
const killVariable = "STRONGROOM_TEST_KILL"

// TestKilledHelper does nothing by itself: TestKilled runs it as a process of its
// own, which does not come to its end.
func TestKilledHelper(t *testing.T) {
	verb, rest, ok := strings.Cut(os.Getenv(killVariable), " ")
	if !ok {
		return
	}
	at, rest, _ := strings.Cut(rest, " ")
	dir, identity, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(at)
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, nil)
	s.dir = dir
	if s.key, err = age.ParseX25519Identity(identity); err != nil {
		t.Fatal(err)
	}
	s.must(s.replan())
	if verb == "cutover" {
		_, err := s.apply(false)
		s.must(err)
	}
	steps := 0
	s.fault = func(string) error {
		if steps++; steps == n {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	}
	if verb == "cutover" {
		_, err = s.cutover()
	} else {
		_, err = s.rollback(false)
	}
	s.must(err)
}

// A process that is killed at its nth write, for every n, leaves nothing open and
// nothing that the next run does not finish and clean.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process for each write")
	}
	files := map[string]string{".env": "# c\nA_PASSWORD=first-value-1\nPORT=1\n", "web/.env.production": "B_TOKEN='second-\nvalue-2'", "app.py": "import os\n\nA = os.environ['A_PASSWORD']\n"}
	for _, verb := range []string{"cutover", "rollback"} {
		for n := 1; ; n++ {
			s := newSite(t, files)
			if verb == "rollback" {
				s.move()
			}
			c := exec.Command(os.Args[0], "-test.run=^TestKilledHelper$")
			c.Env = append(os.Environ(), killVariable+"="+verb+" "+strconv.Itoa(n)+" "+s.dir+" "+s.key.String())
			out, err := c.CombinedOutput()
			if err == nil {
				if n < 6 {
					t.Fatalf("%s has only %d writes", verb, n-1)
				}
				break
			}
			if state, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || state.Signal() != syscall.SIGKILL {
				t.Fatalf("%s, write %d: %v\n%s", verb, n, err, out)
			}
			s.nothingLies(verb, n)
			s.fault = nil
			s.must(s.replan())
			_, err = s.rollback(false)
			s.must(err)
			for name, want := range files {
				s.is(name, want)
			}
			if left, err := os.ReadDir(filepath.Join(s.dir, migrate.StateDir, "stage")); err != nil || len(left) > 0 {
				t.Errorf("%s, write %d: %v is left, %v", verb, n, left, err)
			}
		}
	}
}

// nothingLies: no file is in the tree that was not made to be there, and nobody
// else can read what is in the state folder.
func (s *site) nothingLies(verb string, n int) {
	s.t.Helper()
	known := map[string]bool{".env": true, "web/.env.production": true, "app.py": true, migrate.PlanFile: true,
		"strongroom-env.development.toml": true, "strongroom-env.production.toml": true}
	for name := range tree(s.t, s.dir) {
		if !known[name] {
			s.t.Errorf("%s, write %d: %s lies in the tree", verb, n, name)
		}
	}
	s.must(filepath.WalkDir(filepath.Join(s.dir, migrate.StateDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			s.t.Errorf("%s, write %d: %s has mode %v", verb, n, path, info.Mode())
		}
		return err
	}))
}
