package apps

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// A login renews itself with the very id that it replaces, and at any moment exactly one
// id is alive and lies in the folder, whatever a killed run has left. By the right for
// that nobody gets more.
func TestRenewLogin(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	ctx := t.Context()
	if err := s.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	for name, text := range config.Policies() {
		if _, err := s.Root.Write(ctx, "sys/policies/acl/"+name, map[string]any{"policy": text}); err != nil {
			t.Fatal(err)
		}
	}
	conf := parse(t, "manifest = \"m\"\n[[app]]\nname = \"a\"\n[app.login]\nrenew = true\n[[app]]\nname = \"b\"\n[app.login]\nrenew = true\n[[app]]\nname = \"c\"\n")
	apply(t, options(conf, New(s.Client(t, tokenOf(t, s, config.PolicyAdmin)))))
	role := "auth/approle/role/a"
	newID := func(role string) string {
		t.Helper()
		got, err := s.Root.Write(ctx, role+"/secret-id", nil)
		if err != nil {
			t.Fatal(err)
		}
		return text(got, "secret_id")
	}
	alive := func() int {
		t.Helper()
		ids, err := s.Root.List(ctx, role+"/secret-id")
		if err != nil {
			t.Fatal(err)
		}
		return len(ids)
	}
	folder := func(role, id string) string {
		t.Helper()
		dir := t.TempDir()
		got, err := s.Root.Read(ctx, role+"/role-id")
		if err != nil {
			t.Fatal(err)
		}
		for name, line := range map[string]string{RoleIDFile: text(got, "role_id"), SecretIDFile: id} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(line+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	read := func(dir, name string) string {
		data, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.TrimSpace(string(data))
	}
	later := time.Now()
	renew := func(dir string) (Renewal, error) {
		return RenewLogin(ctx, RenewOptions{Dir: dir, Now: func() time.Time { return later }, Connect: func(string) (*vaultapi.Client, error) { return s.Client(t, ""), nil }})
	}
	first := newID(role)
	dir := folder(role, first)
	if r, err := renew(dir); err != nil || r.Renewed || r.Role != "a" || time.Until(r.Ends) < 89*24*time.Hour {
		t.Errorf("a young one: %+v, %v", r, err)
	}
	later = later.Add(31 * 24 * time.Hour)
	for name, leave := range map[string]func(){
		"nothing":          func() {},
		"a new one":        func() { write(t, dir, nextFile, newID(role)) },
		"half of one":      func() { write(t, dir, nextFile, "0000") },
		"one of before":    func() { write(t, dir, oldFile, newID(role)) },
		"the one there is": func() { write(t, dir, oldFile, read(dir, SecretIDFile)) },
	} {
		leave()
		before := read(dir, SecretIDFile)
		r, err := renew(dir)
		if err != nil || !r.Renewed {
			t.Fatalf("%s left: %+v, %v", name, r, err)
		}
		now := read(dir, SecretIDFile)
		if now == before || alive() != 1 || read(dir, nextFile) != "" || read(dir, oldFile) != "" {
			t.Errorf("%s left: the same=%t, %d alive, %q", name, now == before, alive(), []string{read(dir, nextFile), read(dir, oldFile)})
		}
		if st, err := os.Stat(filepath.Join(dir, SecretIDFile)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st, err)
		}
	}
	later = time.Now()
	write(t, dir, nextFile, newID(role))
	if r, err := renew(dir); err != nil || r.Renewed || alive() != 1 {
		t.Errorf("a young one, with another that a killed run made: %+v, %v, %d alive", r, err, alive())
	}
	later = later.Add(31 * 24 * time.Hour)
	var person *NeedsOperator
	if _, err := renew(folder(role, first)); !errors.As(err, &person) || strings.Contains(err.Error(), first) {
		t.Errorf("one that is destroyed: %v", err)
	}
	other := "auth/approle/role/c"
	if _, err := renew(folder(other, newID(other))); !errors.As(err, &person) || !strings.Contains(person.Hint, "renew = true") {
		t.Errorf("one that may not: %v", err)
	}
	t.Run("the right is for nothing else", func(t *testing.T) {
		c := s.Client(t, "")
		if err := c.LoginAppRole(ctx, read(dir, RoleIDFile), read(dir, SecretIDFile)); err != nil {
			t.Fatal(err)
		}
		for path, data := range map[string]map[string]any{
			"auth/approle/role/a/secret-id":                  {"ttl": "8000h"},
			"auth/approle/role/a/secret-id ":                 {"cidr_list": "0.0.0.0/0"},
			"auth/approle/role/a/secret-id  ":                {"num_uses": 0, "metadata": "{}"},
			"auth/approle/role/a/custom-secret-id":           {"secret_id": "x"},
			"auth/approle/role/a/secret-id-accessor/destroy": {"secret_id_accessor": "x"},
			"auth/approle/role/a":                            {"token_policies": "strongroom-admin"},
			"auth/approle/role/a/policies":                   {"token_policies": "strongroom-admin"},
			"auth/approle/role/b/secret-id":                  nil,
			"sys/policies/acl/a-renew":                       {"policy": ""},
		} {
			if _, err := c.Write(ctx, strings.TrimSpace(path), data); !vaultapi.IsDenied(err) {
				t.Errorf("%s %v: %v", path, data, err)
			}
		}
	})
}

func write(t *testing.T, dir, name, line string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}
