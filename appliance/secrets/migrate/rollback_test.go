package migrate_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
	"strongroom.example/appliance/secrets/migrate"
)

// Two cutovers are taken back in one, the newest first: what came between is
// there again as well.
func TestRollbackOfTwo(t *testing.T) {
	for _, vault := range []bool{false, true} {
		for name, tt := range map[string]struct{ first, second, want string }{
			"added":             {"A_PASSWORD=first-value-1\n", "B_TOKEN=second-value-2\n", "A_PASSWORD=first-value-1\nB_TOKEN=second-value-2\n"},
			"added to the rest": {"# c\nA_PASSWORD=first-value-1\nPORT=1\n", "# c\nPORT=1\nB_TOKEN=second-value-2\n", "# c\nA_PASSWORD=first-value-1\nPORT=1\nB_TOKEN=second-value-2\n"},
			"and the rest gone": {"A_PASSWORD=first-value-1\nPORT=1\n", "B_TOKEN='second-\nvalue-2'", "A_PASSWORD=first-value-1\nB_TOKEN='second-\nvalue-2'"},
		} {
			t.Run(fmt.Sprintf("%s, vault %t", name, vault), func(t *testing.T) {
				s := newSite(t, map[string]string{".env": tt.first})
				s.move()
				write(t, s.dir, ".env", tt.second)
				s.move()
				r, err := s.rollback(vault)
				s.must(err)
				s.is(".env", tt.want)
				s.is(migrate.MappingFile, "")
				if vault && len(r.Deleted) != 2 || !slices.Equal(r.Removed, []string{migrate.MappingFile}) {
					t.Errorf("report %+v", r)
				}
				// And there again, in one.
				s.move()
				if got := s.reads(migrate.MappingFile); len(got) != 2 || got["A_PASSWORD"] != "first-value-1" || !strings.HasPrefix(got["B_TOKEN"], "second-") {
					t.Errorf("afterwards a program reads %v", got)
				}
			})
		}
	}
}

// Code that was patched twice, with edits between.
func TestRollbackOfTwoPatches(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\n", "app.py": "import os\n\nA = os.environ['A_PASSWORD']\nx = 1\n"})
	s.move()
	patched, err := os.ReadFile(filepath.Join(s.dir, "app.py"))
	s.must(err)
	write(t, s.dir, ".env", "B_TOKEN=second-value-2\n")
	write(t, s.dir, "app.py", string(patched)+"B = os.environ['B_TOKEN']\n")
	s.move()
	if _, err = s.rollback(true); err != nil {
		t.Fatal(err)
	}
	s.is("app.py", "import os\n\nA = os.environ['A_PASSWORD']\nx = 1\nB = os.environ['B_TOKEN']\n")
}

// A rollback that was killed is finished by the next, also where lines that two
// cutovers have changed stand side by side.
func TestRollbackOfTwoPatchesKilled(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\n", "app.py": "import os\nA = os.environ['A_PASSWORD']\n", "web/.env": "D_TOKEN=fourth-value-4\n"})
	s.move()
	patched, err := os.ReadFile(filepath.Join(s.dir, "app.py"))
	s.must(err)
	write(t, s.dir, ".env", "B_TOKEN=second-value-2\n")
	write(t, s.dir, "app.py", string(patched)+"B = os.environ['B_TOKEN']\n")
	s.move()
	s.fault = func(step string) error {
		if step == "stage web/.env" {
			return kvtest.ErrInjected
		}
		return nil
	}
	if _, err = s.rollback(true); !errors.Is(err, kvtest.ErrInjected) {
		t.Fatal(err)
	}
	s.fault = nil
	_, err = s.rollback(true)
	s.must(err)
	s.is("app.py", "import os\nA = os.environ['A_PASSWORD']\nB = os.environ['B_TOKEN']\n")
	s.is(".env", "A_PASSWORD=first-value-1\nB_TOKEN=second-value-2\n")
	s.is("web/.env", "D_TOKEN=fourth-value-4\n")
}

// Edits that contradict what is restored are named, nothing is changed, and force
// gives up what was edited since the last cutover, no more.
func TestRollbackOverEdits(t *testing.T) {
	s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\n", "app.py": "import os\nA = os.environ['A_PASSWORD']\n"})
	s.move()
	write(t, s.dir, ".env", "B_TOKEN=second-value-2\n")
	s.move()
	cut := tree(t, s.dir)
	write(t, s.dir, "app.py", "import os\nA = strongroom_env.environ['A_PASSWORD'] or 1\n")
	_, err := s.rollback(true)
	var refused *migrate.Refused
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "app.py: was edited") {
		t.Fatalf("got %v", err)
	}
	if now := tree(t, s.dir); now[".env"] != cut[".env"] || now[migrate.MappingFile] != cut[migrate.MappingFile] {
		t.Error("a refusal that changed something")
	}
	s.readsAs(migrate.MappingFile, map[string]string{"A_PASSWORD": "first-value-1", "B_TOKEN": "second-value-2"})
	if _, err := migrate.Rollback(t.Context(), migrate.RollbackOptions{Root: s.dir, Identities: []age.Identity{s.key}, Force: true}); err != nil {
		t.Fatal(err)
	}
	s.is("app.py", "import os\nA = os.environ['A_PASSWORD']\n")
	s.is(".env", "A_PASSWORD=first-value-1\nB_TOKEN=second-value-2\n")
}

// What a rollback must not take: the only copy of a value, somebody's newer one,
// and the value of ours that force had replaced does not come back.
func TestRollbackInVault(t *testing.T) {
	const path = "app/development/a-password"
	start := func() *site {
		s := newSite(t, map[string]string{".env": "A_PASSWORD=first-value-1\n"})
		s.must(s.replan())
		_, err := s.apply(false)
		s.must(err)
		return s
	}
	current := func(s *site) any {
		got, err := s.store.Read(t.Context(), "secret", path)
		s.must(err)
		return got.Data["value"]
	}
	t.Run("forced twice", func(t *testing.T) {
		s := start()
		write(t, s.dir, ".env", "A_PASSWORD=other-value-2\n")
		_, err := s.apply(true)
		s.must(err)
		_, err = s.cutover()
		s.must(err)
		r, err := s.rollback(true)
		s.must(err)
		if current(s) != nil || len(r.Deleted) != 1 {
			t.Fatalf("current is %v, report %+v", current(s), r)
		}
		for v := range 2 {
			if got, err := s.store.ReadVersion(t.Context(), "secret", path, v+1); err != nil || got.Data != nil {
				t.Errorf("version %d is still there", v+1)
			}
		}
		s.is(".env", "A_PASSWORD=other-value-2\n")
	})
	t.Run("the line deleted by hand", func(t *testing.T) {
		s := start()
		write(t, s.dir, ".env", "")
		r, err := s.rollback(true)
		s.must(err)
		if current(s) != "first-value-1" || len(r.Left) != 2 {
			t.Fatalf("current is %v, report %+v", current(s), r)
		}
		s.readsAs(migrate.MappingFile, map[string]string{"A_PASSWORD": "first-value-1"})
	})
	t.Run("written since by another", func(t *testing.T) {
		s := start()
		_, err := s.store.Write(t.Context(), "secret", path, map[string]any{"value": "theirs"}, 1)
		s.must(err)
		r, err := s.rollback(true)
		s.must(err)
		if current(s) != "theirs" || len(r.Left) != 1 {
			t.Fatalf("current is %v, report %+v", current(s), r)
		}
	})
	t.Run("files first, Vault later", func(t *testing.T) {
		s := start()
		_, err := s.cutover()
		s.must(err)
		_, err = s.rollback(false)
		s.must(err)
		r, err := s.rollback(true)
		s.must(err)
		if current(s) != nil || len(r.Deleted) != 1 {
			t.Fatalf("current is %v, report %+v", current(s), r)
		}
	})
	t.Run("a dry run tells all", func(t *testing.T) {
		s := start()
		_, err := s.cutover()
		s.must(err)
		before := tree(t, s.dir)
		r, err := migrate.Rollback(t.Context(), migrate.RollbackOptions{Root: s.dir, Identities: []age.Identity{s.key}, Store: s.store, Plan: s.plan, DryRun: true})
		s.must(err)
		if got := fmt.Sprint(r.Restored, r.Removed, r.Deleted); got != "[.env] [strongroom-env.toml] [secret/"+path+"]" {
			t.Errorf("report %s", got)
		}
		if !maps.Equal(before, tree(t, s.dir)) || current(s) == nil {
			t.Error("it changed something")
		}
	})
}
