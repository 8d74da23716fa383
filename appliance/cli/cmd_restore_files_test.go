package cli

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func runRestoreCLI(t *testing.T, args ...string) (int, string) {
	t.Helper()
	c := New("test")
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append([]string{"restore"}, args...))
	code := Report(&out, c.ExecuteContext(t.Context()))
	return code, out.String()
}

// The files beside a snapshot come back without a Vault.
func TestRestoreFiles(t *testing.T) {
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	enc, err := age.Encrypt(&b, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(enc)
	for name, body := range map[string]string{"etc/strongroom/appliance.toml": "domain = 1", "var/lib/strongroom-front/key": "canary-key"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(body)), ModTime: time.Unix(1e9, 0)}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	archive, key, other := filepath.Join(dir, "x.files.age"), filepath.Join(dir, "key"), filepath.Join(dir, "other")
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{archive: b.String(), key: id.String(), other: stranger.String()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	to := filepath.Join(dir, "to")
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	front := filepath.Join(to, "var/lib/strongroom-front/key")
	args := []string{"--file", archive, "--files", to, "--identity", key}
	for _, step := range []struct {
		name  string
		args  []string
		code  int
		want  string
		there bool // the key afterwards
	}{
		{"no folder", []string{"--file", archive, "--files", to + "/none", "--identity", key}, ExitUsage, "is no folder", false},
		{"with --path", append(args, "--path", "secret/x"), ExitUsage, "two different restores", false},
		{"another identity", []string{"--file", archive, "--files", to, "--identity", other}, ExitOperator, "identity", false},
		{"not an archive", []string{"--file", key, "--files", to, "--identity", key}, ExitDrift, "", false},
		{"a look", append(args, "--dry-run"), ExitOK, "2 new", false},
		{"nobody to ask", args, ExitOperator, "nobody to ask", false},
		{"done", append(args, "--yes"), ExitOK, "unpacked", true},
		{"again", append(args, "--yes"), ExitOK, "2 the same", true},
	} {
		code, out := runRestoreCLI(t, step.args...)
		if code != step.code || !strings.Contains(out, step.want) || strings.Contains(out, "canary-key") {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", step.name, code, step.code, step.want, out)
		}
		if _, err := os.Stat(front); (err == nil) != step.there {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	// A renewed certificate is newer, and stays.
	if err := os.WriteFile(front, []byte("renewed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := runRestoreCLI(t, append(args, "--yes")...); code != ExitOperator || !strings.Contains(out, "newer on the disk") {
		t.Errorf("newer: %d\n%s", code, out)
	}
	if got, err := os.ReadFile(front); err != nil || string(got) != "renewed" {
		t.Errorf("newer: %q, %v", got, err)
	}
	if code, out := runRestoreCLI(t, append(args, "--yes", "--overwrite")...); code != ExitOK {
		t.Errorf("overwrite: %d\n%s", code, out)
	}
}
