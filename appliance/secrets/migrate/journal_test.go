package migrate

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// What 0.1 has begun is taken back: its journal knows files by their sums, and its
// backups not what the cutover has left.
func TestJournalOfOldRelease(t *testing.T) {
	for _, edited := range []bool{false, true} {
		dir := t.TempDir()
		key, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		put := func(name, text string) string {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
		}
		st, err := openState(dir)
		if err != nil {
			t.Fatal(err)
		}
		backup, err := st.writeBackup([]kept{{name: ".env", data: []byte("A=one\nP=1\n"), mode: 0o640}}, []age.Recipient{key.Recipient()})
		if err != nil {
			t.Fatal(err)
		}
		mapping := "# Which variable is which secret of a in b. Written by strongroom migrate.\nformat = 1\n\n[variables.\"A\"]\nengine = \"kv\"\nmount = \"secret\"\npath = \"a/b/a\"\nfield = \"value\"\n"
		err = st.append(event{Op: opFile, File: MappingFile, SHA256: put(MappingFile, mapping), Created: true},
			event{Op: opBackup, Backup: backup}, event{Op: opFile, File: ".env", SHA256: put(".env", "P=1\n")})
		if err := errors.Join(err, st.close()); err != nil {
			t.Fatal(err)
		}
		if edited {
			put(".env", "P=2\n")
		}
		r, err := Rollback(t.Context(), RollbackOptions{Root: dir, Identities: []age.Identity{key}})
		if edited {
			if err == nil || !strings.Contains(err.Error(), ".env: was edited") {
				t.Errorf("edited: %v", err)
			}
			continue
		}
		if err != nil || len(r.Restored) != 1 || len(r.Removed) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, ".env")); err != nil || string(data) != "A=one\nP=1\n" {
			t.Errorf("%q, %v", data, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, MappingFile)); !errors.Is(err, os.ErrNotExist) {
			t.Error("the mapping file is left")
		}
		if r, err = Rollback(t.Context(), RollbackOptions{Root: dir}); err != nil || len(r.Restored)+len(r.Same) != 0 {
			t.Errorf("a second time: %+v, %v", r, err)
		}
	}
}
