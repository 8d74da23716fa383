package escrow

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPutReplacesAndCanBeConfirmed(t *testing.T) {
	b := newBench(t)
	if _, err := b.Confirm(b.answers(b.ask(t))); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(ChallengeLife)
	b.plain["master-key.age"] = []byte(canary + " for somebody else\n")
	if err := b.Put("master-key.age", b.plain["master-key.age"], "SHA256:one", rand.Reader, identity(t).Recipient()); err != nil {
		t.Fatal(err)
	}
	before := status(t, b)["master-key.age"]
	if before.Confirmed() || !before.Replaced || before.Challenges != checksPerFile {
		t.Errorf("status %+v", before)
	}
	if _, err := b.Confirm(b.answers(b.ask(t, "master-key.age"))); err != nil {
		t.Fatal(err)
	}
	if s := status(t, b)["master-key.age"]; !s.Confirmed() {
		t.Errorf("status %+v", s)
	}
	kept, err := filepath.Glob(filepath.Join(b.Dir, "check-master-key.age-*"))
	if err != nil || len(kept) != 1 {
		t.Errorf("challenges: %q, %v", kept, err)
	}
	text, err := os.ReadFile(kept[0])
	if err != nil || strings.Contains(string(text), canary) {
		t.Errorf("challenges tell the content, or %v", err)
	}
}

// Whichever write fails, the folder is one of before or of after.
func TestPutCrash(t *testing.T) {
	for n := range 2 {
		b := newBench(t)
		real, calls := b.writer(), 0
		b.write = func(path string, data []byte, perm fs.FileMode) error {
			if calls++; calls > n {
				return errors.New("disk full")
			}
			return real(path, data, perm)
		}
		old := status(t, b)["master-key.age"]
		if err := b.Put("master-key.age", []byte(canary), "SHA256:one", rand.Reader, identity(t).Recipient()); err == nil {
			t.Fatalf("write %d: no error", n)
		}
		b.write = nil
		if s := status(t, b)["master-key.age"]; s != old {
			t.Errorf("write %d: %+v, was %+v", n, s, old)
		}
		if _, err := b.Confirm(b.answers(b.ask(t))); err != nil {
			t.Errorf("write %d: %v", n, err)
		}
	}
}

func TestIsFolder(t *testing.T) {
	plain := t.TempDir()
	if err := os.WriteFile(filepath.Join(plain, "master-key.age"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{newBench(t).Dir: true, plain: false, filepath.Join(plain, "none"): false} {
		if got, err := IsFolder(dir); got != want || err != nil {
			t.Errorf("IsFolder(%q) = %t, %v", dir, got, err)
		}
	}
	if _, err := IsFolder(filepath.Join(plain, "master-key.age")); err == nil {
		t.Error("a file is taken for a folder")
	}
}

func status(t *testing.T, b *bench) map[string]FileStatus {
	t.Helper()
	all, err := LoadStatus(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]FileStatus{}
	for _, s := range all {
		out[s.File] = s
	}
	return out
}
