package credential

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPassed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for name, text := range map[string]string{"full": "x\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"full": true, "empty": false, "none": false} {
		if got := Passed(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir, "none"); err == nil || !strings.Contains(err.Error(), "systemd passes none") {
		t.Errorf("not there: %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	// Not one of systemd's: nothing of it may be quoted.
	if err := os.WriteFile(filepath.Join(dir, "bad"), []byte("PLANTED-canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := Open(dir, "bad"); err == nil || len(data) != 0 || strings.Contains(err.Error(), "PLANTED") {
		t.Errorf("damaged: %q, %v", data, err)
	}
}

// A flag's file is never taken for a credential's name, and a file is bounded.
func TestReadFile(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
	for name, size := range map[string]int{"small": 3, "most": maxSize, "large": maxSize + 1} {
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		data, err := Read(Path(name))
		if good := size <= maxSize; (err == nil) != good || good && len(data) != size {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
		if _, err := Read(name); err == nil {
			t.Errorf("%s: a file is taken for a credential", name)
		}
	}
}
