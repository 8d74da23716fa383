package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config/machine"
	"strongroom.example/test/vaulttest"
)

// withPeople is a Vault behind a front, with anna at each way in, as an installed machine
// has them.
func withPeople(t *testing.T) (s *vaulttest.Server, url string, write func(path string, data map[string]any)) {
	t.Helper()
	s, url = frontedVault(t)
	api := vaulttest.API(s.Root)
	write = func(path string, data map[string]any) {
		t.Helper()
		if _, err := api.Logical().WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	for _, mount := range []string{machine.AuthUserpass, machine.AuthLocal} {
		write("sys/auth/"+mount, map[string]any{"type": "userpass"})
		write("auth/"+mount+"/users/anna", map[string]any{"password": "right"})
	}
	write("sys/auth/"+machine.AuthLocal+"/tune", map[string]any{"user_lockout_config": map[string]any{"lockout_disable": true}})
	return s, url, write
}

// Whether a name exists, is locked, or the password was wrong: the answer is one.
func TestFrontTellsNoNames(t *testing.T) {
	t.Parallel()
	s, url, write := withPeople(t)
	write("sys/auth/approle", map[string]any{"type": "approle"})
	write("auth/approle/role/app", map[string]any{"bind_secret_id": true})
	write("auth/approle/role/app/role-id", map[string]any{"role_id": "known"})
	ways := map[string]func(name string) (path, body string){
		"userpass": func(name string) (string, string) { return "userpass/login/" + name, `{"password":"wrong"}` },
		"approle": func(name string) (string, string) {
			return "approle/login", `{"role_id":"` + strings.Replace(name, "anna", "known", 1) + `","secret_id":"wrong"}`
		},
	}
	for way, of := range ways {
		for i := range 6 {
			var answers []string
			for n, name := range []string{"anna", "nobody"} {
				path, body := of(name)
				c := from(t, s, url, fmt.Sprintf("127.0.%d.%d", 1+n, 1+i))
				status, out := ask(t, c, "POST", url+"/v1/auth/"+path, "", body)
				answers = append(answers, fmt.Sprint(status, out))
			}
			if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "400") {
				t.Errorf("%s, try %d: %s, and of a name that is not there %s", way, i+1, answers[0], answers[1])
			}
		}
	}
	// It is locked, and Vault says so to who may know.
	c := from(t, s, url, "127.0.3.1")
	if status, _ := ask(t, c, "POST", url+"/v1/auth/userpass/login/anna", "", `{"password":"right"}`); status != 400 {
		t.Errorf("with the right password: %d", status)
	}
	locked, err := evidence.ReadLockedOut(t.Context(), s.Root)
	if err != nil || !slices.Contains(locked.Names, "anna") || locked.Total < 1 {
		t.Errorf("locked: %+v, %v", locked, err)
	}
}

// However many wrong passwords are sent from outside, and however the path is spelled,
// who has the escrow gets in on the machine.
func TestFrontLocksNobodyOut(t *testing.T) {
	t.Parallel()
	s, url, write := withPeople(t)
	body := `{"password":"wrong"}`
	for i := range 6 {
		c := from(t, s, url, fmt.Sprintf("127.0.1.%d", 1+i))
		for _, path := range []string{"userpass/login/anna", machine.AuthLocal + "/login/anna", machine.AuthLocal + "%2flogin/anna", "/" + machine.AuthLocal + "/login/anna"} {
			ask(t, c, "POST", url+"/v1/auth/"+path, "", body)
		}
	}
	c := from(t, s, url, "127.0.2.1")
	for _, token := range []string{"", s.RootToken} {
		if status, out := ask(t, c, "POST", url+"/v1/auth/"+machine.AuthLocal+"/login/anna", token, `{"password":"right"}`); status != http.StatusForbidden || out["auth"] != nil {
			t.Errorf("from outside, with the right password: %d", status)
		}
		if status, _ := ask(t, c, "LIST", url+"/v1/auth/"+machine.AuthLocal+"/users", token, ""); status != http.StatusForbidden {
			t.Errorf("its users, from outside: %d", status)
		}
	}
	inside := s.Client(t, "")
	if err := inside.LoginUserpassAt(t.Context(), machine.AuthUserpass, "anna", "right"); err == nil {
		t.Error("five wrong passwords from outside lock nobody: the test tries nothing")
	}
	// Wrong passwords on the machine lock nobody there.
	for range 8 {
		if err := inside.LoginUserpassAt(t.Context(), machine.AuthLocal, "anna", "wrong"); err == nil {
			t.Fatal("a wrong password")
		}
	}
	if err := inside.LoginUserpassAt(t.Context(), machine.AuthLocal, "anna", "right"); err != nil {
		t.Errorf("on the machine: %v", err)
	}
	// Why the doctor wants no rate-limit quota.
	write("sys/quotas/rate-limit/all", map[string]any{"rate": 1000})
	if err := s.Client(t, "").LoginUserpassAt(t.Context(), machine.AuthLocal, "anna", "right"); err == nil {
		t.Error("this Vault takes rate-limit quotas on a socket: the doctor need not mind them")
	}
}
