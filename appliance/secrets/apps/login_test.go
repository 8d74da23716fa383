package apps

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/config"
)

// duringUnwrap is a Vault at whose handing out something happens.
type duringUnwrap struct {
	Vault
	do func()
}

func (v duringUnwrap) Unwrap(ctx context.Context, token string) (map[string]any, error) {
	v.do()
	return v.Vault.Unwrap(ctx, token)
}

// Whatever fails once the token is used up: the login is lost and that is said,
// or it is kept and its place is said.
func TestOpenIntoAFailingFolder(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(dir string) error
		lost bool
	}{
		"the disk":  {func(dir string) error { return removeStage(dir) }, true},
		"the place": {func(dir string) error { return os.Mkdir(filepath.Join(dir, SecretIDFile), 0o700) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			v, vault := newAppRole(t)
			v.wrapped["w"] = true
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, RoleIDFile), []byte("old\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := Bundle{RoleID: "new", WrappedSecret: "w", role: "a-e"}.OpenInto(t.Context(), dir, func(ca string) (Vault, error) {
				if ca != "" {
					t.Errorf("an authority: %q", ca)
				}
				return duringUnwrap{vault, func() {
					if err := tc.do(dir); err != nil {
						t.Error(err)
					}
				}}, nil
			})
			if got, rerr := os.ReadFile(filepath.Join(dir, RoleIDFile)); rerr != nil || string(got) != "old\n" {
				t.Errorf("the living login: %q, %v", got, rerr)
			}
			var operator *NeedsOperator
			if errors.Is(err, ErrLost) != tc.lost || errors.As(err, &operator) == tc.lost || strings.Contains(err.Error(), "the-secret-id") {
				t.Fatalf("error %v", err)
			}
			stages, gerr := filepath.Glob(filepath.Join(dir, ".login-*"))
			if gerr != nil || (len(stages) == 0) != tc.lost {
				t.Fatalf("left %q, %v", stages, gerr)
			}
			if tc.lost {
				return
			}
			if got, err := os.ReadFile(filepath.Join(stages[0], SecretIDFile)); err != nil || string(got) != "the-secret-id\n" || !strings.Contains(operator.Hint, stages[0]) {
				t.Errorf("the new login is not where the hint says: %q, %v", operator.Hint, err)
			}
		})
	}
}

func removeStage(dir string) error {
	stages, err := filepath.Glob(filepath.Join(dir, ".login-*"))
	if err != nil || len(stages) != 1 {
		return errors.Join(err, errors.New("no stage"))
	}
	return os.RemoveAll(stages[0])
}

// A bundle that could be written nowhere leaves no secret id alive.
func TestWriteBundle(t *testing.T) {
	v, vault := newAppRole(t)
	target := config.Target{App: "a", Environment: "e", Role: "a-e"}
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca")
	if err := os.WriteFile(ca, []byte("PEM"), 0o644); err != nil {
		t.Fatal(err)
	}
	place := Place{Address: "https://v", CAFile: ca}
	if _, err := WriteBundle(t.Context(), vault, target, place, filepath.Join(dir, "none", "b"), time.Hour); !errors.Is(err, fs.ErrNotExist) || len(v.secretIDs) != 2 || v.made != 1 {
		t.Errorf("no folder: %d alive of %d, %v", len(v.secretIDs), v.made, err)
	}
	if _, err := WriteBundle(t.Context(), vault, target, Place{CAFile: filepath.Join(dir, "none")}, filepath.Join(dir, "b"), time.Hour); !errors.Is(err, fs.ErrNotExist) || v.made != 1 {
		t.Errorf("no authority: %d made, %v", v.made, err)
	}
	file, left := filepath.Join(dir, "b"), filepath.Join(dir, ".b.tmp-123456")
	if err := os.WriteFile(left, []byte("of one that was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteBundle(t.Context(), vault, target, place, file, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left is there: %v", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseBundle(data)
	if err != nil || b.Address != "https://v" || b.CACert != "PEM" || b.RoleID != "r" || b.WrappedSecret != "accessor-2" {
		t.Errorf("%v, %v", b, err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}
